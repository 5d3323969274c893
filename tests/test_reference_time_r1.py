"""What we give where Time-R1's own code fails, and that the recorded functions are mapped to ours."""

import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError
from tests.reference_cases import cases, score

REPLACED = {"iou": 0.0, "iou_v2": 0.0, "eval_iou": 0.0, "difficulty_score": 0.0}


def test_defects_get_the_documented_values():
    rows = cases("time_r1", "defect")
    assert {row["reward"] for row in rows} == set(REPLACED)
    for row in rows:
        assert score("time_r1", row["reward"], row["completion"], row["kwargs"]) == REPLACED[row["reward"]], row


@pytest.mark.parametrize("duration", [0.0, None])
def test_a_video_without_a_length_is_worth_nothing_and_stops_a_run(duration):
    answer, spans = "<answer>10 to 20</answer>", [10.0, 20.0]
    assert score("time_r1", "iou_v2", answer, {"solution": spans, "durations": duration}) == 0.0
    with pytest.raises(AnnotationError, match="row 'v7'"):
        find("timestamp_tiou")([answer], [[spans]], [duration], ["v7"])


def test_a_broken_row_of_a_batch_leaves_the_others_alone():
    answers = ["<answer>10 to 20</answer>", "<answer>5 to 5</answer>", "<answer>10 to 15</answer>"]
    solution = [[10.0, 20.0], [5.0, 5.0], [10.0, 20.0]]
    assert score("time_r1", "iou_batch", answers, {"solution": solution}) == [1.0, 0.0, 0.5]
    durations = {"solution": solution, "durations": [30.0, 30.0, 0.0]}
    assert score("time_r1", "iou_v2_batch", answers, durations) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("reward", "completion", "kwargs", "value"),
    [
        ("mqa_answer", "<answer>B</answer>", {"solution": "B", "task_type": "mqa"}, 1.0),
        ("mqa_answer", "<answer>B</answer>", {"solution": "B", "task_type": "tg"}, None),
        ("metric_reward_timestep_pair", "<think><timestep>1 to 2</timestep></think>", {}, 0.2),
        ("metric_reward_keyword_usage", "<think>wait, however</think>", {}, 0.2),
        ("eval_extract_answer_mcq", "no", {}, None),
        ("timezero_eval_parse", "10 TO 20", {}, [None, None]),
        ("filter_extract_answer_force", "7", {}, [None, None]),
        ("eval_iou", None, {"pred": [None, None], "target": [1.0, 2.0]}, 0.0),
        ("difficulty_score", None, {"pred": [0.0, 5.0], "target": [0.0, 10.0]}, 50.0),
        ("data_filter_0070_keep", None, {"difficulty": 70.0}, True),
    ],
)
def test_functions_that_are_rarely_recorded_are_mapped_too(reward, completion, kwargs, value):
    assert score("time_r1", reward, completion, kwargs) == value


def test_an_unknown_function_is_named():
    with pytest.raises(ValueError, match="no recorded function 'iou_v3'"):
        score("time_r1", "iou_v3", "", {})
