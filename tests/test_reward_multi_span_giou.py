import pytest

from rewards.multi_span_giou import multi_span_giou


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("[[10, 20]]", 1.0),
        ("[[15, 25]]", 1 / 3),
        ("[[20, 30]]", 0.0),
        ("[[30, 40]]", -1 / 3),
        ("[[10, 14], [16, 20]]", 0.8),
        ("[[0, 10], [20, 30]]", 0.0),
        ("[[10, 10]]", 0.0),
        ("", 0.0),
    ],
)
def test_the_empty_part_of_the_hull_is_taken_off(answer, value):
    assert multi_span_giou([answer], [[[10.0, 20.0]]], grammar="json_list") == [pytest.approx(value)]


def test_annotated_spans_without_length_count_for_nothing():
    spans = [[[15.0, 15.0]], [[10.0, 20.0], [90.0, 90.0]]]
    assert multi_span_giou(["[[10, 20]]"] * 2, spans, grammar="json_list") == [0.0, pytest.approx(1.0)]
