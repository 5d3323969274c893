import math

import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError
from tests.time_r1_cases import as_columns, as_values, cases

timestamp_tiou = find("timestamp_tiou")
think_format = find("think_format")
ANSWER = "<think>x</think><answer>10 to 20</answer>"


def test_timestamp_tiou_equals_the_recorded_cases():
    recorded = cases("iou_v2", "iou_v2_batch")
    assert len(recorded) == 29
    for case in recorded:
        assert timestamp_tiou(**as_columns(case)) == pytest.approx(as_values(case), rel=1e-9), case


def test_with_think_format_it_equals_the_recorded_totals():
    recorded = cases("total_iou_v2_plus_format")
    assert len(recorded) == 5
    for case in recorded:
        columns = as_columns(case)
        total = timestamp_tiou(**columns)[0] + think_format(**columns)[0]
        assert total == pytest.approx(case["value"], rel=1e-9), case


def test_a_video_without_a_length_stops_the_run_where_the_reference_fails_unnamed():
    recorded = cases("iou_v2", "iou_v2_batch", defect=True)
    assert [case["kwargs"]["durations"] for case in recorded] == [0.0]
    with pytest.raises(AnnotationError, match="row 'v7': duration must be a positive number of seconds, got 0.0"):
        timestamp_tiou(**as_columns(recorded[0]), id=["v7"])


@pytest.mark.parametrize("duration", [None, 0, -3.0, math.nan, math.inf, "30"])
def test_a_duration_that_is_none_raises_with_its_row(duration):
    with pytest.raises(AnnotationError, match="row 1 of the batch: duration"):
        timestamp_tiou([ANSWER, "junk"], [[[10, 20]]] * 2, [30.0, duration])


@pytest.mark.parametrize("spans", [None, [], [[10.0, math.inf]]])
def test_an_annotation_that_is_no_span_raises_with_its_row(spans):
    with pytest.raises(AnnotationError, match="row 'b'.*span"):
        timestamp_tiou([ANSWER, "junk"], [[[10, 20]], spans], [30.0, 30.0], ["a", "b"])


def test_a_zero_length_annotation_does_not_take_its_neighbours_value():
    assert timestamp_tiou([ANSWER, "<answer>5 to 5</answer>"], [[[10, 20]], [[5, 5]]], [30.0, 30.0]) == [1.0, 0.0]


def test_clamp_removes_negative_rewards():
    far = "<answer>0 to 1000</answer>"
    assert timestamp_tiou([far], [[[0, 10]]], [10.0]) == pytest.approx([-0.98])
    assert timestamp_tiou([far], [[[0, 10]]], [10.0], clamp=True) == [0.0]


def test_several_annotated_spans_score_the_best_of_them():
    assert timestamp_tiou([ANSWER], [[[0, 5], [10, 15], [10, 20]]], [30.0]) == [1.0]
