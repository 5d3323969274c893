"""Interval arithmetic on spans in seconds. Pure functions; every result is a finite number."""

from math import exp, expm1, isfinite, log

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


def shaped_iou(iou: float, *, tau: float = 0.8, a1: float = 0.01, a2: float = 1.0) -> float:
    """An IoU bent so that all above `tau` is nearly as good, and the way up to it counts (arXiv 2509.18056, Eq. 4).

    tau + a1 * ln(iou - tau + 1) from `tau` on, tau - (exp(a2 * (tau - iou)) - 1) / (exp(a2) - 1) below it: continuous
    and increasing, 0.0868 at 0 and 0.8018 at 1 with the paper's numbers. With a2 <= 0, where the lower formula has no
    meaning, max(0, iou) below `tau`, as in the release. `tau` lies in [0, 1], else ValueError.
    """
    if not 0 <= tau <= 1:
        raise ValueError(f"got tau={tau!r}, want the IoU, from 0 to 1, above which answers are nearly equal")
    if iou >= tau:
        return tau + a1 * log(iou - tau + 1)
    if a2 <= 0:
        return max(0.0, iou)
    # The fraction with exp(a2) divided out of it, which is finite for any a2.
    return tau - exp(a2 * (tau - iou - 1)) * expm1(a2 * (iou - tau)) / expm1(-a2)
