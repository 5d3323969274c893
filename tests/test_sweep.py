"""The sweep of `benchmarks/sweep`: its plan, its recipes, its jobs, its page; and a small one through its command."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.sweep.__main__ import main
from benchmarks.sweep.data import ASKED, inverse_rows, several_rows
from benchmarks.sweep.jobs import Job, cpu_seconds, work_off
from benchmarks.sweep.page import over_seeds, over_videos, page
from benchmarks.sweep.place import recipe_file
from benchmarks.sweep.plan import COMPARISONS, STARTS, runs
from rlvtg.data.check import SPAN_TASKS
from rlvtg.data.sample import Sample
from rlvtg.recipe import SHIPPED, GrpoStage, Recipe, RecipeError, load

# --- plan and recipes


def test_every_arm_is_compared_and_every_recipe_is_in_the_plan() -> None:
    compared = {arm for comparison in COMPARISONS for arm in (comparison.baseline, *comparison.arms)}
    files = {file.stem for file in (SHIPPED / "sweep").glob("*.yaml")}
    assert compared == set(STARTS) and files == {*STARTS, *STARTS.values()}


def test_cold_starts_come_before_their_arms_and_once() -> None:
    assert runs(["plain", "raw", "think"]) == ["cold", "plain", "raw", "cold_think", "think"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recipe]:
    """All recipes of the sweep, for seed 7."""
    place = tmp_path_factory.mktemp("sweep")
    for start in STARTS.values():
        (place / "runs/sweep/7" / start / "cold_start/merged").mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return {
            name: load([f"recipe={recipe_file(name)}", "seed=7"]) for name in dict.fromkeys([*STARTS, *STARTS.values()])
        }


def test_an_arm_begins_where_its_cold_start_ended_and_sees_the_same(loaded: dict[str, Recipe]) -> None:
    for arm, start in STARTS.items():
        one, other = loaded[arm], loaded[start]
        assert one.model == f"{other.output_dir}/cold_start/merged" and other.output_dir == f"runs/sweep/7/{start}"
        for key in ("video", "grammar", "prompt", "system", "tiny", "evaluation", "cache_dir"):
            assert getattr(one, key) == getattr(other, key), (arm, key)
        assert one.data["test"] == other.data["test"] and one.tiny is not None and one.tiny.seed == one.seed == 7
        assert (list(one.stages), list(other.stages)) == (["rl"], ["cold_start"])


# What may differ between an arm and its baseline; the rest of the stage is the same.
DIFFERS = {
    "raw": {"expert"},
    "downscaled": {"expert"},
    "anchored": {"expert"},
    "shaped": {"expert", "rewards"},
    "hard": {"select"},
    "think": {"rewards", "max_completion_length"},
    "all_segments": {"rewards"},
    "inverse_on": {"rewards", "tasks"},
    "text": set[str](),
    "overlay": set[str](),
}


def test_an_arm_differs_from_its_baseline_in_what_it_is_about_alone(loaded: dict[str, Recipe]) -> None:
    for comparison in COMPARISONS:
        for arm in comparison.arms:
            one, other = (asdict(loaded[name].stages["rl"]) for name in (arm, comparison.baseline))
            assert {key for key in one if one[key] != other[key]} == DIFFERS[arm], arm


def test_cold_starts_are_asked_as_the_inverse_tasks_ask(loaded: dict[str, Recipe]) -> None:
    stage = loaded["inverse_on"].stages["rl"]
    assert isinstance(stage, GrpoStage)
    prompts = {str(task.inverse): task.prompt for task in stage.tasks.values() if task.inverse}
    assert prompts == {task: asked.format(masked="{masked_query}") + "{video}" for task, (asked, _) in ASKED.items()}


# --- data

ROW = Sample("v#0", "v.mp4", 20.0, "a blue circle moves", ((3.0, 9.0),), verb="moves", masked_query="a blue circle")


def test_every_other_row_brings_one_of_the_inverse_tasks_in_turn(loaded: dict[str, Recipe]) -> None:
    made = inverse_rows([ROW] * 6, loaded["cold_inverse"])
    asked = [(row.query, row.completion, row.video_start) for row in made]
    answer = ("a blue circle moves", "<answer>3 to 9</answer>", None)
    assert asked == [
        answer, ("complete a blue circle", "<answer>a blue circle moves</answer>", 3.0), answer,
        answer, ("verb of a blue circle", "<answer>moves</answer>", 3.0), answer,
        answer, ("describe", "<answer>a blue circle moves</answer>", 3.0), answer,
    ]  # fmt: skip
    without = {row.task for row in made if not row.spans}
    assert without == {"inverse"} and not without & {*SPAN_TASKS}


def test_all_spans_are_the_answer_of_a_row_with_several(loaded: dict[str, Recipe]) -> None:
    row = Sample("v#0", "v.mp4", 20.0, "a blue circle", ((3.0, 9.0), (12.0, 15.0)))
    [made] = several_rows([row], loaded["cold_several"])
    assert made.completion == "<think>a blue circle</think><answer>3-9 12-15</answer>"


# --- jobs


def shell(name: str, script: str, after: str | None = None) -> Job:
    return Job(name, ("sh", "-c", script), after)


def test_jobs_wait_for_what_they_need_and_go_on_beside_a_failure(tmp_path: Path) -> None:
    jobs = [
        shell("1/first", f"sleep 0.5; echo made > {tmp_path}/made"),
        shell("1/second", f"cat {tmp_path}/made; test $KEY = value", "1/first"),
        shell("2/first", "echo why >&2; exit 3"),
        shell("2/second", f"touch {tmp_path}/never", "2/first"),
        shell("3/alone", "true", "done before"),
    ]
    failed = work_off(jobs, 2, tmp_path / "logs", {**os.environ, "KEY": "value"})
    assert failed == ["2/first", "2/second"] and not (tmp_path / "never").exists()
    assert (tmp_path / "logs/1/second.log").read_text() == "made\n"
    assert (tmp_path / "logs/2/first.log").read_text() == "why\n"
    ended = [json.loads(line) for line in (tmp_path / "logs/cpu_seconds.jsonl").read_text().splitlines()]
    assert {line["run"]: line["status"] for line in ended} == {"1/first": 0, "1/second": 0, "2/first": 3, "3/alone": 0}


def test_cpu_seconds_are_each_jobs_own_and_add_up_over_attempts(tmp_path: Path) -> None:
    busy = Job("busy", (sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"))
    for _ in range(2):
        assert work_off([busy, shell("idle", "sleep 0.6")], 2, tmp_path, os.environ) == []
    spent = cpu_seconds(tmp_path)
    assert 1.0 <= spent["busy"] < 3.0 and spent["idle"] < 0.3


def test_no_job_outlives_a_sweep_that_is_told_to_stop(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
from benchmarks.sweep.jobs import Job, work_off
def stop(number, frame): raise SystemExit(1)
signal.signal(signal.SIGTERM, stop)
work_off([Job("long", ("sh", "-c", "echo $$ > {tmp_path}/pid; exec sleep 60"))], 1, Path({str(tmp_path)!r}), os.environ)
"""
    root = Path(__file__).resolve().parent.parent
    child = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(root)})
    deadline = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.terminate()
    assert child.wait(timeout=20) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert json.loads((tmp_path / "cpu_seconds.jsonl").read_text())["status"] == -15


