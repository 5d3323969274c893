"""How well a set of predicted spans matches a set of true ones. Pure functions; every result is a finite number."""

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import zip_longest
from math import isfinite

from rlvtg.text.span import Span
from rlvtg.text.span_set import merged, merged_iou, overlap_length, total_length

MATCHINGS = ("code", "paper")

# What MUSEG's code pairs a span with that has no partner, and what it adds to a denominator.
_FAR_AWAY = (1e9, 1e9 + 1)
_EPSILON = 1e-6


def global_match(predicted: Sequence[Span], true: Sequence[Span], matching: str) -> float:
    """MUSEG's r_G (arXiv 2505.20715): `dice` as in its code, or `merged_iou` as in the paper."""
    return dice(predicted, true) if _is_code(matching) else merged_iou(predicted, true)


def local_match(predicted: Sequence[Span], true: Sequence[Span], matching: str) -> float:
    """MUSEG's r_L (arXiv 2505.20715): `paired_giou` as in its code, spans in the order in which they are given and a
    missing partner about 1e-8, or as in the paper, spans in the order of their starts and a missing partner 0."""
    if _is_code(matching):
        return paired_giou(predicted, true, by_start=False, filler=_FAR_AWAY)
    return paired_giou(predicted, true, by_start=True)


def segment_match(predicted: Sequence[Span], true: Sequence[Span], matching: str) -> float:
    """MUSEG's r_M (arXiv 2505.20715): the sum of r_G and r_L as in its code, or their mean as in the paper."""
    both = global_match(predicted, true, matching) + local_match(predicted, true, matching)
    return both if _is_code(matching) else both / 2


def dice(predicted: Sequence[Span], true: Sequence[Span]) -> float:
    """2pr / (p + r), p and r the shares of the predicted and of the true seconds that overlap the other side.

    Predicted spans are merged first; true ones are not, so that seconds annotated twice count twice. Each denominator
    has 1e-6 added (THUNLP-MT/MUSEG@889565e src/train.py), so that a perfect answer scores a little less than 1.
    """
    spans = merged(predicted)
    shared = overlap_length(spans, true)
    precision = shared / (total_length(spans) + _EPSILON)
    recall = shared / (total_length(true) + _EPSILON)
    return 2 * precision * recall / (precision + recall + _EPSILON)


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
    is paired with `filler`, and counts 0.0 if that is None. 0.0 if there are no spans at all.
    """
    if by_start:
        predicted, true = sorted(predicted), sorted(true)
    pairs = [
        0.0 if a is None or b is None else normalized_giou(a, b)
        for a, b in zip_longest(true, predicted, fillvalue=filler)
    ]
    return sum(pairs) / len(pairs) if pairs else 0.0


def _is_code(matching: str) -> bool:
    if matching not in MATCHINGS:
        nearest = get_close_matches(str(matching), MATCHINGS, n=1, cutoff=0.0)[0]
        raise ValueError(f"got matching {matching!r}; there is {', '.join(MATCHINGS)}; did you mean {nearest!r}?")
    return matching == "code"
