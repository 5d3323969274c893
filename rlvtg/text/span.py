"""Interval arithmetic on spans in seconds. Pure functions; every result is a finite number."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from math import isfinite

Span = tuple[float, float]
"""(start, end) in seconds."""


def iou(a: Span, b: Span, *, point: float = 0.0) -> float:
    """Overlap of two spans divided by their hull, in [0, 1].

    The hull max(ends) - min(starts) is the union whenever the spans overlap; where they do not, the overlap is 0.
    A reversed, zero-length or non-finite span overlaps nothing: 0.0, or `point` if both are the same zero-length span.
    """
    if not all(map(isfinite, (*a, *b))):
        return 0.0
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    if overlap <= 0:
        return point if a == b and a[0] == a[1] else 0.0
    return overlap / (max(a[1], b[1]) - min(a[0], b[0]))


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same seconds as spans in order that do not touch. A reversed, zero-length or non-finite span covers none."""
    covered: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1] and all(map(isfinite, span))):
        if covered and start <= covered[-1][1]:
            covered[-1] = (covered[-1][0], max(covered[-1][1], end))
        else:
            covered.append((start, end))
    return covered


def set_iou(a: Iterable[Span], b: Iterable[Span], *, empty: float = 0.0) -> float:
    """Seconds that both lists of spans cover, divided by the seconds that either does, in [0, 1].

    Each list counts as the set of seconds that it covers, so it does not matter how often it covers one. `empty` if
    neither covers any.
    """
    a, b = merged(a), merged(b)
    total = sum(end - start for start, end in (*a, *b))
    both, i, j = 0.0, 0, 0
    while i < len(a) and j < len(b):
        both += max(0.0, min(a[i][1], b[j][1]) - max(a[i][0], b[j][0]))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    if total == 0.0:
        return empty
    value = both / (total - both)
    # Lengths of 300 digits are finite, but their sum need not be; and rounding may take equal sets past 1.
    return min(1.0, value) if isfinite(value) else 0.0


def snapped(span: Span, stamps: Sequence[float]) -> Span:
    """The span widened to the nearest of the ascending `stamps`: the last one at or before its start, the first one at
    or after its end; a bound beyond all stamps stays (TimeLens-7B, arXiv 2512.14698).
    """
    start, end = span
    before, after = bisect_right(stamps, start), bisect_left(stamps, end)
    return (stamps[before - 1] if before else start, stamps[after] if after < len(stamps) else end)


def timestamp_iou(predicted: Span, true: Span, duration: float, *, clamp: bool = False) -> float:
    """IoU * (1 - |s - s'| / duration) * (1 - |e - e'| / duration), with `duration` in seconds (arXiv 2503.13377).

    A predicted end more than `duration` away from the true one makes its factor negative, so the value lies in
    (-inf, 1]; `clamp` limits both factors to [0, 1]. 0.0 where `iou` is 0.0 and where `duration` is not positive.
    """
    overlap = iou(predicted, true)
    if overlap == 0.0 or not duration > 0:
        return 0.0
    start = 1 - abs(predicted[0] - true[0]) / duration
    end = 1 - abs(predicted[1] - true[1]) / duration
    if clamp:
        start, end = max(0.0, start), max(0.0, end)
    value = overlap * start * end
    # A number of 300 digits in a completion is finite, but its distance divided by a short duration is not.
    return value if isfinite(value) else 0.0
