"""`[[3.25, 11.50], [20.00, 31.00]]`, a JSON list of all spans: TimeLens2, arXiv 2607.17423."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

from rlvtg.text.span import Span
from rlvtg.text.tags import first_answer, thinking_answer

# JSON nested deeper than this holds no spans. Python's reader gives up at some hundred levels, depending on its caller.
_DEEPEST = 64
# How often a span may be wrapped in lists of its own.
_WRAPS = 8
# So many bracketed parts are tried before an answer is given up.
_MOST_PARTS = 1000

_BRACKET = re.compile(r"[][{}]")
_SQUARE = re.compile(r"[][]")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_FENCE = re.compile(r"```(?:json)?+", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d++(?:\.\d++)?+(?:[eE][+-]?\d++)?+")


def parse(text: str) -> list[Span]:
    """The spans of the first part of the answer that is JSON and holds some, the smaller bound of each first.

    The answer is that of a thinking block with an answer block, or the first answer block, or the text. Tried are the
    whole of it, its first code fence, and each bracketed part that begins with `[[`. Bounds may be numbers or strings
    of numbers, and spans may be wrapped in further lists; what is no pair of finite numbers is left out
    (MCG-NJU/TimeLens2@a5ce450 grpo/timelens/rewards/metrics.py).
    """
    answer = thinking_answer(text)
    if answer is None:
        answer = first_answer(text)
    for part in _parts((text if answer is None else answer).strip()):
        if spans := _spans(_loaded(part)):
            return [(min(span), max(span)) for span in spans]
    return []


def write(spans: Sequence[Span], decimals: int) -> str:
    """All spans, as `[[3.25, 11.50], [20.00, 31.00]]`."""
    return "[" + ", ".join(f"[{start:.{decimals}f}, {end:.{decimals}f}]" for start, end in spans) + "]"


def _parts(answer: str) -> Iterator[str]:
    """What may be JSON, in the order in which it counts; together not longer than three times the answer."""
    yield answer
    if fence := _FENCE.search(answer):
        end = answer.find("```", fence.end())
        if end >= 0:
            yield answer[fence.end() : end].strip()
    position = 0
    for _ in range(_MOST_PARTS):
        start = answer.find("[[", position)
        position = -1 if start < 0 else _end_of_list(answer, start)
        if position < 0:
            return
        yield answer[start:position]


def _end_of_list(answer: str, start: int) -> int:
    """Where the list that begins at `start` has been closed, -1 if it never is."""
    depth = 0
    for bracket in _SQUARE.finditer(answer, start):
        depth += _STEP[bracket[0]]
        if depth == 0:
            return bracket.end()
    return -1


def _loaded(part: str) -> Any:
    """`part` as JSON with every number a float; None if it is not JSON or nested too deep."""
    depths = accumulate(_STEP[bracket] for bracket in _BRACKET.findall(part))
    if max(depths, default=0) > _DEEPEST:
        return None
    try:
        return json.loads(part, parse_int=float)
    except (json.JSONDecodeError, RecursionError):  # brackets within strings can hide how deep the others go
        return None


def _spans(data: Any) -> list[Span]:
    """The spans of a JSON value: a list of spans, or one span alone, with any number of lists around it."""
    while isinstance(data, list) and len(data) == 1 and isinstance(data[0], list):
        data = data[0]
    if not isinstance(data, list) or not data:
        return []
    if isinstance(data[0], list):
        return [span for item in data if (span := _wrapped_span(item)) is not None]
    span = _pair(data)
    # [10, "20"] alone is no span there, though ["10", 20] is.
    if span is None or (isinstance(data[0], float) and isinstance(data[1], str)):
        return []
    return [span]


def _wrapped_span(item: Any) -> Span | None:
    for _ in range(_WRAPS):
        if not isinstance(item, list):
            return None
        if (span := _pair(item)) is not None:
            return span
        if len(item) != 1:
            return None
        item = item[0]
    return None


def _pair(items: list[Any]) -> Span | None:
    """The first two items as finite numbers."""
    if len(items) < 2:
        return None
    start, end = map(_number, items[:2])
    return None if start is None or end is None else (start, end)


def _number(item: Any) -> float | None:
    if isinstance(item, str) and _NUMBER.fullmatch(item.strip()):
        item = float(item.strip())
    return item if isinstance(item, float) and isfinite(item) else None
