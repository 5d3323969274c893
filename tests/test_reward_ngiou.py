import pytest

from rewards.ngiou import ngiou

TWO = [[5.0, 10.0], [30.0, 40.0]]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("[[30, 40], [5, 10]]", 1.0),
        ("[[5, 10]]", 0.5),
        ("[[5, 10], [30, 40], [50, 55]]", 2 / 3),
        ("[[5, 10], [25, 35]]", (1 + (1 + 1 / 3) / 2) / 2),
        ("[[10, 15]]", 0.25),
        ("[[5, 10], [10, 10]]", 0.0),
        ("nowhere", 0.0),
    ],
)
def test_spans_are_matched_in_the_order_of_their_starts(answer, value):
    assert ngiou([answer], [TWO], grammar="json_list") == [pytest.approx(value)]


def test_annotated_spans_without_length_are_left_out():
    spans = [[[15.0, 15.0]], [[0.0, 0.0], [10.0, 20.0], [9.0, 8.0]]]
    assert ngiou(["[[10, 20]]"] * 2, spans, grammar="json_list") == [0.0, 1.0]
