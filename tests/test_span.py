import math

import pytest

from rlvtg.text.span import iou, snapped, timestamp_iou


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        ((10, 20), (10, 20), 1.0),
        ((12.54, 17.83), (10, 20), 0.529),
        ((0, 30), (10, 20), 1 / 3),
        ((10, 15), (10, 20), 0.5),
        ((21, 25), (10, 20), 0.0),
        ((20, 30), (10, 20), 0.0),
        ((20, 10), (10, 20), 0.0),
        ((15, 15), (10, 20), 0.0),
        ((5, 5), (5, 5), 0.0),
        ((20, 10), (20, 10), 0.0),
    ],
)
def test_iou_is_overlap_over_hull_in_either_order(a, b, value):
    assert iou(a, b) == pytest.approx(value, rel=1e-12)
    assert iou(b, a) == iou(a, b)


def test_no_overlap_is_plus_zero():
    assert math.copysign(1, iou((20, 10), (30, 25))) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bound_that_is_no_time_overlaps_nothing(bad):
    for span in [(0.0, bad), (bad, 5.0), (bad, bad)]:
        assert iou(span, (0.0, 5.0)) == 0.0
        assert iou((0.0, 5.0), span) == 0.0


@pytest.mark.parametrize(
    ("predicted", "true", "duration", "value"),
    [
        ((10, 20), (10, 20), 30, 1.0),
        ((12.54, 17.83), (10, 20), 30, 0.449186713555556),
        ((0, 30), (10, 20), 30, 4 / 27),
        ((10, 15), (10, 20), 30, 5 / 12),
        ((0, 1000), (0, 10), 10, -0.98),
        ((5, 60), (5, 15), 20, -0.22727272727272727),
        ((20, 10), (10, 20), 30, 0.0),
        ((10, 20), (10, 20), 0, 0.0),
        ((10, 20), (10, 20), -1, 0.0),
        ((10, 20), (10, 20), math.nan, 0.0),
    ],
)
def test_timestamp_iou_weighs_both_ends(predicted, true, duration, value):
    assert timestamp_iou(predicted, true, duration) == pytest.approx(value, rel=1e-12)


def test_clamped_factors_stay_between_zero_and_one():
    assert timestamp_iou((0, 1000), (0, 10), 10, clamp=True) == 0.0
    assert timestamp_iou((10, 15), (10, 20), 30, clamp=True) == timestamp_iou((10, 15), (10, 20), 30)


def test_two_negative_factors_do_not_make_a_positive_reward_when_clamped():
    assert timestamp_iou((0, 100), (40, 60), 10) == pytest.approx(0.2 * -3 * -3)
    assert timestamp_iou((0, 100), (40, 60), 10, clamp=True) == 0.0


def test_timestamp_iou_is_finite_for_enormous_predictions():
    assert math.isfinite(timestamp_iou((0.0, 1e308), (0.0, 10.0), 0.5))


@pytest.mark.parametrize(
    ("span", "wider"),
    [
        ((1.2, 2.9), (1.0, 3.0)),
        ((1.0, 3.0), (1.0, 3.0)),
        ((0.2, 0.4), (0.2, 1.0)),  # nothing before the first stamp
        ((2.5, 3.7), (2.0, 3.7)),  # nothing after the last one
    ],
)
def test_a_snapped_span_is_widened_to_the_stamps_around_it(span, wider):
    assert snapped(span, [1.0, 2.0, 3.0]) == wider


def test_equal_points_are_worth_what_point_says():
    assert iou((5, 5), (5, 5), point=1.0) == 1.0
    assert [iou(a, b, point=1.0) for a, b in [((5, 5), (6, 6)), ((5, 5), (5, 6)), ((6, 5), (6, 5))]] == [0.0] * 3
    assert iou((10, 20), (15, 25), point=1.0) == 1 / 3
