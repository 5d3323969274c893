"""`10.00-20.00 30.00-41.50` in the one answer block: MUSEG, arXiv 2505.20715, THUNLP-MT/MUSEG@889565e."""

import re
from collections.abc import Sequence
from math import isfinite

from rlvtg.text.span import Span
from rlvtg.text.tags import only_answer

# MUSEG's `\d+\.*\d*`: no digit or dot is ever given back, because nothing follows that could ask for it.
_NUMBER_OR_DOTS = re.compile(r"\d++\.*+\d*+")
_NUMBER = re.compile(r"\d++(?:\.\d++)?+")


def parse(text: str) -> list[Span]:
    """All spans of the answer, as written; one token that is no range, or not 0 <= start < end, spoils them all.

    The gate of the matching rewards of src/train.py; a bound that is not finite spoils them as well.
    """
    answer = only_answer(text)
    spans = None if answer is None else ranges(answer)
    if spans is None or not all(0 <= start < end and isfinite(end) for start, end in spans):
        return []
    return spans


def ranges(answer: str) -> list[Span] | None:
    """The two numbers of every `a-b` in what stands between the answer tags; None if a token is something else.

    As in src/train.py, numbers are what Python's float() takes (1e1, 1_0.0, nan, digits of any script), and what
    follows a second hyphen is not looked at.
    """
    found: list[Span] = []
    for token in answer.split():
        parts = token.split("-")
        try:
            found.append((float(parts[0]), float(parts[1])))
        except (ValueError, IndexError):
            return None
    return found


def parse_numbers(text: str) -> list[Span]:
    """All spans of the answer as src/eval_grounding.py reads them: see `paired_numbers`."""
    answer = only_answer(text)
    return [] if answer is None else paired_numbers(answer)


def paired_numbers(answer: str) -> list[Span]:
    """Every two numbers in an answer as a span, whatever stands between them.

    An odd count, a pair without start < end or a number with two dots in a row spoils them all; a minus sign is none.
    """
    numbers = _NUMBER_OR_DOTS.findall(answer)
    try:
        bounds = [float(number) for number in numbers]
    except ValueError:
        return []
    spans = list(zip(bounds[::2], bounds[1::2], strict=False))
    if len(bounds) % 2 or not all(start < end and isfinite(end) for start, end in spans):
        return []
    return spans


def numbers(text: str) -> list[float]:
    """The numbers in free text that are written in digits, with or without a decimal point."""
    return [float(number) for number in _NUMBER.findall(text)]


def write(spans: Sequence[Span], decimals: int) -> str:
    """Any number of spans, as `10.00-20.00 30.00-41.50`."""
    return " ".join(f"{start:.{decimals}f}-{end:.{decimals}f}" for start, end in spans)
