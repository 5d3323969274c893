"""`<0><4><8><0> - <7><0><0><0>`, relative position tokens: Seq2Time, arXiv 2411.16932 (no code is released).

A position is its share of the video with four decimals, written as one token for each decimal: 7 of 96 frames is
0.0729, `<0><7><2><9>`. So the four digits read as a number n stand for the second n * duration / 10000. The end of
the video, 1.0000, has no such form; it is written as 0.9999, which is ours, as is the dash of TimeChat's answers that
stands between two positions.
"""

import re
from collections.abc import Sequence

from rlvtg.text.span import Span
from rlvtg.text.tags import last_answer

_POSITION = r"<(\d)> ?<(\d)> ?<(\d)> ?<(\d)>"
_A_DASH_B = re.compile(rf"{_POSITION}\s*+(?:-|to|and)\s*+{_POSITION}")
_LAST = 9999


def parse(text: str) -> list[Span]:
    """The first "a - b" (or "to", "and") of the last answer block or, where none is closed, of the whole text."""
    answer = last_answer(text)
    found = _A_DASH_B.search(text if answer is None else answer)
    if not found:
        return []
    digits = "".join(found.groups())
    return [(float(digits[:4]), float(digits[4:]))]


def write(spans: Sequence[Span], decimals: int) -> str:
    """One span in ten-thousandths of the video; positions always have four digits, whatever `decimals`."""
    [(start, end)] = spans
    return f"{_tokens(start)} - {_tokens(end)}"


def _tokens(position: float) -> str:
    return "".join(f"<{digit}>" for digit in f"{min(round(position), _LAST):04d}")
