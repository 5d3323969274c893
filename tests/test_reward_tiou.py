import math

import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError

tiou = find("tiou")
ANSWER = "<think>x</think><answer>10 to 20</answer>"


@pytest.mark.parametrize(
    ("answer", "value"),
    [("10 to 20", 1.0), ("12.54 to 17.83", 0.529), ("0 to 30", 1 / 3), ("15 to 15", 0.0), ("10-20", 0.0), ("", 0.0)],
)
def test_tiou_is_overlap_over_hull(answer, value):
    assert tiou([f"<answer>{answer}</answer>"], [[[10, 20]]]) == pytest.approx([value])


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


def test_hull_and_true_union_agree_on_one_span_each():
    answers = [f"<answer>{start} to {end}</answer>" for start in range(0, 40, 5) for end in range(0, 40, 5)]
    spans = [[[10, 20]]] * len(answers)
    assert tiou(answers, spans, union="true") == pytest.approx(tiou(answers, spans))


def test_true_union_counts_every_span():
    both = ["<answer>[(10, 14), (16, 20)]</answer>", "<answer>[(10, 20), (30, 40)]</answer>"]
    assert tiou(both, [[[10, 20]]] * 2, grammar="tuples_few") == [0.4, 1.0]
    assert tiou(both, [[[10, 20]]] * 2, grammar="tuples_few", union="true") == [0.8, 0.5]
    assert tiou(both, [[[10, 20], [15, 30]]] * 2, grammar="tuples_few", union="true") == pytest.approx([8 / 20, 1 / 3])


@pytest.mark.parametrize("union", ["hull", "true"])
def test_equal_points_score_what_point_says(union):
    answers = ["<answer>5 to 5</answer>", "<answer>5 to 6</answer>", "<answer>none</answer>", "<answer>6 to 5</answer>"]
    assert tiou(answers, [[[5, 5]]] * 4, union=union) == [0.0, 0.0, 0.0, 0.0]
    assert tiou(answers[:3], [[[5, 5]]] * 3, union=union, point=1.0) == [1.0, 0.0, 0.0]


def test_an_unknown_union_raises():
    with pytest.raises(ValueError, match="got union='hul'; it must be 'hull' or 'true'"):
        tiou([ANSWER], [[[10, 20]]], union="hul")
