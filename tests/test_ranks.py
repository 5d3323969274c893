"""Two gloo ranks on the CPU, under DDP, ZeRO-2 and ZeRO-3, against one rank that sees the same groups in each step.

The shipped launcher files are used, with fewer processes. A run has a supervised stage, GRPO with the prompt shared and
its micro-batches sliced unevenly, GRPO on the plain path with accumulated gradients, and LoRA.
"""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from rlvtg.export_run import export_run
from tests.machines import ROOT, environment, launcher, on_two_machines

SCRIPT = str(ROOT / "tests" / "ranks.py")
WAYS = ("ddp", "zero2", "zero3")
STAGES = ("sft", "shared", "plain", "lora")
TOLERANCE = 1e-6
"""Of weights and of logged numbers near 1, in float32."""
REWARD = """\
def letters(completions, **_):
    return [sum(map(str.isalpha, completion[0]["content"])) / 10 for completion in completions]
"""
RECIPE = """\
extends: tiny
tiny: {folder: data, sft: 4, rl: 6, validation: 1, test: 3}
data: {test: {limit: 5}} # three batches of evaluation: one rank has more than the other
logging_steps: 1
save_steps: 1
stages:
  cold_start: null
  rl: null
  sft:
    kind: sft
    data: cold_start
    completion: "<think>{query}</think><answer>{start:02.0f} to {end:02.0f}</answer>"
    narrate: 0.4
    learning_rate: 1.0e-3
    lr_scheduler_type: cosine
    per_device_train_batch_size: 2
    max_steps: 2
  shared: &grpo
    kind: grpo
    data: rl
    rewards: {tiou: {weight: 1.0}, think_format: {weight: 0.5}, letters: {weight: 1.0}}
    num_generations: 4
    beta: 0.1
    loss_type: dapo
    scale_rewards: group
    epsilon: 0.2
    num_iterations: 1
    temperature: 1.0
    max_completion_length: 10
    learning_rate: 1.0e-3
    lr_scheduler_type: linear
    per_device_train_batch_size: 8
    max_steps: 2
    queries_per_video: 2
    gradient_checkpointing: true
    max_tokens_per_forward: 60
  plain:
    <<: *grpo
    beta: 0.0
    loss_type: grpo
    queries_per_video: 1
    share_prefix: false
    gradient_checkpointing: false
    max_tokens_per_forward: null
    per_device_train_batch_size: 4
    gradient_accumulation_steps: 2
    difficulty: {num_generations: 1}
  lora:
    <<: *grpo
    num_iterations: 2
    max_tokens_per_forward: null
    lora: {r: 4, lora_alpha: 8}
    export: [adapter, merged]
evaluation: {data: test, batch_size: 2, max_new_tokens: 8, pictures: 0, before: false}
"""
# What two ranks do at a time, one does in a batch or an accumulation of twice the size.
TWICE = (
    "stages.sft.per_device_train_batch_size=4", "stages.shared.per_device_train_batch_size=16",
    "stages.plain.gradient_accumulation_steps=4", "stages.lora.per_device_train_batch_size=16",
)  # fmt: skip
# Logged numbers that do not depend on how rows are spread; entropy is a mean of the ranks' means.
SAME = ("loss", "grad_norm", "learning_rate", "kl", "reward", "reward_std", "frac_reward_zero_std", "num_tokens",
        "completions/mean_length", "completions/min_length", "completions/max_length", "completions/unparsed",
        "rewards/tiou/mean", "rewards/think_format/mean", "rewards/letters/mean", "rewards/letters/std")  # fmt: skip


@dataclass
class Runs:
    """The runs that this file's tests look at, each made when it is first asked for."""

    place: Path
    made: set[str] = field(default_factory=set)

    def folder(self, way: str) -> Path:
        if way not in self.made:
            self.made.add(way)
            done = launch(self.place, way, f"output_dir=runs/{way}", *(TWICE if way == "one" else ()))
            assert done.returncode == 0, done.stderr[-4000:]
        return self.place / "runs" / way


