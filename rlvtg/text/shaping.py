"""An IoU bent to say which differences a group of answers should learn from."""

from math import exp, expm1, log


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
