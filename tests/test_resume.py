"""A stage that was stopped and goes on from a checkpoint ends with the weights and numbers of one that was not."""

from pathlib import Path

import pytest
import torch

from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_config, load_processor
from rlvtg.model.tiny import make
from rlvtg.recipe import GrpoStage, Lora, Recipe, RewardSpec, SftStage
from rlvtg.reward import bind
from rlvtg.training.grpo import grpo_trainer
from rlvtg.training.sft import sft_trainer
from tests.tiny_qwen import row, video_settings, write_video

LORA = Lora(r=4, lora_alpha=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of an untrained model, and rows about three videos."""
    folder = tmp_path_factory.mktemp("base")
    make(folder / "model")
    videos = [write_video(folder / f"{name}.mp4", seconds=4, seed=k) for k, name in enumerate("abc")]
    said = [{"role": "assistant", "content": [{"type": "text", "text": "02 to 05"}]}]
    rows = [row(video, query, completion=said) for video in videos for query in ("a red circle", "when is it blue")]
    return str(folder / "model"), rows


def a_trainer(base, out, kind, **changes):
    model, rows = base
    Path("mine.py").write_text(
        "def letters(completions, **_):\n"
        "    return [float(sum(map(str.isalpha, c[0]['content']))) for c in completions]\n"
    )
    recipe = Recipe(
        name="test", model=model, bf16=False, use_cpu=True, report_to=[], grammar="to", save_steps=1, save_total_limit=9
    )
    common = {
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "per_device_train_batch_size": 4 if kind == "grpo" else 1,
        "max_steps": 4,
    } | changes
    encoder = Encoder(load_processor(model), family(load_config(model)), video_settings(1.0))
    if kind == "sft":
        return sft_trainer(recipe, SftStage("sft", "sft", **common), rows, model, encoder, str(out))
    stage = GrpoStage(
        "grpo", "rl", rewards={"mine.py:letters": RewardSpec()}, num_generations=4, loss_type="dapo",
        scale_rewards="group", epsilon=0.2, num_iterations=1, temperature=1.0, max_completion_length=6,
        **({"beta": 0.0} | common),
    )  # fmt: skip
    return grpo_trainer(recipe, stage, rows, bind(stage.rewards, rows[0].keys()), model, encoder, str(out))


def numbers(trainer):
    kept = ("step", "loss", "grad_norm", "learning_rate", "reward", "kl")
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{key: entry[key] for key in kept if key in entry} for entry in log]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("sft", {}),
        ("sft", {"lora": LORA, "gradient_accumulation_steps": 2}),
        ("grpo", {"beta": 0.1}),
        ("grpo", {"lora": LORA}),
        ("grpo", {"gradient_accumulation_steps": 2, "freeze": ["visual"]}),
    ],
    ids=["sft full", "sft lora, accumulation", "grpo full, beta", "grpo lora", "grpo frozen tower, accumulation"],
)
def test_a_resumed_stage_ends_as_one_that_was_never_stopped(base, tmp_path, monkeypatch, kind, changes):
    monkeypatch.chdir(tmp_path)
    whole = a_trainer(base, tmp_path / "whole", kind, **changes)
    whole.train()
    resumed = a_trainer(base, tmp_path / "resumed", kind, **changes)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert numbers(resumed) == numbers(whole)
    assert [entry["step"] for entry in numbers(whole)] == [1, 2, 3, 4]
    assert all(entry["grad_norm"] > 0 for entry in numbers(whole))
    ours, theirs = dict(resumed.model.named_parameters()), dict(whole.model.named_parameters())
    assert {name for name, value in ours.items() if not torch.equal(value, theirs[name])} == set()
