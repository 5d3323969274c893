from math import exp, sqrt

import pytest

from rewards.wasserstein import wasserstein

ONE = [[10.0, 20.0]]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("[[10, 20]]", 1.0),
        ("[[10, 14], [14, 20]]", 1.0),
        ("[[15, 25]]", exp(-0.5)),
        ("[[30, 40]]", exp(-2)),
        ("[[100, 110]]", exp(-9)),
        ("[[1000000, 1000010]]", 0.0),
        ("[[10, 10]]", 0.0),
        ("[]", 0.0),
    ],
)
def test_the_nearer_the_more(answer, value):
    assert wasserstein([answer], [ONE], grammar="json_list") == [pytest.approx(value)]


def test_the_knobs_are_the_papers_variants():
    def one(answer, **knobs):
        return wasserstein([answer], [ONE], grammar="json_list", **knobs)[0]

    assert one("[[15, 25]]", beta=3.0) == pytest.approx(exp(-1.5))
    assert one("[[15, 25]]", divisor="both") == pytest.approx(exp(-5 / 15))
    assert one("[[30, 40]]", divisor="both") == pytest.approx(exp(-20 / 20))
    assert one("[[10, 30]]", order=2, divisor="both") == pytest.approx(exp(-sqrt(100 / 3) / 20))


def test_annotated_spans_without_length_count_for_nothing():
    spans = [[[15.0, 15.0]], [[10.0, 20.0], [90.0, 90.0]]]
    assert wasserstein(["[[10, 20]]"] * 2, spans, grammar="json_list") == [0.0, 1.0]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"beta": 0.0}, "got beta=0.0; it must be a finite number > 0"),
        ({"beta": float("nan")}, "got beta=nan"),
        ({"order": 3}, "got order=3; it must be 1 or 2"),
        ({"divisor": "pred"}, "got divisor='pred'; it must be 'true' or 'both'"),
    ],
)
def test_a_knob_that_means_nothing_is_an_error(knobs, message):
    with pytest.raises(ValueError, match=message):
        wasserstein(["[[10, 20]]"], [ONE], **knobs)
