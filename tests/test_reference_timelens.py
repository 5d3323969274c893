"""Where TimeLens's own code fails, and that its other recorded cases are scored by the library."""

from importlib import import_module

import pytest

from tests.reference_cases import cases, score


@pytest.mark.parametrize(
    ("reward", "value"),
    [("eval.iou", 0.0), ("compute_metrics", {"IOU 0.3": 0.0, "IOU 0.5": 0.0, "IOU 0.7": 0.0, "mIOU": 0.0})],
)
def test_where_the_reference_raises_the_row_counts_as_a_failure(reward, value):
    (row,) = [row for row in cases("timelens", "defect") if row["reward"] == reward]
    assert score("timelens", reward, row["completion"], row["kwargs"]) == value


def test_a_failed_row_stays_in_the_mean_of_the_others():
    data = {"a>>>q>>>[10, 20]": {"timestamps": [[10, 20]]}, "b>>>q>>>[10, 20]": {"pred": [[10, 20]]}}
    got = score("timelens", "compute_metrics", None, {"data": data})
    assert got == {"IOU 0.3": 50.0, "IOU 0.5": 50.0, "IOU 0.7": 50.0, "mIOU": 50.0}


@pytest.mark.parametrize("reward", ["tiou", "format"])
def test_core_rows_go_through_our_rewards(reward, monkeypatch):
    name = {"tiou": "tiou", "format": "think_format"}[reward]
    module = import_module("reference_timelens")
    monkeypatch.setattr(module, name, lambda *columns, **knobs: [7.0])
    rows = [row for row in cases("timelens", "") if row["reward"] == reward]
    assert rows and all(score("timelens", reward, row["completion"], row["kwargs"]) == 7.0 for row in rows)


def test_the_default_ranges_and_sizes_are_those_of_the_reference():
    args = score("timelens", "hybrid._build_default_filter_args", None, {"target_size": 2500})
    assert args["filter_target_size"] == [277] * 9
    assert args["filter_range"][0] == (0, 30) and args["filter_range"][-1] == (240, float("inf"))


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match="got the reward 'tiuo'; timelens has tiou, format"):
        score("timelens", "tiuo", "", {})
