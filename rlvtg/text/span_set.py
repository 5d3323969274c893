"""Arithmetic on sets of spans in seconds: merging, lengths, overlap. Pure functions; every result is a finite number.

Sets that are compared come from a model on the one side, so they may be large, and from an annotation on the other: n
predicted and m true spans take O(n log n + n m) time. Spans that do not end after they start have no length and count
for nothing.
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import isfinite

from rlvtg.text.span import Span

# Keeps a quotient of lengths defined where both are 0, as in the papers' code.
_TINY = 1e-16


def is_usable(spans: Sequence[Span]) -> bool:
    """Whether there are spans, all of them end after they start, and they lie less than the largest float apart."""
    if not all(start < end for start, end in spans):
        return False
    return bool(spans) and isfinite(max(end for _, end in spans) - min(start for start, _ in spans))


def with_length(spans: Sequence[Span]) -> list[Span]:
    """The spans that end after they start."""
    return [(start, end) for start, end in spans if start < end]


def merged(spans: Sequence[Span]) -> list[Span]:
    """The union of spans as disjoint spans in rising order; spans that touch become one."""
    union: list[Span] = []
    for start, end in sorted(with_length(spans)):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end))
        else:
            union.append((start, end))
    return union


def total_length(spans: Sequence[Span]) -> float:
    """Sum of the lengths; time that two spans share counts twice."""
    return sum(end - start for start, end in with_length(spans))


def overlap_length(union: Sequence[Span], others: Sequence[Span]) -> float:
    """Sum of the overlaps of each span of `union`, which are disjoint and in rising order, with each of `others`."""
    starts = [start for start, _ in union]
    total = 0.0
    for start, end in with_length(others):
        for s, e in union[max(0, bisect_right(starts, start) - 1) : bisect_right(starts, end)]:
            total += max(0.0, min(e, end) - max(s, start))
    return total


def set_iou(predicted: Sequence[Span], true: Sequence[Span]) -> float:
    """IoU of the union of the predicted spans with the true spans, in [0, 1].

    The true spans are not merged: time that two of them share counts twice, as overlap and as length. 0.0 if either
    side has no length.
    """
    union = merged(predicted)
    overlap = overlap_length(union, true)
    value = overlap / (total_length(union) + total_length(true) - overlap + _TINY)
    return min(1.0, value) if isfinite(value) else 0.0


def merged_iou(predicted: Sequence[Span], true: Sequence[Span], *, empty: float = 0.0) -> float:
    """Seconds that both sides cover divided by the seconds that either does, in [0, 1]; `empty` if neither covers any.

    Both sides are merged: it does not matter how often one covers a second.
    """
    predicted, true = merged(predicted), merged(true)
    length = total_length(predicted) + total_length(true)
    if length == 0.0:
        return empty
    overlap = overlap_length(predicted, true)
    value = overlap / (length - overlap)
    # Lengths of 300 digits are finite, but their sum need not be; and rounding may take equal sets past 1.
    return min(1.0, value) if isfinite(value) else 0.0


def set_giou(predicted: Sequence[Span], true: Sequence[Span]) -> float:
    """Generalised IoU of the union of the predicted spans with the true spans, in [-1, 1].

    IoU - (hull - union) / hull (arXiv 1902.09630), the hull reaching from the first start to the last end of all spans
    and the IoU and the length of the union as in `set_iou`. 0.0 if either side has no length.
    """
    union, true = merged(predicted), with_length(true)
    if not union or not true:
        return 0.0
    overlap = overlap_length(union, true)
    length = total_length(union) + total_length(true) - overlap
    hull = max(end for _, end in [*union, *true]) - min(start for start, _ in [*union, *true])
    value = overlap / (length + _TINY) - (hull - length) / hull
    return max(-1.0, min(1.0, value)) if isfinite(value) else 0.0
