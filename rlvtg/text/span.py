"""Interval arithmetic on spans in seconds. Pure functions; every result is a finite number."""

from math import isfinite

Span = tuple[float, float]
"""(start, end) in seconds."""


def iou(a: Span, b: Span) -> float:
    """Overlap of two spans divided by their hull, in [0, 1].

    The hull max(ends) - min(starts) is the union whenever the spans overlap; where they do not, the overlap is 0.
    A reversed, zero-length or non-finite span overlaps nothing: 0.0.
    """
    if not all(map(isfinite, (*a, *b))):
        return 0.0
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    if overlap <= 0:
        return 0.0
    return overlap / (max(a[1], b[1]) - min(a[0], b[0]))


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


def whole_seconds(span: Span) -> Span:
    """A span with both ends rounded to whole seconds, halves to the even one; one that is not finite as it is."""
    if not all(map(isfinite, span)):
        return span
    return float(round(span[0])), float(round(span[1]))
