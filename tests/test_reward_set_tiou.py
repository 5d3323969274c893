import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError

set_tiou = find("set_tiou")
TRUE = [[5.0, 10.0], [20.0, 30.0]]


def glue(content):
    return f"<think>t</think><answer>A</answer><glue>{content}</glue>"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("[(5.0, 10.0), (20.0, 30.0)]", 1.0),
        ("[(20.0, 30.0), (5.0, 10.0)]", 1.0),
        ("[(5.0, 8.0), (7.0, 10.0), (20.0, 30.0)]", 1.0),
        ("[(5.0, 30.0)]", 0.6),
        ("[(5.2, 10.4)]", 0.3116883116883117),
        ("[(50, 60)]", 0.0),
        ("[(7, 7)]", 0.0),
        ("[]", 0.0),
        ("[[5.0, 10.0]]", 0.0),
        ("[(5.0, 10.0), (30.0, 20.0)]", 0.0),
    ],
)
def test_set_tiou_compares_seconds_covered(content, value):
    assert set_tiou([glue(content)], [TRUE]) == pytest.approx([value], rel=1e-12)


def test_annotated_spans_are_merged_too():
    assert set_tiou([glue("[(0, 10)]")], [[[0, 6], [4, 10], [10, 10]]]) == [1.0]


def test_a_row_without_spans_is_an_error_unless_empty_says_what_it_is_worth():
    answers = [glue("[]"), glue("[(1, 2)]"), glue("none"), "junk"]
    with pytest.raises(AnnotationError, match="row 'b'"):
        set_tiou(answers[:2], [TRUE, []], ["a", "b"])
    assert set_tiou(answers, [[]] * 4, empty=1.0) == [1.0, 0.0, 0.0, 0.0]
    with pytest.raises(AnnotationError, match="row 'a'"):
        set_tiou(answers[:1], [None], ["a"], empty=1.0)


def test_sets_without_length_are_worth_what_empty_says():
    assert set_tiou([glue("[(5, 5)]")] * 2, [[[7, 7]], [[9, 8]]]) == [0.0, 0.0]
    assert set_tiou([glue("[(5, 5)]"), glue("x")], [[[7, 7]]] * 2, empty=1.0) == [1.0, 0.0]


def test_another_grammar_can_be_read():
    assert set_tiou(["<answer>5 to 10</answer>"], [TRUE], grammar="to") == pytest.approx([1 / 3])
