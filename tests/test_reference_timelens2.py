"""Where TimeLens2's own code fails, and that its other recorded cases are scored by the library."""

import math
from importlib import import_module

import pytest

from tests.reference_cases import cases, score

ONE = {"span": [[10.0, 20.0]]}


def test_a_number_that_is_none_makes_no_span():
    (row,) = [row for row in cases("timelens2", "defect") if row["reward"] == "extract_time"]
    assert score("timelens2", "extract_time", row["completion"], row["kwargs"]) == []
    assert score("timelens2", "twass1,tiou,parse_penalty", "[[10, NaN]]", ONE) == -1.0


def test_weights_leave_the_penalty_out_where_the_reference_raises():
    (row,) = [row for row in cases("timelens2", "defect") if row["reward"] == "build_sample_weights"]
    weights = score("timelens2", "build_sample_weights", None, row["kwargs"])
    assert all(map(math.isfinite, weights)) and sum(weights) == pytest.approx(1.0)
    without = {**row["kwargs"], "default_spec": "twass1,tiou"}
    assert weights == score("timelens2", "build_sample_weights", None, without)
    # Only the third of the five rows has rollouts that differ, so it has nearly all the weight.
    assert weights[2] > 0.999


def test_released_weights_are_the_squared_failure_rate():
    far, near = [[[30, 40]]] * 8, [[[10, 20]]] * 4 + [[[30, 40]]] * 4
    annos = [{**ONE, "rollout_intervals": rollouts} for rollouts in (far, near)]
    kwargs = {"annos": annos, "default_spec": "twass1,tiou,parse_penalty", "std_power": 0.0, "mean_power": 2.0}
    assert score("timelens2", "build_sample_weights", None, {**kwargs, "mean_spec": "tiou"}) == pytest.approx(
        [0.8, 0.2]
    )


def test_any_list_of_terms_is_a_sum():
    text = "<thinking>x</thinking><answer>[[15, 25]]</answer>"
    one = {
        name: score("timelens2", name, text, ONE)
        for name in ("tiou", "tgiou", "ngiou", "twass2.5", "r2twass1", "format")
    }
    assert score("timelens2", "tiou:2, tgiou:-1,ngiou,twass2.5:0.5,r2twass1,format:0.2", text, ONE) == pytest.approx(
        2 * one["tiou"] - one["tgiou"] + one["ngiou"] + one["twass2.5"] / 2 + one["r2twass1"] + 0.2 * one["format"]
    )
    assert (
        score("timelens2", "twass", text, ONE)
        == score("timelens2", "twass3", text, ONE)
        == pytest.approx(math.exp(-1.5))
    )


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("tiou", "multi_span_tiou"),
        ("tgiou", "multi_span_giou"),
        ("ngiou", "ngiou"),
        ("twass1", "wasserstein"),
        ("r2twass1", "wasserstein"),
        ("format", "thinking_format"),
        ("parse_penalty", "parse_penalty"),
    ],
)
def test_every_term_is_one_of_our_rewards(spec, name):
    terms = import_module("reference_timelens2").terms
    ((weight, function, _),) = terms(spec)
    assert weight == 1.0
    assert (function.__module__, function.__name__) == (f"rewards.{name}", name)


@pytest.mark.parametrize("spec", ["tdirac1", "tiou1", "", "tiou,nope:2"])
def test_an_unknown_name_is_named(spec):
    with pytest.raises(ValueError, match="got the reward '.*'; timelens2 has tiou, tgiou"):
        score("timelens2", spec, "", ONE)
