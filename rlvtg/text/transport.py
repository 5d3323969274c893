"""How far the time of one set of spans must be moved to become another: Wasserstein distances on the line."""

from collections.abc import Sequence
from math import inf, sqrt

from rlvtg.text.span import Span
from rlvtg.text.span_set import merged, total_length


def wasserstein(a: Sequence[Span], b: Sequence[Span], order: int) -> float:
    """Wasserstein distance of order 1 or 2, in seconds, between the uniform densities on the unions of two sets.

    (integral over u from 0 to 1 of |x(u) - y(u)|^order)^(1/order), with x and y the quantile functions. They are
    linear between the ends of spans, so the integral is a sum over pieces and exact; O(n log n). Infinite if a side has
    no length or the distance exceeds the largest float.
    """
    a, b = merged(a), merged(b)
    if not a or not b:
        return inf
    length_a, length_b = total_length(a), total_length(b)
    total, i, j = 0.0, 0, 0
    x, y = a[0][0], b[0][0]
    while True:
        # What is left of a[i] and of b[j], as shares of the time of their side.
        left_a, left_b = (a[i][1] - x) / length_a, (b[j][1] - y) / length_b
        share = min(left_a, left_b)
        next_x = a[i][1] if left_a <= left_b else x + share * length_a
        next_y = b[j][1] if left_b <= left_a else y + share * length_b
        total += share * (_mean_distance if order == 1 else _mean_square)(x - y, next_x - next_y)
        i, j = i + (left_a <= left_b), j + (left_b <= left_a)
        if i == len(a) or j == len(b):
            break
        x = a[i][0] if left_a <= left_b else next_x
        y = b[j][0] if left_b <= left_a else next_y
    distance = total if order == 1 else sqrt(total)
    return distance if distance < inf else inf


def _mean_distance(first: float, last: float) -> float:
    """Mean of |d| where d goes evenly from `first` to `last`."""
    ends = abs(first) + abs(last)
    if (first < 0) == (last < 0) or ends == 0:
        return ends / 2
    return (first * first + last * last) / (2 * ends)


def _mean_square(first: float, last: float) -> float:
    """Mean of d^2 where d goes evenly from `first` to `last`."""
    return (first * first + first * last + last * last) / 3
