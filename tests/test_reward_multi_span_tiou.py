import pytest

from rewards.multi_span_tiou import multi_span_tiou

TWO = [[5.0, 10.0], [30.0, 40.0]]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("[[5, 10], [30, 40]]", 1.0),
        ("[[30, 40], [5, 10]]", 1.0),
        ("[[5, 8], [7, 10], [30, 40]]", 1.0),
        ("[[5, 10]]", 1 / 3),
        ("[[5, 40]]", 15 / 35),
        ("[[5, 10], [30, 40], [50, 55]]", 0.75),
        ("[[5, 10], [10, 10]]", 0.0),
        ("[[50, 55]]", 0.0),
        ("5 - 10", 0.0),
    ],
)
def test_all_spans_count_together(answer, value):
    assert multi_span_tiou([answer], [TWO], grammar="json_list") == [pytest.approx(value)]


def test_annotated_spans_that_overlap_count_twice():
    assert multi_span_tiou(["[[0, 10]]"], [[[0, 20], [0, 20]]], grammar="json_list") == [pytest.approx(20 / 30)]


def test_annotated_spans_without_length_count_for_nothing():
    spans = [[[10.0, 10.0]], [[20.0, 10.0]], [[10.0, 20.0], [30.0, 30.0], [50.0, 40.0]]]
    assert multi_span_tiou(["[[10, 20]]"] * 3, spans, grammar="json_list") == [0.0, 0.0, 1.0]
