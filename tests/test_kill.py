"""A run that is killed, again and again, ends as one that was not; a disk that is full stops it with one sentence."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.forks import Forks
from tests.test_train_command import OWN_REWARD, SCRIPT, environment

# Two stages, with all that can lie between two checkpoints: log entries that are not full, completions that wait to be
# used again, a validation, a second epoch.
WORDS = (
    "recipe=tiny", "tiny.folder=data/small", "tiny.sft=6", "tiny.rl=2", "tiny.validation=1", "tiny.test=1",
    "evaluation.before=false", "evaluation.pictures=0", "report_to=[]", "logging_steps=3", "save_steps=2",
    "stages.cold_start.max_steps=5", "stages.cold_start.per_device_train_batch_size=4", "stages.cold_start.lora.r=4",
    "stages.cold_start.lora.lora_dropout=0.1",
    "stages.cold_start.early_stopping={data: validation, eval_steps: 2}",
    "stages.rl.rewards.letters.weight=1.0", "stages.rl.per_device_train_batch_size=8",
    "stages.rl.steps_per_generation=2", "stages.rl.num_iterations=2", "stages.rl.max_steps=14",
    "stages.rl.early_stopping={data: validation, eval_steps: 3, patience: 9}",
    "stages.rl.plateau={window: 6, patience: 9}",
)  # fmt: skip
CLOCK = re.compile(r"time$|_per_second$")


def started(place: Path, *words: str) -> subprocess.Popen[str]:
    """The command, on its way, in a process group of its own."""
    (place / "rewards").mkdir(exist_ok=True, parents=True)
    (place / "rewards" / "letters.py").write_text(OWN_REWARD)
    return subprocess.Popen(
        [sys.executable, SCRIPT, *WORDS, *words],
        cwd=place,
        env=environment(place),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended_well(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-4000:]


def wait_for(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Until so many different paths have been seen below `folder`, those of unfinished files among them."""
    seen: set[str] = set()
    while process.poll() is None and len(seen) < count:
        seen |= {os.path.join(place, name) for place, below, files in os.walk(folder) for name in [*below, *files]}
        time.sleep(0.002)


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said[-4000:]


def fill_the_disk(process: subprocess.Popen[str], place: Path) -> None:
    """A file may not grow any more, which a writer sees as it sees a full disk."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2 and "Traceback" not in said, said[-4000:]
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    told = re.fullmatch(
        r"error: (runs/tiny/\S+) could not be written: .+; the last whole checkpoint is (\S+); make room, then go on "
        r"with recipe=runs/tiny/recipe.yaml resume=true",
        line,
    )
    print(line)
    assert told and not (place / told[1]).exists() and (place / told[2] / "progress_0.json").is_file()


def log(run: Path, stage: str) -> list[dict[str, Any]]:
    entries = json.loads((run / stage / "log_history.json").read_text())["log"]
    return [{key: value for key, value in entry.items() if not CLOCK.search(key)} for entry in entries]


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = load_file(one), load_file(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_a_run_that_is_killed_and_finds_the_disk_full_ends_as_one_that_nothing_happened_to(tmp_path: Path) -> None:
    seed = int(os.environ.get("RLVTG_TEST_SEED", "0"))
    rng = random.Random(seed)
    # where, after how many paths, and how many seconds after that; a stage makes about 130 and 160 paths, of which the
    # shortest-lived are overlooked on a busy machine, and some 80 stay
    moments = [(stage, rng.randrange(most), rng.uniform(0, 0.3)) for stage, most in (("cold_start", 60), ("rl", 75))]
    print(f"seed {seed}: killed {moments}")
    unkilled = started(tmp_path / "whole")
    killed, whole = tmp_path / "killed" / "runs/tiny", tmp_path / "whole" / "runs/tiny"
    for stage, count, seconds in moments:
        process = started(tmp_path / "killed", "resume=true")
        wait_for(process, killed / stage, count)
        time.sleep(seconds)
        kill(process)
        print(sorted(str(path.relative_to(killed)) for path in killed.glob("*/checkpoint-*")))
        if stage == "cold_start":
            process = started(tmp_path / "killed", "resume=true")
            wait_for(process, killed / "cold_start/checkpoint-2", 1)
            fill_the_disk(process, tmp_path / "killed")
    ended_well(started(tmp_path / "killed", "resume=true"))
    ended_well(unkilled)
    for stage in ("cold_start", "rl"):
        assert log(killed, stage) == log(whole, stage)
        assert same_weights(killed / stage / "merged/model.safetensors", whole / stage / "merged/model.safetensors")
        assert [place.name for place in sorted((killed / stage).glob("checkpoint-*"))] == [
            place.name for place in sorted((whole / stage).glob("checkpoint-*"))
        ]
    files = [file.relative_to(whole) for file in whole.rglob("*") if file.name in ("metrics.json", "predictions.jsonl")]
    assert len(files) == 1 + 2 * (2 + 3 + 4)
    for file in files:
        assert (killed / file).read_bytes() == (whole / file).read_bytes()
    tables = sorted((whole / "rl/completions").glob("*.parquet"))
    assert len(tables) == 5
    for table in tables:
        pd.testing.assert_frame_equal(pd.read_parquet(killed / "rl/completions" / table.name), pd.read_parquet(table))
    assert not list(killed.rglob(".*"))
    logged = [key for entry in log(whole, "rl") for key in entry]
    assert {"reward_group_std", "eval_mIoU", "shared_prefix/difference", "num_tokens"} <= set(logged)


# --- with everything that chooses rows, samples again, leaves groups out, or has an order of its own

EVERYTHING = """\
extends: tiny
tiny: {folder: data/small, sft: 1, rl: 4, validation: 1, test: 1}
report_to: []
logging_steps: 3
save_steps: 2
data:
  rl: {reader: jsonl, annotations: "${tiny.folder}/rl.jsonl"}
