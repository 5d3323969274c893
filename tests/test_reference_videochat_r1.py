"""What we give where VideoChat-R1's own code fails, and that the recorded functions are mapped to ours."""

import json

import pytest

from rlvtg.reward import find
from tests.reference_cases import cases, score

GLUE = "<glue>[(5.0, 10.0), (20.0, 30.0)]</glue>"
EIGHT = [[0, 0, k + 1, 1] for k in range(8)]


def test_defects_get_the_documented_values():
    rows = cases("videochat_r1", "defect")
    assert {row["reward"] for row in rows} == {"grpo_tasks.tg_iou"}
    for row in rows:
        assert score("videochat_r1", row["reward"], row["completion"], row["kwargs"]) == 1.0


def test_equal_points_score_nothing_by_default():
    assert find("tiou")(["<answer>10 to 10</answer>"], [[[10.0, 10.0]]]) == [0.0]


def test_retyped_functions_are_equal_too():
    rows = cases("videochat_r1", "reconstruction")
    assert len(rows) == 28
    for row in rows:
        got = score("videochat_r1", row["reward"], row["completion"], row["kwargs"])
        assert got == pytest.approx(row["value"], rel=1e-9), row


@pytest.mark.parametrize(
    ("reward", "completion", "kwargs", "value"),
    [
        ("grpo_tg.iou", "<answer>20 to 10</answer>", {"solution": [10.0, 20.0]}, 0.0),
        ("grpo_tg.iou", "<answer>5 to 5</answer>", {"solution": [5.0, 5.0]}, 1.0),
        ("grpo_tasks.tg_format", "<think>a</think><answer>b</answer>", {}, 1.0),
        ("grpo_tasks.gqa_iou", "<glue>x</glue>", {"solution": {"answer": "A", "glue": []}}, 0.0),
        ("grpo_tasks.tracking_iou", f"<answer>{EIGHT}</answer>", {"solution": {"answer": EIGHT}}, 1.0),
        ("grpo_tasks.tracking_iou", f"<answer>{EIGHT[:7]}</answer>", {"solution": {"answer": EIGHT}}, 0.0),
        ("grpo_tasks.tracking_format", f"<think>t</think><answer>{EIGHT}</answer>", {}, 1.0),
        ("r1.5.tracking_iou", f"<answer>{EIGHT}</answer>", {"solution": {"answer": EIGHT}}, 1.0),
        ("r1.5.tracking_format", f"<answer>{EIGHT}</answer>", {}, 1.0),
        ("r1.5.gqa_format", f"<answer>A</answer>{GLUE}", {}, 1.0),
        ("r1.5.gqa_format", f"<think>t</think><answer>A</answer>{GLUE}", {}, 0.0),
        ("r1.5.detection_iou", "[0, 0, 10, 5]", {"glue": [0, 0, 10, 10]}, 0.5),
        ("r1.5.igqa_format", "<answer>A</answer><glue>[1, 2, 3, 4]</glue>", {}, 1.0),
        (
            "r1.5.igqa_iou(detection_glue,x0.2)",
            "<answer>A</answer><glue>[0, 0, 10, 5]</glue>",
            {"glue": [0, 0, 10, 10]},
            0.1,
        ),
    ],
)
def test_functions_that_are_rarely_recorded_are_mapped_too(reward, completion, kwargs, value):
    assert score("videochat_r1", reward, json.loads(json.dumps(completion)), kwargs) == value


@pytest.mark.parametrize("reward", ["iou", "grpo_tg.gqa_iou", "r1.5.pad", "src_eval.iou"])
def test_an_unknown_function_is_named(reward):
    with pytest.raises(ValueError, match="no recorded function"):
        score("videochat_r1", reward, "", {})
