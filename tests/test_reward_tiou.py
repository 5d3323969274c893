import math

import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError
from tests.time_r1_cases import as_columns, as_values, cases

tiou = find("tiou")
ANSWER = "<think>x</think><answer>10 to 20</answer>"


def test_tiou_equals_the_recorded_cases():
    recorded = cases("iou", "iou_batch")
    assert len(recorded) == 28
    for case in recorded:
        assert tiou(**as_columns(case)) == pytest.approx(as_values(case), rel=1e-9), case


def test_tiou_is_zero_where_the_reference_has_no_value():
    recorded = cases("iou", "iou_batch", defect=True)
    assert [tiou(**as_columns(case)) for case in recorded] == [[0.0]]


def test_a_zero_length_annotation_does_not_take_its_neighbours_value():
    answers = [ANSWER, "<answer>5 to 5</answer>", "<answer>10 to 15</answer>"]
    assert tiou(answers, [[[10, 20]], [[5, 5]], [[10, 20]]]) == [1.0, 0.0, 0.5]


def test_several_annotated_spans_score_the_best_of_them():
    assert tiou([ANSWER], [[[0, 5], [10, 15], [12, 13]]]) == [0.5]


@pytest.mark.parametrize("spans", [None, [], [10.0, 20.0], [[10.0]], [[10.0, math.nan]], [["10", "20"]], "10 to 20"])
def test_an_annotation_that_is_no_span_raises_with_its_row(spans):
    with pytest.raises(AnnotationError, match="row 'b'.*span"):
        tiou([ANSWER, "junk"], [[[10, 20]], spans], ["a", "b"])
    with pytest.raises(AnnotationError, match="row 1 of the batch"):
        tiou([ANSWER, "junk"], [[[10, 20]], spans])


def test_an_unknown_grammar_raises():
    with pytest.raises(ValueError, match="no grammar is called 'dash'"):
        tiou([ANSWER], [[[10, 20]]], grammar="dash")