# --- page


def run(name: str, seed: int, ious: Sequence[float], **changes: Any) -> dict[str, Any]:
    """A run of two queries a video."""
    return {
        "run": name,
        "seed": seed,
        "cpu_seconds": 100.0,
        "steps": 80,
        "n": len(ious),
        "R1@0.5": float(np.mean(np.array(ious) >= 0.5)),
        "parse_failure_rate": 0.25,
        "constant": 0.3,
        "rewards": {"verb_completion": [0.25, 0.75]} if name == "inverse_on" else {},
        "ids": [f"{seed}_{k}" for k in range(len(ious))],
        "videos": [f"{seed}_{k // 2}" for k in range(len(ious))],
        "iou": list(ious),
        "set_iou": [iou / 2 for iou in ious],
        **changes,
    }


def results(made: Sequence[dict[str, Any]], seeds: Sequence[int] = (1, 2, 3)) -> dict[str, Any]:
    arms = list(dict.fromkeys(one["run"] for one in made if one["run"] in STARTS))
    return {"arms": arms, "seeds": list(seeds), "overrides": [], "data_cpu_seconds": 3600.0, "runs": list(made)}


def rows(text: str) -> list[list[str]]:
    """The cells of the table's rows."""
    table = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


THREE = [
    one
    for seed, gain in ((1, 0.1), (2, 0.2), (3, 0.3))
    for one in (
        run("cold", seed, [0.25, 0.25, 0.25, 0.25]),
        run("plain", seed, [0.5, 0.25, 0.5, 0.75]),
        run("raw", seed, [0.5 + gain, 0.25 + gain, 0.5 + gain, 0.75 - gain]),
    )
]


def test_a_row_has_the_mean_each_seed_and_the_paired_difference() -> None:
    plain, raw = rows(page(results(THREE)))
    assert plain[0] == "annotated answer in the group (TempSamp-R1, arXiv 2509.18056)"
    assert plain[1:6] == ["`plain`", "0.300", "0.250", "0.500", "0.500 0.500 0.500"]
    assert plain[6:] == ["–", "–", "–", "–", "0.750", "0.250", "100"]
    assert raw[:8] == ["", "`raw`", "0.300", "0.250", "0.600", "0.550 0.600 0.650", "+0.100", "+0.050 +0.100 +0.150"]
    # 0.1 -+ 4.303 * 0.05 / sqrt(3)
    assert raw[9] == "-0.024 to +0.224" and raw[10:] == ["0.750", "0.250", "100"]
    # each seed's test set is of two videos, one with gain on both queries, one with gain and loss
    assert raw[8] == "+0.017 to +0.183"


