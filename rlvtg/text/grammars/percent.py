"""`12.50% to 48.00%` of the video's duration: a form of our own, for time that is relative and continuous.

The number p stands for the second p * duration / 100.
"""

import re
from collections.abc import Sequence
from math import isfinite

from rlvtg.text.span import Span
from rlvtg.text.tags import last_answer

_A_TO_B = re.compile(r"(?<!\d)(\d++(?:\.\d++)?+) ?%\s*+to\s*+(\d++(?:\.\d++)?+) ?%")


def parse(text: str) -> list[Span]:
    """The last "a% to b%" of the last answer block or, where none is closed, of the whole text, in percent."""
    answer = last_answer(text)
    pairs = _A_TO_B.findall(text if answer is None else answer)
    spans = [(float(start), float(end)) for start, end in pairs[-1:]]
    return [span for span in spans if all(map(isfinite, span))]


def write(spans: Sequence[Span], decimals: int) -> str:
    """One span in percent, as `12.50% to 48.00%`."""
    [(start, end)] = spans
    return f"{start:.{decimals}f}% to {end:.{decimals}f}%"
