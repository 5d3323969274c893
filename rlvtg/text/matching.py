"""How well a set of predicted spans matches a set of true ones. Pure functions; every result is a finite number."""

from collections.abc import Sequence
from itertools import zip_longest
from math import isfinite

from rlvtg.text.span import Span


def normalized_giou(a: Span, b: Span) -> float:
    """(1 + GIoU) / 2 of two spans, in [0, 1]: 1/2 where they touch, more where they overlap, less the further apart.

    GIoU = overlap / union - (hull - union) / hull (arXiv 1902.09630). A reversed, zero-length or non-finite span
    matches nothing: 0.0.
    """
    if not (a[0] < a[1] and b[0] < b[1]):
        return 0.0
    overlap = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = a[1] - a[0] + b[1] - b[0] - overlap
    hull = max(a[1], b[1]) - min(a[0], b[0])
    # Lengths of some 300 digits are finite, but their sum is not.
    if not (isfinite(union) and isfinite(hull)):
        return 0.0
    return (1 + overlap / union - (hull - union) / hull) / 2


def paired_giou(
    predicted: Sequence[Span], true: Sequence[Span], *, by_start: bool, filler: Span | None = None
) -> float:
    """Mean `normalized_giou` of the spans paired one after the other, over the longer of the two lists, in [0, 1].

    Pairs are made in the order of start times with `by_start`, else in the order given. A span that has no partner
    is paired with `filler`, and counts 0.0 if that is None. 0.0 if a list is empty and there is no filler.
    """
    if by_start:
        predicted, true = sorted(predicted), sorted(true)
    pairs = [
        0.0 if a is None or b is None else normalized_giou(a, b)
        for a, b in zip_longest(true, predicted, fillvalue=filler)
    ]
    return sum(pairs) / len(pairs) if pairs else 0.0
