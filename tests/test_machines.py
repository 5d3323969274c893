"""The training command of the README on two machines, one of which loses a video that it needs."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from rlvtg.data import tiny
from tests.machines import ROOT, environment, launcher, on_two_machines

SCRIPT = str(ROOT / "rlvtg" / "train.py")
SIZES = {"sft": 1, "rl": 8, "validation": 1, "test": 1}
RECIPE = """\
extends: tiny
tiny: {folder: data, sft: 1, rl: 8, validation: 1, test: 1}
max_bad_fraction: 0.5
logging_steps: 1
save_steps: 1
stages:
  cold_start: null
  rl:
    num_generations: 2
    per_device_train_batch_size: 2
    max_completion_length: 4
    max_steps: 7
evaluation: {max_new_tokens: 4, pictures: 0, before: false}
"""


def wait_for(path: Path, machines: list[subprocess.Popen[str]]) -> None:
    give_up = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < give_up and all(machine.poll() is None for machine in machines), path
        time.sleep(0.05)


@pytest.mark.slow
def test_a_video_that_one_machine_loses_ends_both_soon_and_the_run_goes_on_when_it_is_back(tmp_path: Path) -> None:
    (tmp_path / "lost.yaml").write_text(RECIPE)
    tiny.make(tmp_path / "data", SIZES, seed=1)
    videos = tmp_path / "data" / "videos" / "rl"
    broken, lost, run = videos / "rl_00001.mp4", videos / "rl_00005.mp4", tmp_path / "runs" / "lost"
    broken.write_bytes(b"no video")
    with on_two_machines(tmp_path, "ddp", SCRIPT, "recipe=lost.yaml") as machines:
        wait_for(run / "rl" / "checkpoint-1", machines)
        lost.rename(tmp_path / "kept.mp4")  # one process wants it in the fourth step, the other in the fifth
        said = [tmp_path / f"machine_{number}.txt" for number in range(2)]
        give_up = time.monotonic() + 300
        while not any(f"error: {lost.relative_to(tmp_path)}: no such file\n" in file.read_text() for file in said):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        # they would wait for each other for two days; here the other ended four seconds later
        assert [machine.wait(60) != 0 for machine in machines] == [True, True]
    # what was broken from the start was left out for both, and is listed once
    listed = [json.loads(line) for line in (run / "bad_rows.rl.jsonl").read_text().splitlines()]
    assert {row["video"] for row in listed} == {str(broken.relative_to(tmp_path))}
    assert len({row["id"] for row in listed}) == len(listed)
    shutil.move(tmp_path / "kept.mp4", lost)
    command = [sys.executable, *launcher("ddp"), "--num_processes", "2", SCRIPT, f"recipe={run / 'recipe.yaml'}"]
    resumed = subprocess.run(
        [*command, "resume=true"], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=300
    )
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    log = json.loads((run / "rl" / "log_history.json").read_text())["log"]
    assert [entry["step"] for entry in log if "loss" in entry] == list(range(1, 8))


def test_accelerate_takes_every_launch_of_the_page() -> None:
    page = (ROOT / "docs" / "multi_node.md").read_text(encoding="utf-8").replace("\\\n", " ")
    launches = re.findall(r"accelerate launch (.*?)[`'\n]", page)
    assert len(launches) == 3
    for words in launches:
        asked = launch_command_parser().parse_args(shlex.split(re.sub(r'"\$\(?\(?[^"]*"', "2", words)))
        assert asked.training_script == "rlvtg/train.py"
        assert asked.num_machines == 2 and asked.main_process_port is not None
        assert (ROOT / asked.config_file).is_file()