stages:
  cold_start: null
  rl: null
  choosing: &grpo
    kind: grpo
    data: rl
    rewards: {many: {weight: 1.0}, tiou: {weight: 0.5}}
    num_generations: 4
    beta: 0.0
    loss_type: dapo
    scale_rewards: group
    epsilon: 0.2
    num_iterations: 2
    temperature: 1.0
    max_completion_length: 16
    learning_rate: 1.0e-3
    lr_scheduler_type: linear
    per_device_train_batch_size: 8
    max_steps: 8
    lora: {r: 4}
    rounds: 2
    difficulty: {num_generations: 2}
    select: [{method: gaussian, size: 6}]
    reselect: [{method: gaussian, size: 4}]
    curriculum: {order: easy_first, parts: 2}
    expert: {template: "<answer>{spans}</answer>", decimals: 0, anchor: 1.2}
    zero_variance: resample
    early_stopping: {data: validation, eval_steps: 4, patience: 9}
  sharing: &plain
    <<: *grpo
    rounds: 1
    difficulty: null
    select: []
    reselect: null
    curriculum: null
    expert: null
    early_stopping: null
    tasks:
      tvg: {share: 0.5}
      vc: {inverse: verb_completion, share: 0.5, prompt: "{masked_query}{video}"}
    rewards: {many: {weight: 1.0}, tiou: {weight: 0.5, tasks: [tvg]}}
    zero_variance: drop
    beta: 0.1
    lora: null
    num_iterations: 1
    steps_per_generation: 2
    per_device_train_batch_size: 4
    max_steps: 7
  together:
    <<: *plain
    tasks: {}
    rewards: {many: {weight: 1.0}, tiou: {weight: 0.5}}
    queries_per_video: 2
    steps_per_generation: null
    per_device_train_batch_size: 8
    zero_variance: keep
    beta: 0.0
    max_steps: 5
evaluation: {before: false, pictures: 0, batch_size: 4, max_new_tokens: 8}
"""
# Often the same for a whole group.
COARSE_REWARD = """\
def many(completions, **_):
    return [float(sum(map(str.isalpha, completion[0]["content"])) > 7) for completion in completions]
