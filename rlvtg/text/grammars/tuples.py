"""`[(5.00, 10.00), (20.00, 30.00)]`: VideoChat-R1, arXiv 2504.06958, and VideoChat-R1.5, arXiv 2509.21100.

The list is all that stands in its block, which is `<glue>` for the evidence of an answer and `<answer>` where the spans
are the answer; the first block counts. One wrong tuple makes the whole list unreadable.
"""

import re
from collections.abc import Sequence
from math import isfinite

from rlvtg.text.span import Span
from rlvtg.text.tags import first_block

MOST = 3
"""How many spans VideoChat-R1.5 may name."""

# VideoChat-R1 asks for `\d+(\.\d+)?,\s*\d+(\.\d+)?` between parentheses and then reads the list as Python does, which
# takes no digits or white space but ASCII's and no whole number with leading zeros.
_NUMBER = r"(?:[0-9]++\.[0-9]++|0++|[1-9][0-9]*+)"
_TUPLE = rf"\(({_NUMBER}),[ \t\n\r\f]*+({_NUMBER})\)"
_LIST = re.compile(rf"\[(?:{_TUPLE}(?:,[ \t\n\r\f]*+{_TUPLE})*,?)?\]\n?")
_PAIR = re.compile(_TUPLE)


def read(text: str, tag: str, most: int | None = None) -> list[Span] | None:
    """The spans of the list in the first block of `tag`, [] if the list is empty; None if there is no readable list.

    Readable means: numbers >= 0 without sign, exponent or unit, start <= end, no white space but after a comma, and one
    line break, if any, before the closing tag; at most `most` spans.
    Source: `is_valid_two_d_list_format`, OpenGVLab/VideoChat-R1@73b2ea9 grpo_tasks.py, @c9194bf reward_funcs.py.
    """
    block = first_block(text, tag)
    if block is None or _LIST.fullmatch(block) is None:
        return None
    spans = [(float(start), float(end)) for start, end in _PAIR.findall(block)]
    if most is not None and len(spans) > most:
        return None
    # Some hundred digits make an infinite float, which is no time.
    return spans if all(start <= end and isfinite(end) for start, end in spans) else None


def parse_glue(text: str) -> list[Span]:
    """The spans in the first glue block; [] too if they cannot be read."""
    return read(text, "glue") or []


def parse_few_glue(text: str) -> list[Span]:
    """The spans in the first glue block, if they are at most 3."""
    return read(text, "glue", MOST) or []


def parse_few(text: str) -> list[Span]:
    """The spans in the first answer block, if they are at most 3."""
    return read(text, "answer", MOST) or []


def no_glue(text: str) -> bool:
    """Whether the first glue block holds an empty list."""
    return read(text, "glue") == []


def no_spans(text: str) -> bool:
    """Whether the first answer block holds an empty list."""
    return read(text, "answer") == []


def write(spans: Sequence[Span], decimals: int) -> str:
    """The spans as `[(5.00, 10.00), (20.00, 30.00)]`; ValueError for one that starts after its end."""
    for start, end in spans:
        if start > end:
            raise ValueError(f"a list with a span that starts after its end would not be read back, got {(start, end)}")
    # A number without a decimal point is read too, but not one with leading zeros: "f" writes none.
    return "[" + ", ".join(f"({start:.{decimals}f}, {end:.{decimals}f})" for start, end in spans) + "]"


def write_few(spans: Sequence[Span], decimals: int) -> str:
    """As `write`; ValueError for more than 3 spans."""
    if len(spans) > MOST:
        raise ValueError(f"a list of more than {MOST} spans would not be read back, got {len(spans)}")
    return write(spans, decimals)
