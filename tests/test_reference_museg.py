"""The replacements for what MUSEG's code gets wrong, and that the recorded cases go through our public functions."""

import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError
from tests import reference_museg
from tests.reference_cases import cases, score

CITED = "<think>10.0 20.0</think><answer>10.0-20.0</answer>"


@pytest.mark.parametrize("reward", ["local_matching", "segment_matching"])
def test_an_infinite_end_matches_nothing(reward):
    text = "<think>10.0 inf</think><answer>10.0-inf</answer>"
    assert score("museg", reward, text, {"solution": [[10.0, 20.0]], "task": "tvg"}) == 0.0
    assert score("museg", "format", text, {"solution": [[10.0, 20.0]], "task": "tvg"}) == 1.0


@pytest.mark.parametrize("flat", [[10, 20], [10.0, 20.0]])
@pytest.mark.parametrize("reward", ["global_matching", "local_matching", "segment_matching"])
def test_one_flat_annotation_is_refused_and_is_recorded_as_a_list_of_one(reward, flat):
    with pytest.raises(AnnotationError, match="row 'v1'"):
        find(reward)([CITED], [flat], ["v1"])
    as_list = find(reward)([CITED], [[flat]])[0]
    assert score("museg", reward, CITED, {"solution": flat, "task": "tvg"}) == as_list > 0.99


def test_every_defect_has_its_replacement():
    rows = cases("museg", "defect")
    values = [score("museg", row["reward"], row["completion"], row["kwargs"]) for row in rows]
    inf = ["inf" in row["completion"] for row in rows]
    assert values == pytest.approx(
        [
            0.0 if i else {"l": 1.0, "s": 1.9999994, "g": 0.9999994}[row["reward"][0]]
            for i, row in zip(inf, rows, strict=True)
        ]
    )


def test_an_empty_answer_is_no_spans_and_not_a_broken_answer():
    kwargs = {"solution": [[10.0, 20.0]], "task": "tvg"}
    for answer in ["", "   "]:
        text = f"<think>x</think><answer>{answer}</answer>"
        assert score("museg", "local_matching", text, kwargs) == pytest.approx(5.5e-9, rel=1e-6)
    assert score("museg", "local_matching", "<answer>none</answer>", kwargs) == 0.0


def test_recorded_rewards_are_scored_by_the_rewards_of_their_rows(monkeypatch):
    called = []

    def recording(name):
        called.append(name)
        return find(name)

    monkeypatch.setattr(reference_museg, "find", recording)
    rows = [row for row in cases("museg", "", "defect") if row["reward"] in reference_museg.REWARDS]
    for row in rows:
        reference_museg.score(row["reward"], row["completion"], row["kwargs"])
    assert called == [reference_museg.REWARDS[row["reward"]][0] for row in rows]
    assert set(called) == {"museg_format", "global_matching", "local_matching", "segment_matching"}


@pytest.mark.parametrize(
    ("reward", "completion", "tgt", "value"),
    [
        ("et_bench.evs_eval", "5-10 and 30-40", [[5, 10], [30, 40]], {"Total": 1, "Failed": 0, "F1": 1.0}),
        ("et_bench.evs_eval", "none", [[5, 10], [30, 40]], {"Total": 1, "Failed": 1, "F1": 0}),
        ("et_bench.vhd_eval", "at 7.5 s", [[5, 10], [30, 40]], {"Total": 1, "Failed": 0, "F1": 1.0}),
        ("et_bench.vhd_eval", "at 7.5 s", [[[1, 2]], [[5, 10]]], {"Total": 1, "Failed": 0, "F1": 1.0}),
        ("et_bench.vhd_eval", "at -7.5 s", [[5, 10], [30, 40]], {"Total": 1, "Failed": 0, "F1": 0.0}),
        ("et_bench.vhd_eval", "now", [[5, 10], [30, 40]], {"Total": 1, "Failed": 1, "F1": 0.0}),
    ],
)
def test_metrics_of_e_t_bench_that_no_row_here_has(reward, completion, tgt, value):
    assert score("museg", reward, completion, {"tgt": tgt}) == value


@pytest.mark.parametrize("reward", ["et_bench.dvc_eval", "et_bench.dvc_format", "iou"])
def test_a_reward_that_we_do_not_have_is_named(reward):
    with pytest.raises(ValueError, match=f"got reward '{reward}' of museg, want one of format, .*et_bench.vhd_eval"):
        score("museg", reward, "", {"tgt": [[1, 2]]})
