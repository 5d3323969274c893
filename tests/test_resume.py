"""A stage that was stopped and goes on from a checkpoint ends with the weights and numbers of one that was not."""

import json
import re
import resource
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from rlvtg.disk import DiskError
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_config, load_processor
from rlvtg.model.tiny import make
from rlvtg.recipe import GrpoStage, Lora, Recipe, RecipeError, RewardSpec, SftStage
from rlvtg.reward import bind
from rlvtg.training.grpo import grpo_trainer
from rlvtg.training.resume import checkpoints, last_checkpoint, rotate, step_of
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


def a_trainer(base, out, kind, save_steps=1, **changes):
    model, rows = base
    Path("mine.py").write_text(
        "def letters(completions, **_):\n"
        "    return [float(sum(map(str.isalpha, c[0]['content']))) for c in completions]\n"
    )
    recipe = Recipe(
        name="test",
        model=model,
        bf16=False,
        use_cpu=True,
        report_to=[],
        grammar="to",
        save_steps=save_steps,
        save_total_limit=9,
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
        scale_rewards="group", epsilon=0.2, temperature=1.0, max_completion_length=6,
        **({"beta": 0.0, "num_iterations": 1} | common),
    )  # fmt: skip
    return grpo_trainer(recipe, stage, rows, bind(stage.rewards, rows[0].keys()), model, encoder, str(out))


CLOCK = re.compile(r"time$|_per_second$")


def untimed(trainer):
    """A trainer's log without what a clock said."""
    return [
        {key: value for key, value in entry.items() if not CLOCK.search(key)} for entry in trainer.state.log_history
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("sft", {}),
        ("sft", {"lora": LORA, "gradient_accumulation_steps": 2}),
        ("grpo", {"beta": 0.1}),
        ("grpo", {"lora": LORA}),
        ("grpo", {"gradient_accumulation_steps": 2, "freeze": ["visual"]}),
        ("grpo", {"num_iterations": 2}),
    ],
    ids=[
        "sft full", "sft lora, accumulation", "grpo full, beta", "grpo lora", "grpo frozen tower, accumulation",
        "grpo two iterations",
    ],
)  # fmt: skip
def test_a_resumed_stage_ends_as_one_that_was_never_stopped(base, tmp_path, monkeypatch, kind, changes):
    monkeypatch.chdir(tmp_path)
    whole = a_trainer(base, tmp_path / "whole", kind, **changes)
    whole.train()
    resumed = a_trainer(base, tmp_path / "resumed", kind, **changes)
    resumed.train(str(tmp_path / "whole" / "checkpoint-2"))
    assert untimed(resumed) == untimed(whole)
    logged = [entry for entry in untimed(whole) if "loss" in entry]
    assert [entry["step"] for entry in logged] == [1, 2, 3, 4]
    assert all(entry["grad_norm"] > 0 for entry in logged)
    ours, theirs = dict(resumed.model.named_parameters()), dict(whole.model.named_parameters())
    assert {name for name, value in ours.items() if not torch.equal(value, theirs[name])} == set()


def test_checkpoints_wait_until_no_completions_are_left_to_be_used(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = a_trainer(
        base, tmp_path / "out", "grpo", num_iterations=2, steps_per_generation=2, max_steps=5, save_steps=3
    )
    trainer.train()
    # completions last for four steps; the last step is saved in any case, since nothing comes after it
    assert [step_of(path) for path in checkpoints(tmp_path / "out")] == [4, 5]


def test_rotation_keeps_the_newest_and_the_best(tmp_path):
    for step in (2, 4, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model").write_text("")
    (tmp_path / "checkpoint-of-mine").mkdir()
    rotate(tmp_path, 2, best=2)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [2, 10, 12]
    rotate(tmp_path, 1)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-12", "checkpoint-of-mine"]
    assert last_checkpoint(tmp_path / "nothing") is None


def test_a_checkpoint_that_the_disk_does_not_take_is_told_and_leaves_the_one_before(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = a_trainer(base, tmp_path / "out", "sft")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(TrainerCallback):
        def on_save(self, *args, **kwargs):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    trainer.add_callback(Full())
    try:
        with pytest.raises(DiskError, match=r"out/checkpoint-2 could not be written: File too large"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "out").glob("*checkpoint*")] == ["checkpoint-1"]
    again = a_trainer(base, tmp_path / "out", "sft")
    again.train(last_checkpoint(tmp_path / "out"))
    whole = a_trainer(base, tmp_path / "whole", "sft")
    whole.train()
    assert untimed(again) == untimed(whole)


def test_a_run_goes_on_with_as_many_processes_as_it_had(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a_trainer(base, tmp_path / "out", "sft", max_steps=1).train()
    file = tmp_path / "out/checkpoint-1/progress_0.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"processes": 2}))
    with pytest.raises(RecipeError, match="checkpoint-1 was not written by 1 process; "):
        a_trainer(base, tmp_path / "out", "sft").train(tmp_path / "out/checkpoint-1")
