import pytest

from tests.reference_cases import cases
from tests.reference_invert4tvg import score

VIDEO = {"durations": 30.0, "video_kwargs": [{"fps": [2.0]}]}


def test_an_answer_equal_to_a_zero_length_annotation_scores_nothing():
    assert score("iou", "<answer>5 to 5</answer>", {"solution": [5.0, 5.0], **VIDEO}) == 0.0


def test_the_iou_needs_no_video_kwargs():
    assert score("iou", "<answer>20 to 30</answer>", {"solution": [24.3, 30.4]}) == pytest.approx(5.7 / 10.4)


@pytest.mark.parametrize(
    ("total", "start", "end", "frames"),
    [(60, 29.9, 30.0, [58, 60]), (60, 30.0, 30.0, [58, 60]), (1, 0.0, 10.0, [0, 1])],
)
def test_a_range_without_frames_becomes_a_patch_inside_the_video(total, start, end, frames):
    kwargs = {"total_frames": total, "fps": 2.0, "start_sec": start, "end_sec": end}
    assert score("calculate_frame_range", None, kwargs) == frames


def test_words_that_the_recorded_table_lacks_are_scored_all_the_same():
    rows = cases("invert4tvg", "defect")
    assert {row["reward"] for row in rows} == {"act", "act_strict"}
    assert {score(row["reward"], row["completion"], row["kwargs"]) for row in rows} <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("reward", "completion", "kwargs", "value"),
    [
        ("format2", "<answer>a</answer><answer>b</answer>", {}, 1.0),
        ("format2", "<answer></answer>", {}, 1.0),
        ("fallback_extract_verbs", "He Opens", {}, ["Ope"]),
        ("fallback_extract_verbs_from_diff", "person closes it", {"miss": "person it"}, ["clos"]),
        ("fallback_get_verb_variants", "close", {}, ["close"]),
        ("fallback_v1", "closes it", {"truth": "person closes it"}, 1.0),
        ("fallback_v1_strict", "closes and opens it", {"truth": "person closes it", "miss": "person it"}, 0.0),
        ("fallback_v2", "closes and opens it", {"truth": "person closes it", "miss": "person it"}, 1.0),
        ("fallback_v2", "a door", {"truth": "a door", "miss": "a door"}, 1.0),
        ("eval_parse", "1 to 2 <answer>3 and 4</answer>", {}, [3.0, 4.0]),
        ("eval_parse", "from 5 to 6, not <answer></answer>", {}, [5.0, 6.0]),
        ("eval_parse", f"{'9' * 400} to 5", {}, [None, None]),
    ],
)
def test_names_and_inputs_that_are_not_recorded_here(reward, completion, kwargs, value):
    assert score(reward, completion, kwargs) == value


@pytest.mark.parametrize("reward", ["acts", "fallback_v3"])
def test_an_unknown_reward_is_named(reward):
    with pytest.raises(ValueError, match=reward):
        score(reward, "", {})