def launch(place: Path, way: str, *argv: str, **changes: str) -> subprocess.CompletedProcess[str]:
    how = () if way == "one" else (*launcher(way), "--num_processes", "2")
    command = [sys.executable, *how, SCRIPT, "recipe=ranks.yaml", *argv]
    return subprocess.run(
        command, cwd=place, env=environment(place) | changes, capture_output=True, text=True, timeout=400
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    place = tmp_path_factory.mktemp("ranks")
    (place / "rewards").mkdir()
    (place / "rewards" / "letters.py").write_text(REWARD)
    (place / "ranks.yaml").write_text(RECIPE)
    return Runs(place)


def weights(run: Path, stage: str, form: str = "merged/model") -> dict[str, torch.Tensor]:
    return load_file(run / stage / f"{form}.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def completions(run: Path, stage: str) -> list[list[tuple[object, ...]]]:
    """For each rollout its rows in an order of their own: prompt, completion, rewards, advantage."""
    found = []
    for file in sorted((run / stage / "completions").glob("*.parquet")):
        rows = pd.read_parquet(file).itertuples()
        found.append(sorted((one.id, one.completion[0]["content"], one.tiou, one.think_format, one.letters,
                             round(one.advantage, 4)) for one in rows))  # fmt: skip
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_sample_reward_and_learn_what_one_does(runs: Runs, way: str) -> None:
    one, two = runs.folder("one"), runs.folder(way)
    before = weights(runs.place / "data", "model", "model")
    for stage in STAGES:
        after = weights(one, stage)
        assert distance(before, after) > 1e-4  # it has learned at all
        assert distance(after, weights(two, stage)) < TOLERANCE, stage
        before = after
        logs = [json.loads((run / stage / "log_history.json").read_text())["log"] for run in (one, two)]
        steps = [[entry for entry in log if "loss" in entry] for log in logs]
        assert len(steps[0]) == len(steps[1]) == 2
        for ours, theirs in zip(*steps, strict=True):
            for name in ours.keys() & set(SAME):
                assert theirs[name] == pytest.approx(ours[name], abs=TOLERANCE, rel=1e-5), (stage, name)
        assert completions(two, stage) == completions(one, stage)
    assert all(len(rollout) == 16 for rollout in completions(two, "shared"))


@pytest.mark.slow
def test_two_machines_learn_what_one_process_does(runs: Runs) -> None:
    one, two = runs.folder("one"), runs.place / "runs" / "machines"
    only = ("stages.plain=null", "stages.lora=null")
    with on_two_machines(runs.place, "zero3", SCRIPT, "recipe=ranks.yaml", f"output_dir={two}", *only) as machines:
        assert [machine.wait(400) for machine in machines] == [0, 0]
    for stage in ("sft", "shared"):
        assert distance(weights(one, stage), weights(two, stage)) < TOLERANCE
        assert completions(one, stage) == completions(two, stage)
        predicted = [(run / "evaluation" / stage / "predictions.jsonl").read_text() for run in (one, two)]
        assert predicted[0] == predicted[1]
    [folder] = (two / "shared").glob("checkpoint-2")
    assert len(list(folder.glob("global_step2/*optim_states.pt"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_adapters_and_predictions_of_two_ranks_are_those_of_one(runs: Runs, way: str) -> None:
    one, two = runs.folder("one"), runs.folder(way)
    adapter = "adapter/adapter_model"
    assert distance(weights(one, "lora", adapter), weights(two, "lora", adapter)) < TOLERANCE
    assert sorted(file.name for file in (two / "lora/merged").iterdir()) == sorted(
        file.name for file in (one / "lora/merged").iterdir()
    )
    for stage in STAGES:
        predicted = [(run / "evaluation" / stage / "predictions.jsonl").read_text() for run in (one, two)]
        assert predicted[0] == predicted[1] and predicted[0].count("\n") == 5
    asked = [(run / "plain" / "difficulty" / "predictions.jsonl").read_text() for run in (one, two)]
    assert asked[0] == asked[1] and asked[0].count("\n") == 12


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_of_two_ranks_is_exported_as_what_its_stage_exported(
    runs: Runs, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = runs.folder(way)
    monkeypatch.chdir(runs.place)  # the adapter's base model is where the run was made
    for stage in STAGES:
        made = export_run(two, checkpoint=f"{stage}/checkpoint-2", kind="merged", output=tmp_path / stage)
        assert distance(weights(two, stage), load_file(made.folder / "model.safetensors")) < TOLERANCE, stage
    made = export_run(two, checkpoint="lora/checkpoint-2", kind="adapter", output=tmp_path / "adapter")
    adapter = load_file(made.folder / "adapter_model.safetensors")
    assert distance(weights(two, "lora", "adapter/adapter_model"), adapter) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_weights_are_split_as_the_launchers_file_says(runs: Runs, way: str) -> None:
    [folder] = (runs.folder(way) / "shared").glob("checkpoint-2")
    parts = sorted(file.name for file in folder.glob("global_step2/*"))
    assert sum(name.endswith("optim_states.pt") for name in parts) == {"ddp": 0, "zero2": 2, "zero3": 2}[way]
    assert sum(name.endswith("model_states.pt") for name in parts) == {"ddp": 0, "zero2": 1, "zero3": 2}[way]


@pytest.mark.slow
def test_a_rank_with_less_to_slice_makes_as_many_calls_as_the_other(runs: Runs) -> None:
    runs.folder("zero3")
    calls = [
        [json.loads(line) for line in (runs.place / f"slices.{rank}_of_2.jsonl").read_text().splitlines()]
        for rank in (0, 1)
    ]
    assert [made for _, made in calls[0]] == [made for _, made in calls[1]]
    assert [own for own, _ in calls[0]] != [own for own, _ in calls[1]]


@pytest.mark.slow
def test_a_run_under_zero3_is_resumed_and_ends_where_it_would_have_ended(runs: Runs) -> None:
    whole, run = runs.folder("zero3"), runs.place / "runs" / "again"
    shutil.copytree(whole, run)
    for gone in ("shared/checkpoint-2", "shared/merged", "evaluation/shared"):
        shutil.rmtree(run / gone)
    (run / "shared" / "done.json").unlink()
    written = run / "recipe.yaml"
    written.write_text(written.read_text().replace("runs/zero3", "runs/again"))
    done = launch(runs.place, "zero3", "output_dir=runs/again", "resume=true")
    assert done.returncode == 0, done.stderr[-4000:]
    assert distance(weights(whole, "shared"), weights(run, "shared")) < TOLERANCE


@pytest.mark.slow
def test_a_rank_whose_video_is_gone_ends_the_others(runs: Runs) -> None:
    """Under ZeRO-3; two machines under DDP are in test_machines.py."""
    only = [f"stages.{stage}=null" for stage in STAGES if stage != "plain"]
    started = time.monotonic()
    done = launch(runs.place, "zero3", "output_dir=runs/lost", *only, LOSES_ITS_VIDEOS="1")
    assert time.monotonic() - started < 300  # the ranks wait for days
    assert done.returncode != 0
    # a progress bar may stand before it, and torch and the launcher say on the same stream how they went down
    said = [line for line in done.stderr.splitlines() if "error: data/videos/rl/" in line]
    assert said and said[0].endswith(".mp4: no such file")


@pytest.mark.slow
def test_slices_are_refused_where_trl_makes_checkpointing_reentrant(runs: Runs) -> None:
    only = [f"stages.{stage}=null" for stage in STAGES if stage != "shared"]
    done = launch(runs.place, "zero3", "output_dir=runs/refused", *only, "stages.shared.lora={r: 4}")
    assert done.returncode != 0
    assert "error: max_tokens_per_forward: got 60 with reentrant gradient checkpointing on 2 devices" in done.stderr
    assert "TRL makes it true for LoRA with ZeRO-3" in done.stderr
