"""`12.54 to 17.83` read leniently: TempSamp-R1, arXiv 2509.18056, release ZhangZikun6666/TempSamp-R1@55a9228.

The release's training parser (scripts/timelens/timelens_reward.py) and its evaluation parser
(scripts/eval/eval_timelens_bench.py) are two grammars. Both take an answer without tags; neither knows signs.
"""

import re
from collections.abc import Sequence
from itertools import islice
from math import isfinite
from typing import Any

from rlvtg.text.span import Span
from rlvtg.text.tags import answer_blocks, first_answer, first_line_answer

# Each expression matches as the release's (in the tests), which needs quadratic time on long runs of digits: it starts
# only where a run of digits starts and never gives back a digit, and no match is lost by that, because what follows a
# number is never a digit.
_NUMBER = r"(?<!\d)(\d++\.?+\d*+)"
_A_TO_B = re.compile(rf"{_NUMBER}\s*+(?:to|and)\s*+{_NUMBER}")
_A_DASH_B = re.compile(rf"{_NUMBER}\s*+-\s*+{_NUMBER}")
_A_SPACED_TO_B = re.compile(rf"{_NUMBER}\s++to\s++{_NUMBER}")
# A number may lose its decimals here: `\b` holds between the dot and the zero of "7.0s".
_WORD = re.compile(r"\b(\d++(?:\.\d++\b|\.\b|\b))")
_WHOLE_WORD = re.compile(r"\b(\d++\.\d++\b|\d++\b)")
_CLOCK = re.compile(r"\b(\d{1,2}:\d{2}:\d{2}(?:\.\d++)?|\d{1,2}:\d{2}(?:\.\d++)?)\b")
# `\d+\.?\d*\s*(?:to|and|-)\s*\d+\.?\d*` is somewhere if and only if this is: a digit of each number is enough.
_PAIR = re.compile(r"\d\.?+\s*+(?:to|and|-)\s*+\d")


def parse(text: str) -> list[Span]:
    """One span from the first answer block or, where none is closed, from the whole text.

    The first rule that finds one counts: the last "a to b" or "a and b" (lower case, any white space or none), the
    last "a - b", the first two numbers that are words.
    """
    answer = first_answer(text)
    answer = text if answer is None else answer
    pairs = _A_TO_B.findall(answer) or _A_DASH_B.findall(answer)
    return _finite(pairs[-1:] or _by_two([word[1] for word in islice(_WORD.finditer(answer), 2)]))


def parse_evaluation(text: str) -> list[Span]:
    """Every span of the lower-cased text's first answer block of one line or, without one, of the whole text.

    The first rule that finds any counts: mm:ss or hh:mm:ss, "a - b", "a to b", numbers that are words; clock times and
    words are taken two by two. Published scores are of the first span, rounded to whole seconds.
    """
    text = text.lower()
    answer = first_line_answer(text)
    answer = text if answer is None else answer
    pairs = _by_two([_seconds(clock) for clock in _CLOCK.findall(answer)])
    pairs = pairs or _A_DASH_B.findall(answer) or _A_SPACED_TO_B.findall(answer)
    return _finite(pairs or _by_two(_WHOLE_WORD.findall(answer)))


def has_answered_pair(text: str, *, strict: bool = False) -> bool:
    """Whether the first answer block holds two numbers joined by "to", "and" or "-".

    With `strict` it must also be the only block, be on one line, and end the text but for white space.
    """
    text = text.rstrip()
    blocks = list(islice(answer_blocks(text), 2))
    if not blocks or not _PAIR.search(blocks[0]):
        return False
    return not strict or (len(blocks) == 1 and text.endswith("</answer>") and not {"\n", "\r"} & set(blocks[0]))


def _seconds(clock: str) -> float:
    *hour, minute, second = clock.split(":")
    return sum(int(part) * 3600 for part in hour) + int(minute) * 60 + float(second)


def _by_two(numbers: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(numbers[::2], numbers[1::2], strict=False))


def _finite(pairs: Sequence[tuple[Any, Any]]) -> list[Span]:
    """Without the spans whose numbers are too long for a float."""
    spans = [(float(start), float(end)) for start, end in pairs]
    return [span for span in spans if all(map(isfinite, span))]