"""
# What a run is doing when it is killed, in the order in which it does it, and the paths that appear meanwhile.
PHASES = {
    "asking about the rows": r"choosing/round_1/difficulty/",
    "round 1": r"choosing/round_1/(checkpoint|completions|validation)",
    "between the rounds": r"choosing/round_1/(merged|done|log_history)",
    "asking again": r"choosing/round_2/(difficulty|selected)",
    "round 2": r"choosing/round_2/(checkpoint|completions|validation)",
    "after the last round": r"(choosing|evaluation/choosing)/(?!round_)",
    "several tasks": r"sharing/(checkpoint|completions)",
    "several queries": r"together/(checkpoint|completions)",
}
UNFINISHED = re.compile(r"\.(.+)\.\w+\.unfinished")


def paths(run: Path) -> set[str]:
    """What lies below `run`; what is being written has the name that it will get, and its process is left out."""
    found = {os.path.join(place, name) for place, below, files in os.walk(run) for name in [*below, *files]}
    return {UNFINISHED.sub(r"\1 in the making", os.path.relpath(path, run)) for path in found}


def watched(forks: Forks, run: Path) -> list[tuple[str, float]]:
    """The paths below `run` in the order in which they appear until the command ends, and seconds to the next."""
    seen: dict[str, float] = {}
    while forks.is_running():
        for path in sorted(paths(run) - seen.keys()):
            seen[path] = time.monotonic()
        time.sleep(0.02)
    times = [*seen.values(), time.monotonic()]
    later = [next((then for then in times[k:] if then > now), now) for k, now in enumerate(times[:-1])]
    return [(path, then - now) for (path, now), then in zip(seen.items(), later, strict=True)]


def differences(one: Path, other: Path) -> list[str]:
    """What two runs have left that is not the same, in words."""
    files = [{path.relative_to(run) for path in run.rglob("*") if path.is_file()} for run in (one, other)]
    found = [f"only one has {path}" for path in sorted(files[0] ^ files[1])]
    return found + [str(path) for path in sorted(files[0] & files[1]) if not is_same(one / path, other / path)]


def is_same(one: Path, other: Path) -> bool:
    """Whether two files of runs say the same, but for what a clock says."""
    if one.suffix == ".safetensors":
        return same_weights(one, other)
    if one.suffix == ".parquet":
        return pd.read_parquet(one).equals(pd.read_parquet(other))
    if one.name in ("log_history.json", "trainer_state.json"):
        return timeless(json.loads(one.read_text())) == timeless(json.loads(other.read_text()))
    if one.name.startswith("progress_"):
        ours, theirs = (timeless(json.loads(file.read_text())["progress"]) for file in (one, other))
        return bool(ours == theirs)
    if one.name == "videos.jsonl":  # says when the videos were made
        return True
    return one.suffix in (".pt", ".pth", ".bin", ".png") or one.read_bytes() == other.read_bytes()


def timeless(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: timeless(value) for key, value in told.items() if not CLOCK.search(key) and key != "cpu_seconds"}
    return [timeless(value) for value in told] if isinstance(told, list) else told


@pytest.mark.slow
def test_whatever_a_stage_does_it_ends_the_same_when_it_is_killed_meanwhile(tmp_path: Path) -> None:
    seed = int(os.environ.get("RLVTG_TEST_SEED", "0"))
    rng = random.Random(seed)
    for place in ("whole", "killed"):
        (tmp_path / place / "rewards").mkdir(parents=True)
        (tmp_path / place / "rewards/many.py").write_text(COARSE_REWARD)
        (tmp_path / place / "every.yaml").write_text(EVERYTHING)
    whole, killed = (tmp_path / place / "runs/every" for place in ("whole", "killed"))
    words = ("recipe=every.yaml", "resume=true")
    said = f"seed {seed}"
    with Forks(environment(tmp_path)) as forks:
        forks.start(tmp_path / "whole", *words)
        timeline = watched(forks, whole)
        assert forks.status() == 0, (tmp_path / "whole/said.txt").read_text()[-4000:]
        for phase, pattern in PHASES.items():
            moments = [k for k, (path, _) in enumerate(timeline) if re.match(pattern, path)]
            assert moments, f"nothing is written while {phase}"
            # half by what is written, since files come in bursts, and half by time
            waits = [timeline[k][1] for k in moments]
            [moment] = rng.choices(moments, [wait + sum(waits) / len(waits) for wait in waits])
            seconds = rng.uniform(0, min(timeline[moment][1], 2.0))
            behind = {path for path, _ in timeline[moment:]}
            forks.start(tmp_path / "killed", *words)
            while forks.is_running() and not behind & paths(killed):
                time.sleep(0.02)
            time.sleep(seconds)
            forks.kill()
            status = forks.status()
            last = max(killed.rglob("checkpoint-*/trainer_state.json"), key=os.path.getmtime, default=None)
            said += (
                f"\nkilled in {phase}: {seconds:.2f} s after {timeline[moment][0]}, the last checkpoint was "
                f"{None if last is None else last.parent.relative_to(killed)}"
            )
            assert status in (-signal.SIGKILL, 0), said + (tmp_path / "killed/said.txt").read_text()[-4000:]
        forks.start(tmp_path / "killed", *words)
        assert forks.status() == 0, said + (tmp_path / "killed/said.txt").read_text()[-4000:]
    print(said)
    found = differences(killed, whole)
    assert not found, "\n".join([said, "differs:", *found])
    # that there was something to go wrong
    logged = [entry for stage in ("choosing", "sharing", "together") for entry in log(whole, stage)]
    assert any(entry.get("zero_variance/resamples") for entry in logged)
    assert any(0 < entry.get("zero_variance/before", 0) < 1 for entry in log(whole, "sharing"))
    assert not list(whole.glob("choosing/round_1/*/model.safetensors"))
