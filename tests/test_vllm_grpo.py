"""GRPO on video whose completions a real vLLM engine samples, in the trainer's process."""

import pytest

from rlvtg.recipe import Expert, Lora, RecipeError
from rlvtg.rollout.engine import Engine
from rlvtg.training.engine_rollout import EngineRollout
from tests.test_grpo import G, a_trainer, changed, saved, weights  # noqa: F401 (a fixture)

DIFFERENCE = "sampling/sampling_logp_difference/"


def a_vllm_trainer(saved, tmp_path, monkeypatch, **changes):  # noqa: F811
    own = {"use_vllm": True, "vllm_gpu_memory_utilization": 0.1, "vllm_max_model_length": 512}
    return a_trainer(saved, tmp_path, monkeypatch, **own | {"engine": {"max_num_seqs": 16}} | changes)


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("changes", "learns"),
    [
        ({}, "visual.blocks"),
        ({"lora": Lora(r=4, lora_alpha=64), "beta": 0.1, "gradient_checkpointing": True}, "lora_B"),
        ({"vllm_importance_sampling_correction": False, "max_steps": 2, "mask_truncated_completions": True}, None),
    ],
    ids=["full", "lora", "uncorrected"],
)
def test_vllm_samples_with_the_policys_log_probabilities_at_every_step(
    saved, tmp_path, monkeypatch, changes, learns  # noqa: F811
):  # fmt: skip
    asked = []
    plain = Engine.generate

    def noted(self, requests, **ways):
        asked.append(([each.name for each in requests], ways["n"]))
        return plain(self, requests, **ways)

    monkeypatch.setattr(Engine, "generate", noted)
    trainer = a_vllm_trainer(saved, tmp_path, monkeypatch, **{"max_steps": 3, "learning_rate": 1e-2} | changes)
    before = weights(trainer)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == trainer.args.max_steps
    for entry in log:
        assert 0 < entry[f"{DIFFERENCE}mean"] <= entry[f"{DIFFERENCE}max"] < 1e-4
        corrected = trainer.vllm_importance_sampling_correction
        assert ("sampling/importance_sampling_ratio/mean" in entry) == corrected
        if corrected:
            assert entry["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-3)
    assert [n for _, n in asked] == [G] * len(log)  # one request for each prompt, which brings its whole group
    assert all(len(names) == len(set(names)) == 2 for names, _ in asked)
    moved = changed(trainer, before)
    assert learns is None or any(learns in name for name in moved)


@pytest.mark.vllm
def test_groups_with_an_expert_and_groups_sampled_again_come_from_vllm_too(
    saved, tmp_path, monkeypatch  # noqa: F811
):  # fmt: skip
    trainer = a_vllm_trainer(
        saved,
        tmp_path,
        monkeypatch,
        expert=Expert(template="<answer>{spans}</answer>"),
        zero_variance="resample",
        steps_per_generation=1,
        gradient_accumulation_steps=2,
        max_completion_length=32,
        max_steps=1,
    )
    ways = []
    plain = trainer.vllm_generation.sample

    def noted(*args, **keywords):
        ways.append(keywords["n"])
        return plain(*args, **keywords)

    monkeypatch.setattr(trainer.vllm_generation, "sample", noted)
    trainer.train()
    assert set(ways) == {G - 1}
    [made] = trainer._buffered_inputs
    sampled = made["sampling_per_token_logps"]
    is_expert = sampled.isnan().any(1)
    assert int(is_expert.sum()) == len(sampled) // G
    assert made["importance_sampling_ratio"][is_expert].unique().tolist() == [1.0]


@pytest.mark.vllm
@pytest.mark.parametrize("corrected", [True, False])
def test_a_run_whose_weights_do_not_reach_vllm_stops_and_says_so(
    saved, tmp_path, monkeypatch, corrected  # noqa: F811
):  # fmt: skip
    trainer = a_vllm_trainer(
        saved, tmp_path, monkeypatch, learning_rate=1e-2, max_steps=3, vllm_importance_sampling_correction=corrected
    )
    plain, loads = Engine.load, []

    def first_alone(self, given):
        loads.append(len(loads))
        if len(loads) == 1:
            plain(self, given)

    monkeypatch.setattr(Engine, "load", first_alone)
    with pytest.raises(RuntimeError, match=r"differ from the policy's by .*, tolerance 0.001 \(vllm_tolerance\)"):
        trainer.train()
    assert trainer.state.global_step == 1
    assert len(loads) == 2


@pytest.mark.vllm
def test_a_prompt_at_other_moments_than_the_policys_stops_the_first_step(saved, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("rlvtg.rollout.request.told_fps", lambda fps, steps, family: 2 * fps)
    trainer = a_vllm_trainer(saved, tmp_path, monkeypatch, max_steps=1)
    before = weights(trainer)
    with pytest.raises(RuntimeError, match="it has other weights, frames or positions"):
        trainer.train()
    assert changed(trainer, before) == set()


@pytest.mark.vllm
def test_an_engine_goes_on_in_the_next_stage_and_settings_that_vllm_does_not_know_are_an_error(
    saved, tmp_path, monkeypatch  # noqa: F811
):  # fmt: skip
    first = a_vllm_trainer(saved, tmp_path, monkeypatch)
    second = a_vllm_trainer(saved, tmp_path, monkeypatch, learning_rate=1e-4)
    assert isinstance(first.vllm_generation, EngineRollout)
    assert first.vllm_generation.engine is second.vllm_generation.engine
    with pytest.raises(RecipeError, match="engine: vLLM does not start with these settings: .*max_num_sequences"):
        a_vllm_trainer(saved, tmp_path, monkeypatch, engine={"max_num_sequences": 3})
