"""`12.54 to 17.83` in the last answer block: Time-R1 and TimeZero, arXiv 2503.13377."""

import re
from collections.abc import Sequence
from math import isfinite

from rlvtg.text.span import Span
from rlvtg.text.tags import last_answer

# Time-R1's `(\d+\.?\d*) (to|and) (\d+\.?\d*)`. Starting only where a run of digits starts, and never giving back a
# digit, changes no match: a number that starts or stops inside a run can be widened to the whole run.
_A_TO_B = re.compile(r"(?<!\d)(\d++\.?+\d*+) (?:to|and) (\d++\.?+\d*+)", re.IGNORECASE)
_A_TO_B_AS_WRITTEN = re.compile(_A_TO_B.pattern)


def parse(text: str) -> list[Span]:
    """The last "a to b" of the last answer block (xiaomi-research/time-r1@7f2b594 main.py)."""
    answer = last_answer(text)
    return _last(_A_TO_B.findall(answer)) if answer is not None else []


def parse_anywhere(text: str) -> list[Span]:
    """The last "a to b" of the whole text, reasoning included, with `to` and `and` in lower case only.

    How the evaluation of nian1125/Invert4TVG@3597015 reads (inference/evaluate.py).
    """
    return _last(_A_TO_B_AS_WRITTEN.findall(text))


def _last(pairs: list[tuple[str, str]]) -> list[Span]:
    if not pairs:
        return []
    start, end = map(float, pairs[-1])
    # Some hundred digits make an infinite float, which is no time.
    return [(start, end)] if isfinite(start) and isfinite(end) else []


def write(spans: Sequence[Span], decimals: int) -> str:
    """One span, as `3.25 to 11.50`."""
    [(start, end)] = spans
    return f"{start:.{decimals}f} to {end:.{decimals}f}"