def test_the_page_says_what_it_stands_on() -> None:
    text = page(results(THREE))
    assert "Seeds 1, 2, 3:" in text and "Arms: 2, of 80 GRPO steps" in text
    told = " ".join(text.split())
    # an hour of data and nine runs of 100 s
    assert "test queries a seed: 4," in told and "CPU hours in all: 1.2." in told
    assert "What this can and cannot show" in text and "Overrides" not in text
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|"))
    assert "Overrides: `stages.rl.max_steps=2`" in page(results(THREE) | {"overrides": ["stages.rl.max_steps=2"]})


def test_one_seed_has_no_interval_over_seeds_and_unfinished_arms_are_left_out() -> None:
    table = rows(page(results([one for one in THREE if one["seed"] == 1], seeds=[1])))
    assert [cells[1] for cells in table] == ["`plain`", "`raw`"] and table[1][9] == "–"
    partly = [one for one in THREE if (one["run"], one["seed"]) != ("raw", 2)]
    with pytest.raises(ValueError, match="nothing to compare"):
        page(results(partly))


def test_a_comparison_of_all_spans_goes_by_their_iou() -> None:
    made = [run(name, 1, [0.5, 1.0]) for name in ("cold_several", "one_segment")]
    made.append(run("all_segments", 1, [1.0, 1.0]))
    every, first = (rows(page(results(made, seeds=[1])))[k : k + 2] for k in (0, 2))
    assert (every[1][4], every[1][6], first[1][4], first[1][6]) == ("0.500", "+0.125", "1.000", "+0.250")
    assert (every[1][2], first[1][2]) == ("–", "0.300")


def test_what_the_inverse_tasks_earned_is_told() -> None:
    made = [run(name, 1, [0.5, 0.5]) for name in ("cold_inverse", "inverse_off", "inverse_on")]
    assert "`verb_completion` 0.25 to 0.75" in page(results(made, seeds=[1]))


def test_arms_that_answered_other_queries_are_not_compared() -> None:
    with pytest.raises(ValueError, match="raw and plain of seed 1 answered other queries"):
        page(results([*THREE[:2], THREE[2] | {"ids": ["a", "b", "c", "d"]}], seeds=[1]))


def test_an_interval_over_videos_takes_queries_of_a_video_together() -> None:
    gain = np.array([0.1, 0.3] * 50)
    assert over_videos([gain], [[f"{k // 2}" for k in range(100)]]) == pytest.approx((0.2, 0.2))
    low, high = over_videos([gain], [[str(k) for k in range(100)]])
    assert 0.17 < low < 0.19 < 0.21 < high < 0.23


def test_an_interval_over_seeds_is_students() -> None:
    assert over_seeds([0.1]) is None
    assert over_seeds([0.1, 0.1, 0.1]) == pytest.approx((0.1, 0.1))
    assert over_seeds([0.0, 0.2]) == pytest.approx((0.1 - 1.2706, 0.1 + 1.2706), abs=1e-4)


# --- the command

SMALL = (
    "tiny.sft=4", "tiny.rl=4", "tiny.validation=1", "tiny.test=2", "stages.cold_start.max_steps=2",
    "stages.cold_start.per_device_train_batch_size=2", "stages.rl.max_steps=2",
    "stages.rl.per_device_train_batch_size=8", "evaluation.pictures=1",
)  # fmt: skip
ASK = ("--arms", "plain", "raw", "--seeds", "7")


def sweep(place: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "benchmarks.sweep", *ASK, *argv]
    environment = {**os.environ, "PYTHONPATH": str(root), "MPLCONFIGDIR": str(place / "mpl")}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_small_sweep_runs_and_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sweep(tmp_path, *SMALL)
    logs = "".join(log.read_text()[-2000:] for log in (tmp_path / "runs/sweep/7").glob("*.log"))
    assert first.returncode == 0, first.stdout + first.stderr + logs
    assert "4 of 4 runs to go" in first.stdout
    made = json.loads((tmp_path / "runs/sweep/results.json").read_text())
    assert [(one["run"], one["seed"], one["steps"], one["n"]) for one in made["runs"]] == [
        ("cold", 7, 2, 4), ("plain", 7, 2, 4), ("raw", 7, 2, 4),
    ]  # fmt: skip
    for one in made["runs"]:
        assert one["cpu_seconds"] > 1 and 0 <= one["mIoU_low"] <= one["mIoU"] <= one["mIoU_high"] <= 1
        assert float(np.mean(one["iou"])) == pytest.approx(one["mIoU"], abs=1e-5)
    table = (tmp_path / "runs/sweep/miniature.md").read_text()
    assert [cells[1] for cells in rows(table)] == ["`plain`", "`raw`"] and not (tmp_path / "docs").exists()

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/sweep/miniature.md").unlink()
    assert main([*ASK, *SMALL]) == 0 and "0 of 4 runs to go" in capsys.readouterr().out
    assert (tmp_path / "runs/sweep/miniature.md").read_text() == table
    with pytest.raises(RecipeError, match="plain was run with another stages; move runs/sweep away"):
        main([*ASK, *SMALL, "stages.rl.max_steps=3"])
    with (tmp_path / "runs/sweep/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main([*ASK, *SMALL]) == 2 and "a sweep is at work here" in capsys.readouterr().out
