"""Interval arithmetic on spans in seconds. Pure functions; every result is a finite number."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
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


def window(span: Span, duration: float, shortest: float = 0.0) -> Span:
    """The part of a span that lies in a video of `duration` seconds, widened to at least `shortest` seconds.

    It is widened around its middle, as far as the video allows. ValueError for a span that is reversed, zero-length or
    not finite, and for one that lies outside the video.
    """
    start, end = span
    if not (isfinite(start) and isfinite(end) and start < end and start < duration and end > 0):
        raise ValueError(f"the span is {start} to {end} s, the video lasts {duration} s; they share no time")
    start, end = max(0.0, start), min(end, duration)
    length = min(max(shortest, end - start), duration)
    if length > end - start:
        start = min(max(0.0, (start + end - length) / 2), duration - length)
        end = start + length
    return start, end


def moved(spans: Sequence[Span], seconds: float) -> list[Span]:
    """Spans on the clock of a part that starts at `seconds`, as spans on the clock of the whole."""
    return [(start + seconds, end + seconds) for start, end in spans]


def whole_seconds(span: Span) -> Span:
    """A span with both ends rounded to whole seconds, halves to the even one; one that is not finite as it is."""
    if not all(map(isfinite, span)):
        return span
    return float(round(span[0])), float(round(span[1]))
