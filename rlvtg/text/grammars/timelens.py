"""`The event happens in 10.0 - 20.0 seconds.`, several spans after commas: TimeLens, arXiv 2512.14698.

`parse` reads that sentence and nothing else. `parse_training` and `parse_evaluation` are the released readings, which
take almost any two numbers for a span (TencentARC/TimeLens@5d90c06 training/utils/parser.py, timelens/utils.py).
"""

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from math import isfinite

from rlvtg.text.span import Span
from rlvtg.text.tags import opening_answer

_SENTENCE = "The event happens in "
_PLAIN_PAIR = re.compile(r"(\d++(?:\.\d++)?+) - (\d++(?:\.\d++)?+)(?![.:]\d)(?: seconds)?+(?:, )?+")

# The released expressions, made linear as in `to`: a number starts where a run of digits starts and keeps all of it.
_NUMBER = r"(\d++\.?+\d*+)"
_STAMP = re.compile(r"\b(\d{1,2}:\d{2}(?::\d{2})?(?:\.\d++)?)\b")
_DASH = re.compile(rf"(?<!\d){_NUMBER}\s*+-\s*+{_NUMBER}")
_TO = re.compile(rf"(?<!\d){_NUMBER}\s++to\s++{_NUMBER}")
_ALONE = re.compile(r"\b(\d++\.\d++|\d++)\b")


def parse(text: str) -> list[Span]:
    """The spans of the last sentence `happens in a - b seconds, c - d seconds` of a completion.

    The sentence is its own tag: what stands before it, in a think block or not, is not looked at. Only plain numbers
    count; a sign, a clock time or another word between the numbers ends the list.
    """
    _, found, rest = text.rpartition(_SENTENCE[len("The event ") :])
    spans, position = [], 0
    while found and (pair := _PLAIN_PAIR.match(rest, position)):
        spans.append((float(pair[1]), float(pair[2])))
        position = pair.end()
    return _finite(spans)


def parse_training(text: str) -> list[Span]:
    """As the released rewards read it: the answer block of a text that begins with a think block, or else the text,
    with every "to" turned into a dash, also inside words."""
    answer = opening_answer(text)
    return _any_pairs((text if answer is None else answer).lower().replace("to", "-"))


def parse_evaluation(text: str) -> list[Span]:
    """As the released evaluation reads it: the whole text, numbers of a think block included."""
    return _any_pairs(text.lower())


def write(spans: Sequence[Span], decimals: int) -> str:
    """The answer and SFT target: `The event happens in 10.0 - 20.0 seconds, 30.0 - 40.0 seconds.`"""
    return _SENTENCE + ", ".join(f"{start:.{decimals}f} - {end:.{decimals}f} seconds" for start, end in spans) + "."


def _any_pairs(text: str) -> list[Span]:
    """What the first rule that finds something finds: clock times two by two, `a - b`, `a to b`, numbers two by two."""
    stamps = _STAMP.findall(text)
    if len(stamps) > 1:
        return _two_by_two([_seconds(stamp) for stamp in stamps])
    for expression in (_DASH, _TO):
        if pairs := expression.findall(text):
            return _finite((float(start), float(end)) for start, end in pairs)
    return _two_by_two([float(number) for number in _ALONE.findall(text)])


def _seconds(stamp: str) -> float:
    """`1:02:03.5` or `02:03.5` in seconds."""
    seconds = 0.0
    for part in stamp.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _two_by_two(numbers: Sequence[float]) -> list[Span]:
    return _finite(zip(numbers[::2], numbers[1::2], strict=False))


def _finite(spans: Iterable[Span]) -> list[Span]:
    """The spans before the first number of so many digits that it is no finite float, and so no time."""
    return list(takewhile(lambda span: isfinite(span[0]) and isfinite(span[1]), spans))
