import math
import random
import time

import pytest

from rlvtg.text.span import iou, whole_seconds
from rlvtg.text.span_set import (
    is_usable,
    merged,
    merged_iou,
    overlap_length,
    set_giou,
    set_iou,
    total_length,
    with_length,
)
from rlvtg.text.transport import wasserstein


def test_merging_joins_what_touches_and_drops_what_has_no_length():
    assert merged([(30, 40), (7, 10), (5, 8), (10, 12), (12, 12), (20, 15)]) == [(5, 12), (30, 40)]
    assert merged([(0, 100), (5, 6)]) == [(0, 100)]
    assert merged([]) == merged([(3, 3)]) == []
    assert with_length([(1, 2), (2, 2), (3, 2)]) == [(1, 2)]


def test_lengths_and_overlaps_are_sums_over_spans():
    assert total_length([(0, 10), (5, 15), (3, 1)]) == 20
    assert overlap_length([(0, 10)], [(5, 15), (8, 9), (20, 30), (9, 8)]) == 6


@pytest.mark.parametrize(
    ("predicted", "true", "value"),
    [
        ([(10, 20)], [(10, 20)], 1.0),
        ([(10, 14), (14, 20)], [(10, 20)], 1.0),
        ([(10, 14), (16, 20)], [(10, 20)], 0.8),
        ([(5, 40)], [(5, 10), (30, 40)], 15 / 35),
        ([(5, 10), (5, 10)], [(5, 10), (30, 40)], 1 / 3),
        ([(0, 10)], [(0, 10), (0, 10)], 1.0),
        ([(0, 10)], [(0, 20), (0, 20)], 20 / 30),
        ([(30, 40)], [(10, 20)], 0.0),
        ([(10, 20)], [(20, 10)], 0.0),
        ([(10, 20)], [(15, 15)], 0.0),
        ([], [(10, 20)], 0.0),
        ([(0, 1.7e308)], [(10, 20)], 0.0),
    ],
)
def test_set_iou_merges_the_predictions_only(predicted, true, value):
    assert set_iou(predicted, true) == pytest.approx(value, rel=1e-12, abs=1e-300)


def test_set_measures_of_two_spans_are_those_of_spans():
    draw = random.Random(0)
    for _ in range(200):
        a, b = (tuple(sorted(draw.choices(range(20), k=2))) for _ in range(2))
        overlap = min(a[1], b[1]) - max(a[0], b[0])
        assert set_iou([a], [b]) == pytest.approx(iou(a, b), abs=1e-15)
        if a[0] < a[1] and b[0] < b[1]:
            gap = min(0, overlap) / (max(a[1], b[1]) - min(a[0], b[0]))
            assert set_giou([a], [b]) == pytest.approx(iou(a, b) + gap, abs=1e-15)


@pytest.mark.parametrize(
    ("predicted", "true", "value"),
    [
        ([(10, 20)], [(10, 20)], 1.0),
        ([(30, 40)], [(10, 20)], -1 / 3),
        ([(10, 14), (16, 20)], [(10, 20)], 0.8),
        ([(5, 10)], [(5, 10), (30, 40)], 1 / 3 - 20 / 35),
        ([(1e6, 1e6 + 1)], [(0, 1)], -1 + 2 / (1e6 + 1)),
        ([(10, 20)], [(15, 15)], 0.0),
        ([], [(10, 20)], 0.0),
    ],
)
def test_set_giou_falls_with_the_empty_part_of_the_hull(predicted, true, value):
    assert set_giou(predicted, true) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("spans", "usable"),
    [
        ([(1, 2)], True),
        ([(5, 6), (1, 2)], True),
        ([(1, 2), (2, 2)], False),
        ([(2, 1)], False),
        ([], False),
        ([(-1.7e308, 1.7e308)], False),
        ([(-1.7e308, 0.0), (1.0, 1.7e308)], False),
    ],
)
def test_an_answer_is_usable_as_a_whole_or_not_at_all(spans, usable):
    assert is_usable(spans) is usable


