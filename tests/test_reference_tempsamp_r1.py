"""The recorded TempSamp-R1 rows are scored by our public functions, and its quirks are kept where they are its own."""

import pytest

from tests.reference_cases import cases, score

# The reference functions of the format, recorded in our half or not.
NAMES = {
    "compute_score",
    "compute_score_shaped",
    "format_loose",
    "format_strict",
    "transform_rewards",
    "build_gt_response",
    "paper_advantage_anchoring",
    "grpo_advantage",
    "gt_reward_control",
    "eval_extract_and_iou",
}
SHAPED = {"GTPO_REWARD_SHAPING": "1"}
CONSTANT = "def {name}(completions, *, tau=0, a2=0, strict=0, **_):\n    return [{value}] * len(completions)\n"


def total(completion, ground_truth, env):
    return score("tempsamp_r1", "compute_score", completion, {"ground_truth": ground_truth, "env": env})


def test_every_reference_function_is_recorded_and_none_is_a_defect():
    assert {row["reward"] for row in cases("tempsamp_r1", "")} == NAMES
    assert cases("tempsamp_r1", "defect", "reconstruction") == []


def test_an_unknown_reference_function_is_named():
    with pytest.raises(ValueError, match="no recorded reward called 'compute_scores'"):
        score("tempsamp_r1", "compute_scores", "", {})


def test_scores_come_from_the_files_of_the_rewards_folder(tmp_path, monkeypatch):
    values = {"tiou": 0.5, "shaped_tiou": 0.25, "span_format": 0.125}
    (tmp_path / "rewards").mkdir()
    for name, value in values.items():
        (tmp_path / "rewards" / f"{name}.py").write_text(CONSTANT.format(name=name, value=value))
    monkeypatch.chdir(tmp_path)
    assert total("", "7 to 11", {}) == {"overall": 0.5125, "iou": 0.5, "iou_raw": 0.5, "format": 0.125}
    assert total("", "7 to 11", SHAPED) == {"overall": 0.2625, "iou": 0.25, "iou_raw": 0.5, "format": 0.125}
    assert score("tempsamp_r1", "format_strict", "", {"env": {}}) == 0.125


@pytest.mark.parametrize("ground_truth", ["[[7, 11], [20, 30]]", "(1,2),(3,4)", "7 to 11 and 20 to 30"])
def test_two_annotated_spans_are_a_box_there_and_score_nothing(ground_truth):
    answer = "<answer> 7.00 to 11.00 </answer>"
    assert total(answer, ground_truth, {}) == {"overall": 0.0, "iou": 0.0, "iou_raw": 0.0, "format": 0.0}
    floor = 0.08676372630237683
    assert total(answer, ground_truth, SHAPED) == pytest.approx(
        {"overall": floor, "iou": floor, "iou_raw": 0.0, "format": 0.0}, rel=1e-12
    )


@pytest.mark.parametrize("env", [{}, SHAPED])
@pytest.mark.parametrize("ground_truth", ["", "7", "none"])
def test_an_annotation_that_cannot_be_read_scores_zero_shaped_or_not(ground_truth, env):
    nothing = {"overall": 0.0, "iou": 0.0, "iou_raw": 0.0, "format": 0.0}
    assert total("<answer>7 to 11</answer>", ground_truth, env) == nothing
    assert score("tempsamp_r1", "build_gt_response", None, {"ground_truth": ground_truth}) is None


def test_an_answer_that_cannot_be_read_is_a_span_behind_the_video_in_the_evaluation():
    kwargs = {"gt_span": [7.0, 11.0], "duration": 50.0}
    got = score("tempsamp_r1", "eval_extract_and_iou", "none", kwargs)
    assert got == {"spans": [], "pred": [60.0, 70.0], "iou": 0.0}
    assert score("tempsamp_r1", "eval_extract_and_iou", "7.49 to 11.51", kwargs)["iou"] == 0.8
