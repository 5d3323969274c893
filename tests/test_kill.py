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
    # where, after how many paths, and how many seconds after that; a stage makes about 130 and 160 paths
    moments = [(stage, rng.randrange(most), rng.uniform(0, 0.3)) for stage, most in (("cold_start", 60), ("rl", 155))]
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
