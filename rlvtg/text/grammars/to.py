"""`12.54 to 17.83` in the last answer block: Time-R1 and TimeZero, arXiv 2503.13377; VideoChat-R1, arXiv 2504.06958."""

import re
from collections.abc import Sequence
from itertools import islice
from math import isfinite

from rlvtg.text.span import Span
from rlvtg.text.tags import last_answer

# Time-R1's `(\d+\.?\d*) (to|and) (\d+\.?\d*)`. Starting only where a run of digits starts, and never giving back a
# digit, changes no match: a number that starts or stops inside a run can be widened to the whole run.
_PAIR = r"(?<!\d)(\d++\.?+\d*+) (?:to|and) (\d++\.?+\d*+)"
_A_TO_B = re.compile(_PAIR, re.IGNORECASE)
_A_TO_B_AS_WRITTEN = re.compile(_PAIR)
# Time-R1's `\d+(?:\.\d+)?`.
_NUMBER = re.compile(r"\d++(?:\.\d++)?+")


def parse(text: str) -> list[Span]:
    """The last "a to b" of the last answer block (xiaomi-research/time-r1@7f2b594 main.py)."""
    answer = last_answer(text)
    return _last(_A_TO_B.findall(answer)) if answer is not None else []


def parse_ordered(text: str) -> list[Span]:
    """As `parse`, with nothing for a span that starts after its end (OpenGVLab/VideoChat-R1@73b2ea9 grpo_tg.py)."""
    return [(start, end) for start, end in parse(text) if start <= end]


def parse_anywhere(text: str) -> list[Span]:
    """The last "a to b" of the whole text, reasoning included, with `to` and `and` in lower case only.

    How the papers' evaluations read: evaluate.py of xiaomi-research/time-r1@7f2b594 and of www-Ye/Time-R1@d1a0d54,
    inference/evaluate.py of nian1125/Invert4TVG@3597015, src_eval/evaluate_grounding.py of
    OpenGVLab/VideoChat-R1@73b2ea9.
    """
    return _last(_A_TO_B_AS_WRITTEN.findall(text))


def parse_first_numbers(text: str) -> list[Span]:
    """The first two numbers of the whole text, whatever stands around them.

    How Time-R1 measures a row's difficulty where its evaluation reads nothing (xiaomi-research/time-r1@7f2b594
    calc_difficulty.py).
    """
    numbers = [match.group() for match in islice(_NUMBER.finditer(text), 2)]
    return _last([(numbers[0], numbers[1])]) if len(numbers) == 2 else []


def _last(pairs: Sequence[tuple[str, str]]) -> list[Span]:
    if not pairs:
        return []
    start, end = map(float, pairs[-1])
    # Some hundred digits make an infinite float, which is no time.
    return [(start, end)] if isfinite(start) and isfinite(end) else []


def write(spans: Sequence[Span], decimals: int) -> str:
    """One span, as `3.25 to 11.50`."""
    [(start, end)] = spans
    return f"{start:.{decimals}f} to {end:.{decimals}f}"


def write_ordered(spans: Sequence[Span], decimals: int) -> str:
    """One span, as `3.25 to 11.50`; ValueError if it starts after its end."""
    [(start, end)] = spans
    if start > end:
        raise ValueError(f"a span that starts after its end would not be read back, got {spans[0]!r}")
    return write(spans, decimals)
