import math
import random
import time

import pytest

from rlvtg.text.matching import (
    dice,
    global_match,
    local_match,
    normalized_giou,
    paired_giou,
    segment_match,
)
from rlvtg.text.span_set import merged, merged_iou

TWO = [(5.0, 10.0), (30.0, 40.0)]


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        ((10, 20), (10, 20), 1.0),
        ((15, 25), (10, 20), 2 / 3),
        ((25, 30), (10, 20), 0.375),
        ((20, 30), (10, 20), 0.5),
        ((100, 104), (10, 20), 7 / 94),
        ((-5, 20), (10, 20), 0.7),
        ((20, 10), (10, 20), 0.0),
        ((15, 15), (10, 20), 0.0),
        ((10, math.inf), (10, 20), 0.0),
        ((math.nan, 20), (10, 20), 0.0),
        ((-1.7e308, 1.7e308), (10, 20), 0.0),
    ],
)
def test_normalized_giou_is_above_a_half_where_spans_overlap(a, b, value):
    assert normalized_giou(a, b) == pytest.approx(value, rel=1e-12)
    assert normalized_giou(b, a) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("predicted", "as_given", "by_start"),
    [
        ([(5, 10), (30, 40)], 1.0, 1.0),
        ([(30, 40), (5, 10)], 3 / 14, 1.0),
        ([(5, 10)], 0.5, 0.5),
        ([(30, 40)], 3 / 28, 3 / 28),
        ([], 0.0, 0.0),
    ],
)
def test_pairs_are_made_in_order(predicted, as_given, by_start):
    assert paired_giou(predicted, TWO, by_start=False) == pytest.approx(as_given)
    assert paired_giou(predicted, TWO, by_start=True) == pytest.approx(by_start)


def test_a_span_without_a_partner_counts_zero_or_what_the_filler_gives():
    assert paired_giou([(5, 10)], TWO, by_start=True) == 0.5
    assert paired_giou([(5, 10)], TWO, by_start=True, filler=(40, 50)) == 0.75
    assert paired_giou([(5, 10), (0, 1), (0, 1)], [(5, 10)], by_start=False, filler=(0, 1)) == 1.0
    assert paired_giou([], [], by_start=True) == 0.0


@pytest.mark.parametrize(
    ("predicted", "shared_by_half"),
    [
        ([(5, 10), (30, 40)], (1.0, 1.0)),
        ([(5, 8), (8, 10), (30, 40)], (1.0, 1.0)),
        ([(5, 8), (7, 10), (30, 40)], (1.0, 1.0)),
        ([(5, 10), (5, 10)], (0.5, 1 / 3)),
        ([(5, 40)], (0.6, 15 / 35)),
        ([(0, 5)], (0.0, 0.0)),
        ([], (0.0, 0.0)),
    ],
)
def test_the_whole_sets_are_compared_by_dice_or_by_iou(predicted, shared_by_half):
    assert dice(predicted, TWO) == pytest.approx(shared_by_half[0], abs=2e-6)
    assert merged_iou(predicted, TWO) == pytest.approx(shared_by_half[1])


def test_seconds_annotated_twice_count_twice_in_dice_only():
    assert dice([(0, 10)], [(0, 10), (0, 10)]) == pytest.approx(4 / 3, abs=1e-5)
    assert merged_iou([(0, 10)], [(0, 10), (0, 10)]) == 1.0


def test_reversed_and_zero_length_true_spans_add_nothing():
    for measure in [dice, merged_iou]:
        assert measure([(10, 20)], [(20, 10), (10, 20), (15, 15)]) == measure([(10, 20)], [(10, 20)])
        assert measure([(10, 20)], [(20, 10)]) == 0.0


def test_paper_and_code_differ_in_overlap_order_and_sum():
    backwards = TWO[::-1]
    assert segment_match(backwards, TWO, "paper") == 1.0
    assert segment_match(backwards, TWO, "code") == global_match(backwards, TWO, "code") + 3 / 14
    assert segment_match([(5, 40)], TWO, "paper") == pytest.approx((15 / 35 + 2 / 7) / 2)
    assert local_match([], TWO, "paper") == 0.0
    assert 0 < local_match([], TWO, "code") < 1e-7
    with pytest.raises(ValueError, match="got matching 'papers'; there is code, paper; did you mean 'paper'"):
        local_match(TWO, TWO, "papers")


def test_merging_joins_what_touches_and_leaves_the_input_alone():
    spans = [(7, 10), (5, 8), (30, 40), (10, 12), (50, 49), (31, 32)]
    assert merged(spans) == [(5, 12), (30, 40)]
    assert spans[0] == (7, 10)


def test_dice_equals_a_plain_sum_over_all_pairs():
    draw = random.Random(0)

    def some(most):
        starts = [draw.uniform(0, 50) for _ in range(draw.randint(1, most))]
        return [(start, start + draw.uniform(0.1, 10)) for start in starts]

    for _ in range(500):
        predicted, true = some(8), some(4)
        union = merged(predicted)
        shared = sum(max(0, min(b, d) - max(a, c)) for c, d in true for a, b in union)
        p, r = shared / (sum(b - a for a, b in union) + 1e-6), shared / (sum(b - a for a, b in true) + 1e-6)
        assert dice(predicted, true) == pytest.approx(2 * p * r / (p + r + 1e-6), rel=1e-12)


def test_twenty_thousand_spans_and_enormous_ones_are_scored_at_once():
    predicted = [(float(i), i + 0.5) for i in range(20000)]
    began = time.process_time()
    for matching in ["code", "paper"]:
        assert 0 < segment_match(predicted, TWO, matching) < 1
        assert math.isfinite(segment_match([(0.0, 1.7e308), (5.0, 1.6e308)], TWO, matching))
    assert time.process_time() - began < 1.0