@pytest.mark.parametrize(
    ("a", "b", "first", "second"),
    [
        ([(10, 20)], [(10, 20)], 0.0, 0.0),
        ([(10, 14), (14, 20)], [(10, 20)], 0.0, 0.0),
        ([(10, 20)], [(30, 40)], 20.0, 20.0),
        ([(0, 2)], [(0, 4)], 1.0, math.sqrt(4 / 3)),
        ([(1, 3)], [(0, 4)], 0.5, math.sqrt(1 / 3)),
        ([(0, 1), (9, 10)], [(0, 2)], 4.0, math.sqrt(32.0)),
    ],
)
def test_wasserstein_distances_in_both_directions(a, b, first, second):
    for x, y in [(a, b), (b, a)]:
        assert wasserstein(x, y, 1) == pytest.approx(first, rel=1e-12)
        assert wasserstein(x, y, 2) == pytest.approx(second, rel=1e-12)


def test_wasserstein_equals_a_sum_over_many_quantiles():
    def quantiles(spans, count):
        union, at = merged(spans), []
        shares = [total_length(union) * (k + 0.5) / count for k in range(count)]
        for share in shares:
            for start, end in union:
                if share <= end - start:
                    at.append(start + share)
                    break
                share -= end - start
        return at

    draw = random.Random(3)
    for _ in range(30):
        a, b = ([tuple(sorted(draw.sample(range(50), 2))) for _ in range(draw.randint(1, 5))] for _ in range(2))
        gaps = [x - y for x, y in zip(quantiles(a, 5000), quantiles(b, 5000), strict=True)]
        assert wasserstein(a, b, 1) == pytest.approx(sum(map(abs, gaps)) / 5000, abs=5e-3)
        assert wasserstein(a, b, 2) == pytest.approx(math.sqrt(sum(g * g for g in gaps) / 5000), abs=5e-2)


@pytest.mark.parametrize(
    ("a", "b"), [([], [(0, 1)]), ([(0, 1)], [(2, 2)]), ([(0, 1)], [(-1.7e308, -1.6e308), (1.6e308, 1.7e308)])]
)
def test_a_distance_that_there_is_not_is_infinite(a, b):
    assert wasserstein(a, b, 2) == math.inf


def test_twenty_thousand_spans_take_less_than_a_second():
    spans = [(float(3 * k % 60_000), float(3 * k % 60_000 + 2)) for k in range(20_000)]
    true = [(0.0, 100.0), (500.0, 900.0)]
    began = time.process_time()
    for measure in [set_iou, set_giou, lambda a, b: wasserstein(a, b, 1), lambda a, b: wasserstein(a, b, 2)]:
        assert math.isfinite(measure(spans, true))
    assert time.process_time() - began < 1.0


def test_whole_seconds_rounds_halves_to_the_even_one():
    assert whole_seconds((10.5, 11.5)) == (10.0, 12.0)
    assert whole_seconds((10.2, 10.4)) == (10.0, 10.0)
    assert whole_seconds((0.4, math.inf)) == (0.4, math.inf)


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        ([(0, 3), (2, 4), (22, 25)], [(1, 5), (2, 2), (2, 4)], 3 / 8),
        ([(10, 14), (16, 20)], [(10, 20)], 0.8),
        ([(10, 20), (30, 40)], [(10, 20)], 0.5),
        ([(0, 100)], [(k, k + 0.5) for k in range(100)], 0.5),
        ([(0, 1)], [(1, 2)], 0.0),
        ([], [(1, 2)], 0.0),
    ],
)
def test_merged_iou_divides_common_by_all_seconds_in_either_order(a, b, value):
    assert merged_iou(a, b) == merged_iou(b, a) == pytest.approx(value, rel=1e-12)


def test_sets_without_length_are_worth_what_empty_says():
    for a, b in [([], []), ([(5, 5)], [(7, 7)]), ([(5, 5)], [])]:
        assert (merged_iou(a, b), merged_iou(a, b, empty=1.0)) == (0.0, 1.0)
    assert merged_iou([(5, 5)], [(5, 6)], empty=1.0) == 0.0


def test_merged_iou_is_finite_for_enormous_spans():
    assert merged_iou([(0.0, 1.7e308), (0.0, 5.0)], [(0.0, 1.7e308)]) == 0.0
    assert merged_iou([(0.1, 0.4), (0.5, 1.1)], [(0.1, 0.4), (0.5, 1.1)]) == 1.0
