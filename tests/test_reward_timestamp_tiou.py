import math

import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError

timestamp_tiou = find("timestamp_tiou")
ANSWER = "<think>x</think><answer>10 to 20</answer>"


@pytest.mark.parametrize(
    ("answer", "value"),
    [("10 to 20", 1.0), ("0 to 30", 4 / 27), ("10 to 15", 5 / 12), ("12.54 to 17.83", 0.449187), ("10 - 20", 0.0)],
)
def test_timestamp_tiou_weighs_overlap_by_both_ends(answer, value):
    assert timestamp_tiou([f"<answer>{answer}</answer>"], [[[10, 20]]], [30.0]) == pytest.approx([value], rel=1e-5)


def test_a_video_without_a_length_stops_the_run_by_name():
    with pytest.raises(AnnotationError, match="row 'v7': duration must be a positive number of seconds, got 0.0"):
        timestamp_tiou([ANSWER], [[[10, 20]]], [0.0], ["v7"])


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
