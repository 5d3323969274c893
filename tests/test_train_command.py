"""The command of the README, as it is typed: a run's folder, what it prints, and what it says to nonsense."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLForConditionalGeneration

from rlvtg.evaluation.metrics import score
from rlvtg.evaluation.predictions import read_predictions
from rlvtg.evaluation.protocol import chosen
from rlvtg.recipe import Recipe, load
from tests import forks
from tests.numbered_video import every_tenth, write_video

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = str(ROOT / "rlvtg" / "train.py")
ACCELERATE = ("-m", "accelerate.commands.launch", "--num_processes", "1")
TWO_PROCESSES = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
# A reward that an untrained model gets some of, so that there is something to learn from the first step on.
OWN_REWARD = """\
def letters(completions, **_):
    return [sum(map(str.isalpha, completion[0]["content"])) / 10 for completion in completions]
"""
# The two other ways of naming a reward of one's own.
OTHER_REWARDS = 'stages.rl.rewards={own.rewards.letters_again: {weight: 0}, "own/rewards.py:seconds": {weight: 0}}'
OTHER_REWARDS_FILE = """\
def letters_again(completions, **_):
    return [sum(map(str.isalpha, completion[0]["content"])) / 10 for completion in completions]

def seconds(completions, duration, *, share=1.0, **_):
    return [share * length for length in duration]
"""
SMALL = (
    "tiny.folder=data/small", "tiny.sft=6", "tiny.rl=4", "tiny.validation=1", "tiny.test=3", "stages.rl.max_steps=2",
    "stages.cold_start.max_steps=3", "stages.cold_start.per_device_train_batch_size=4",
    "stages.cold_start.lora.r=4", "stages.rl.per_device_train_batch_size=16", "stages.rl.rewards.letters.weight=1.0",
    "logging_steps=1", "save_steps=1", "evaluation.pictures=2",
)  # fmt: skip


def environment(place: Path, **changes: str) -> dict[str, str]:
    paths = {
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(place / "hf"),
        "XDG_CACHE_HOME": str(place / "cache"),
        "MPLCONFIGDIR": str(place / "mpl"),
    }
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **paths, **changes}


@dataclass
class Done:
    """What a command left behind: its working directory, its output and the overrides that it was given."""

    place: Path
    out: str
    err: str
    argv: tuple[str, ...]

    def recipe(self) -> Recipe:
        """The recipe that the arguments ask for, read where the command was typed."""
        before = Path.cwd()
        os.chdir(self.place)
        try:
            return load(self.argv)
        finally:
            os.chdir(before)

    def table(self) -> dict[str, list[str]]:
        """The rows of the printed table by their first word."""
        [table] = [block for block in self.out.split("\n\n") if "95 % interval" in block]
        return {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:]}


def train(place: Path, *argv: str, launcher: tuple[str, ...] | None = None) -> Done:
    """Run the command to its end, which must be a good one: by a launcher, or in a process that has torch loaded."""
    (place / "rewards").mkdir(exist_ok=True)
    (place / "rewards" / "letters.py").write_text(OWN_REWARD)
    if launcher is None:
        forks.shared().start(place, *argv, environment=environment(place))
        status = forks.shared().status()
        out, err = ((place / name).read_text() for name in (forks.PRINTED, forks.SAID))
    else:
        command = [sys.executable, *launcher, SCRIPT, *argv]
        done = subprocess.run(command, cwd=place, env=environment(place), capture_output=True, text=True, timeout=900)
        status, out, err = done.returncode, done.stdout, done.stderr
    assert status == 0, err[-4000:]
    return Done(place, out, err, argv)


@pytest.fixture(scope="module")
def time_r1(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Both stages of a paper's recipe, two steps each."""
    place = tmp_path_factory.mktemp("time_r1")
    (place / "own").mkdir()
    (place / "own" / "rewards.py").write_text(OTHER_REWARDS_FILE)
    own = ("stages.rl.rewards.letters.weight=1.0", OTHER_REWARDS, "stages.rl.export=[adapter, merged]")
    one_round = ("stages.rl.rounds=1", "stages.rl.reselect=null")
    return train(place, "recipe=time_r1", "scale=tiny", *own, *one_round)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The demo, made small."""
    return train(tmp_path_factory.mktemp("tiny"), "recipe=tiny", *SMALL, launcher=ACCELERATE)


def scalars(stage: Path) -> dict[str, list[float]]:
    """What a stage wrote for TensorBoard, by name, in the order of its steps."""
    [folder] = {file.parent for file in stage.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed(before: Path, after: Path) -> list[str]:
    """The weights that differ between two model folders."""
    one, other = weights(before), weights(after)
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


# --- a recipe of another family


@pytest.mark.slow
def test_timelens_8b_runs_its_stages_on_a_tiny_qwen3_vl(tmp_path: Path) -> None:
    """SFT, the difficulty pass with the model from SFT, and GRPO, each after the parity checks of its own."""
    done = train(tmp_path, "recipe=timelens_8b", "scale=tiny", "stages.rl.rewards.letters.weight=1.0")
    run = tmp_path / "runs/timelens_8b"
    model = AutoModelForImageTextToText.from_pretrained(run / "rl/merged")
    assert model.config.model_type == "qwen3_vl"
    assert type(AutoProcessor.from_pretrained(run / "rl/merged")).__name__ == "Qwen3VLProcessor"
    folders = [tmp_path / "data/tiny_scale/model_qwen3_vl", run / "sft/merged", run / "rl/merged"]
    for before, after in zip(folders, folders[1:], strict=False):
        learned = {name.removeprefix("model.") for name in changed(before, after)}
        assert any(name.startswith("language_model") for name in learned)
        assert {name.split(".")[1] for name in learned if name.startswith("visual")} == {"merger"}
    asked = [json.loads(line) for line in (run / "rl/difficulty.jsonl").read_text().splitlines()]
    assert len(asked) >= 4
    assert len(scalars(run / "rl")["train/reward"]) == 2
    prompts = pd.concat(map(pd.read_parquet, (run / "rl").glob("completions/*.parquet")))["prompt"]
    assert len(prompts) and done.recipe().family == "qwen3_vl"
    assert set(done.table()) >= {"before", "sft", "rl"}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pixels"), [("qwen2_vl", 784), ("qwen3_vl", 1024)])
def test_the_demo_runs_with_a_model_of_another_family(tmp_path: Path, kind: str, pixels: int) -> None:
    sizes = (f"video.min_pixels={pixels}", f"video.max_pixels={pixels}")
    done = train(tmp_path, "recipe=tiny", f"family={kind}", *sizes, *SMALL)
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "runs/tiny/rl/merged").config.model_type == kind
    assert {"before", "cold_start", "rl"} <= done.table().keys()
    assert len(scalars(tmp_path / "runs/tiny/rl")["train/reward"]) == 2


# --- a paper's recipe


@pytest.mark.slow
def test_a_run_folder_holds_the_recipe_that_made_it(time_r1: Done) -> None:
    written = time_r1.place / "runs/time_r1/recipe.yaml"
    assert Done(time_r1.place, "", "", (f"recipe={written}",)).recipe() == time_r1.recipe()


@pytest.mark.slow
def test_a_stage_leaves_checkpoints_and_a_model_that_from_pretrained_loads(time_r1: Done) -> None:
    run = time_r1.place / "runs/time_r1"
    for stage in ("cold_start", "rl"):
        for step in (1, 2):
            assert (run / stage / f"checkpoint-{step}" / "adapter_model.safetensors").is_file()
            assert (run / stage / f"checkpoint-{step}" / "optimizer.pt").is_file()
        _, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(run / stage / "merged", output_loading_info=True)
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert AutoProcessor.from_pretrained(run / stage / "merged").tokenizer.eos_token == "<|im_end|>"
        assert (run / stage / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_each_stage_starts_where_the_one_before_it_ended_and_trains_what_its_recipe_says(time_r1: Done) -> None:
    run = time_r1.place / "runs/time_r1"
    folders = [time_r1.place / "data/tiny_scale/model", run / "cold_start/merged", run / "rl/merged"]
    for before, after in zip(folders, folders[1:], strict=False):
        by_lora = changed(before, after)
        assert by_lora and all("layers." in name and name.endswith("_proj.weight") for name in by_lora)
        assert not any(name.startswith("visual") for name in by_lora)


@pytest.mark.slow
def test_tensorboard_has_the_metrics_under_trls_names(time_r1: Done) -> None:
    sft = scalars(time_r1.place / "runs/time_r1/cold_start")
    assert len(sft["train/loss"]) == len(sft["train/mean_token_accuracy"]) == len(sft["train/grad_norm"]) == 2
    grpo = scalars(time_r1.place / "runs/time_r1/rl")
    names = (
        "loss", "reward", "reward_std", "frac_reward_zero_std", "rewards/timestamp_tiou/mean",
        "rewards/timestamp_tiou/std", "rewards/think_format/mean", "rewards/letters/mean", "kl", "entropy",
        "completions/mean_length", "completions/clipped_ratio", "completions/unparsed", "grad_norm", "learning_rate",
    )  # fmt: skip
    for name in names:
        assert len(grpo[f"train/{name}"]) == 2, name
    assert grpo["train/kl"][0] == pytest.approx(0, abs=1e-5)
    assert grpo["train/rewards/letters/mean"][0] > 0 and grpo["train/grad_norm"][0] > 0


@pytest.mark.slow
def test_completions_are_kept_with_true_and_predicted_spans(time_r1: Done) -> None:
    files = sorted((time_r1.place / "runs/time_r1/rl/completions").glob("*.parquet"))
    tables = [pd.read_parquet(file) for file in files]
    assert [set(table["step"]) for table in tables] == [{1}, {2}]
    lines = (time_r1.place / "data/tiny_scale/rl.jsonl").read_text().splitlines()
    annotated = {row["id"]: row for row in map(json.loads, lines)}
    for table in tables:
        assert len(table) == 8  # one group
        [name] = set(table["id"])
        assert [list(span) for span in table["spans"][0]] == annotated[name]["spans"]
        assert all(len(found) == 0 for found in table["predicted"])  # an untrained model writes no answer
        query = annotated[name]["query"]
        [prompt] = {messages[0]["content"] for messages in table["prompt"]}
        assert f'"{query}"' in prompt and prompt.endswith("<video>")
        assert {"completion", "timestamp_tiou", "think_format", "letters", "advantage"} <= set(table.columns)
        assert table["letters_again"].tolist() == table["letters"].tolist()
        assert set(table["seconds"]) == set(table["duration"]) == {annotated[name]["duration"]}
        written = [messages[0]["content"] for messages in table["completion"]]
        assert table["letters"].tolist() == pytest.approx([sum(map(str.isalpha, text)) / 10 for text in written])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "agrees"),
    [("timestamp_tiou", True), ("own/rewards.py:seconds", True), ("tiou", False)],  # tiou is no reward of the recipe
)
def test_a_reward_can_be_tried_on_a_run(time_r1: Done, name: str, agrees: bool) -> None:
    command = [sys.executable, "-m", "rlvtg.cli", "reward", name, "runs/time_r1", "--plot", "values.png"]
    done = subprocess.run(
        command, cwd=time_r1.place, env=environment(time_r1.place), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split("  ", 1) for line in done.stdout.split("\n\n")[-1].strip().split("\n"))
    assert found["rows"].strip() == "16" and found["groups"].strip().startswith("2, ")
    assert found.get("logged", "").strip() == ("16 of 16 agree with the column of the file" if agrees else "")
    assert (time_r1.place / "values.png").is_file()


@pytest.mark.slow
def test_metrics_can_be_scored_again_from_the_predictions(time_r1: Done) -> None:
    run = time_r1.place / "runs/time_r1"
    together = json.loads((run / "metrics.json").read_text())
    queries = json.loads((time_r1.place / "data/tiny_scale/test.json").read_text())
    for label in ("before", "cold_start", "rl"):
        predictions = read_predictions(run / "evaluation" / label / "predictions.jsonl")
        assert [one["id"] for one in predictions] == [
            f"{video}#{k}" for video, row in queries.items() for k in range(len(row["sentences"]))
        ]
        metrics = json.loads((run / "evaluation" / label / "metrics.json").read_text())
        assert metrics == together[label]
        rules = metrics.pop("protocol")
        assert metrics == score(predictions, chosen(time_r1.recipe().evaluation))
        video = time_r1.recipe().video
        assert (rules["name"], rules["grammar"], rules["strict"], rules["failures"]) == ("rlvtg", "to", False, "zero")
        assert (rules["prompt"], rules["system"]) == (time_r1.recipe().prompt, None)
        assert (rules["fps"], rules["max_frames"], rules["max_pixels"]) == (1.0, 16, video.max_pixels)


def rlvtg(place: Path, *argv: str) -> str:
    """What the console script prints on its way to a good end."""
    command = [sys.executable, "-m", "rlvtg.cli", *argv]
    done = subprocess.run(command, cwd=place, env=environment(place), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_exported_models_get_the_numbers_that_the_run_wrote_and_one_table_of_all_test_sets(time_r1: Done) -> None:
    words = ["model=runs/time_r1/rl/adapter,runs/time_r1/rl/merged", "data=test,validation", "output=measured"]
    out = rlvtg(time_r1.place, "eval", "recipe=runs/time_r1/recipe.yaml", *words)
    made = time_r1.place / "measured"
    kept = time_r1.place / "runs/time_r1/evaluation/rl"
    wrote = json.loads((kept / "metrics.json").read_text())
    for form in ("adapter", "merged"):
        place = made / f"runs--time_r1--rl--{form}"
        assert (place / "test/predictions.jsonl").read_text() == (kept / "predictions.jsonl").read_text()
        metrics = json.loads((place / "test/metrics.json").read_text())
        assert metrics | {"protocol": None} == wrote | {"protocol": None}
        named = {"model", "weights"} if form == "merged" else {"model"}
        differ = {key for key, value in metrics["protocol"].items() if value != wrote["protocol"][key]}
        assert named <= differ <= {"model", "weights"}
        assert len(read_predictions(place / "validation/predictions.jsonl")) == 4
    sets = json.loads((made / "cross.json").read_text())["evaluations"]
    assert [(one["model"].rpartition("/")[2], one["test"], one["n"]) for one in sets] == [
        ("adapter", "test", 4), ("adapter", "validation", 4), ("merged", "test", 4), ("merged", "validation", 4),
    ]  # fmt: skip
    assert {one["trained_on"] for one in sets} == {"data/tiny_scale/sft.json + data/tiny_scale/rl.jsonl"}
    table = (made / "cross.md").read_text()
    assert "test: mIoU" in table and "validation: mIoU" in table and table.count("| runs/time_r1/rl/") == 2
    assert "validation: mIoU" in out and "runs/time_r1/rl/adapter" in out
    again = rlvtg(
        time_r1.place, "eval", "--predictions", "runs/time_r1/evaluation/rl/predictions.jsonl", "--output", "again.json"
    )
    assert f"{wrote['mIoU']:.3f}" in again
    rescored = json.loads((time_r1.place / "again.json").read_text())["rlvtg"]
    assert rescored["protocol"].pop("predictions").endswith("predictions.jsonl")
    assert rescored == wrote


@pytest.mark.slow
def test_an_evaluation_looks_again_when_asked(time_r1: Done) -> None:
    words = ["model=runs/time_r1/rl/merged", "data=test", "output=zoomed", "--zoom", "2"]
    rlvtg(time_r1.place, "eval", "recipe=runs/time_r1/recipe.yaml", *words)
    place = time_r1.place / "zoomed/runs--time_r1--rl--merged/test"
    assert json.loads((place / "metrics.json").read_text())["protocol"]["zoom"]["passes"] == 2
    assert all(one["passes"] for one in map(json.loads, (place / "predictions.jsonl").read_text().splitlines()))


@pytest.mark.slow
def test_an_evaluation_that_is_killed_goes_on_and_writes_the_same_predictions(tiny: Done) -> None:
    words = ["recipe=runs/tiny/recipe.yaml", "model=runs/tiny/rl/merged", "data=cold_start"]
    words += ["evaluation.batch_size=1", "evaluation.max_new_tokens=100", "tiny.folder=data/small"]
    rlvtg(tiny.place, "eval", *words, "output=whole", "--zoom", "1")  # once: about the whole video, as without
    command = [sys.executable, "-m", "rlvtg.cli", "eval", *words, "output=killed"]
    killed, whole = (tiny.place / name / "runs--tiny--rl--merged/cold_start" for name in ("killed", "whole"))
    child = subprocess.Popen(command, cwd=tiny.place, env=environment(tiny.place), stderr=subprocess.DEVNULL)
    part = killed / "predictions.0.jsonl"
    while child.poll() is None and not (part.exists() and part.read_bytes().count(b"\n") >= 2):
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    kept = part.read_bytes().count(b"\n")
    assert 2 <= kept < 12 and not (killed / "predictions.jsonl").exists()
    rlvtg(tiny.place, "eval", *words, "output=killed")
    for name in ("predictions.jsonl", "metrics.json", "made_from.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(file.name for file in killed.iterdir()) == ["made_from.json", "metrics.json", "predictions.jsonl"]


@pytest.mark.slow
def test_a_run_is_reported_on_one_page(tiny: Done) -> None:
    target = tiny.place / "page.html"
    assert rlvtg(tiny.place, "report", "runs/tiny", "--worst", "1", "--output", str(target)) == f"{target}\n"
    page = target.read_text()
    for title in ("Stages", "Metrics", "Learning curves", "Answers from the best to the worst", "Worst answers"):
        assert f"<h2>{title}</h2>" in page
    # curves, histogram, the two filmstrips that the run drew, the worst answer's
    assert page.count("data:image/png;base64,") == 5 and "No filmstrip" not in page


@pytest.mark.slow
def test_the_pictures_can_be_looked_at(time_r1: Done) -> None:
    pictures = time_r1.place / "runs/time_r1/pictures"
    names = {"learning_curves.png", "filmstrip_1.png", "filmstrip_2.png"}
    assert {file.name for file in pictures.iterdir()} == names
    for name in names:
        with Image.open(pictures / name) as picture:
            picture.load()
            assert min(picture.size) > 200
            assert len(picture.convert("L").resize((64, 64)).getcolors()) > 8


# --- the demo


@pytest.mark.slow
def test_the_demo_prints_its_evaluations_the_best_constant_answer_and_what_to_do_next(tiny: Done) -> None:
    rows = tiny.table()
    assert list(rows) == ["before", "cold_start", "rl", "always"]
    metrics = json.loads((tiny.place / "runs/tiny/metrics.json").read_text())
    for label, numbers in metrics.items():
        assert f"{numbers['mIoU']:.3f}" in rows[label.split()[0]]
    assert metrics[next(label for label in metrics if label.startswith("always"))]["mIoU"] > 0
    assert "run folder: runs/tiny (" in tiny.out
    assert "tensorboard --logdir runs/tiny" in tiny.out
    assert "recipe=runs/tiny/recipe.yaml" in tiny.out
    assert "ls runs/tiny/rl/merged" in tiny.out


@pytest.mark.slow
def test_every_long_step_shows_how_far_it_is(tiny: Done) -> None:
    for title in ("making sft videos", "making test videos", "training (cold_start)", "training (rl)"):
        assert title in tiny.err
    for label in ("before", "cold_start", "rl"):
        assert f"evaluating ({label})" in tiny.err


@pytest.mark.slow
def test_a_lora_stage_exports_its_adapter_and_what_the_next_stage_starts_from(tiny: Done) -> None:
    run = tiny.place / "runs/tiny"
    adapter = json.loads((run / "cold_start/adapter/adapter_config.json").read_text())
    assert (adapter["r"], adapter["base_model_name_or_path"]) == (4, "data/small/model")
    assert changed(tiny.place / "data/small/model", run / "cold_start/merged")
    assert changed(run / "cold_start/merged", run / "rl/merged")
    assert not (run / "rl/adapter").exists()


@pytest.mark.slow
def test_a_second_run_overwrites_nothing_and_logs_to_wandb_when_asked(tiny: Done) -> None:
    def files() -> dict[str, int]:
        return {str(file): file.stat().st_mtime_ns for file in (tiny.place / "runs/tiny").rglob("*")}

    before = files()
    again = train(tiny.place, "recipe=tiny", *SMALL, "report_to=[wandb]", launcher=ACCELERATE)
    assert "run folder: runs/tiny-2 (" in again.out
    assert files() == before
    assert not list((tiny.place / "runs/tiny-2").rglob("events.out.tfevents.*"))
    # the same command gives the same model
    assert changed(tiny.place / "runs/tiny/rl/merged", tiny.place / "runs/tiny-2/rl/merged") == []
    logs = [file.read_bytes() for file in sorted((tiny.place / "wandb").glob("offline-run-*/run-*.wandb"))]
    assert [b"train/loss" in log for log in logs] == [True, True]  # one run for each stage
    assert sorted(b"train/reward" in log and b"train/rewards/tiou/mean" in log for log in logs) == [False, True]
    tables = list((tiny.place / "wandb").glob("offline-run-*/files/media/table/*.json"))
    table = json.loads(tables[0].read_text())
    assert {"prompt", "completion", "spans", "predicted", "tiou"} <= set(table["columns"])


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "last_step"), [("cold_start", 3), ("rl", 2)])
def test_an_interrupted_run_is_resumed_and_ends_where_it_would_have_ended(
    tiny: Done, tmp_path: Path, stage: str, last_step: int
) -> None:
    for folder in ("runs", "data"):
        shutil.copytree(tiny.place / folder, tmp_path / folder)
    run, whole = tmp_path / "runs/tiny", tiny.place / "runs/tiny"
    gone = [run / stage / f"checkpoint-{last_step}", run / stage / "merged", run / "evaluation" / stage]
    if stage == "cold_start":
        gone += [run / "rl", run / "evaluation/rl"]
    for folder in gone:
        shutil.rmtree(folder)
    (run / stage / "done.json").unlink()
    resumed = train(tmp_path, "recipe=runs/tiny/recipe.yaml", "resume=true")
    assert ("training (cold_start)" in resumed.err) == ("evaluating (cold_start)" in resumed.err) == (stage != "rl")
    assert "training (rl)" in resumed.err and "evaluating (before)" not in resumed.err
    assert changed(whole / "rl/merged", run / "rl/merged") == []
    assert resumed.table() == tiny.table()
    losses = [
        [
            entry["loss"]
            for entry in json.loads((folder / stage / "log_history.json").read_text())["log"]
            if "loss" in entry
        ]
        for folder in (run, whole)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == last_step


@pytest.mark.slow
def test_two_processes_share_the_work_and_one_writes(tiny: Done, tmp_path: Path) -> None:
    sizes = ["stages.cold_start.per_device_train_batch_size=2", "stages.rl.per_device_train_batch_size=8"]
    both = train(tmp_path, "recipe=tiny", *SMALL, *sizes, launcher=TWO_PROCESSES)
    assert both.out.count("run folder: runs/tiny (") == 1
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["tiny"]
    for label in ("before", "cold_start", "rl"):
        ours, alone = (
            read_predictions(place / f"runs/tiny/evaluation/{label}/predictions.jsonl")
            for place in (tmp_path, tiny.place)
        )
        assert [one["id"] for one in ours] == [one["id"] for one in alone]
    assert (tmp_path / "data/small/made_from.json").read_bytes() == (
        tiny.place / "data/small/made_from.json"
    ).read_bytes()
    for file in sorted((tmp_path / "runs/tiny/rl/completions").glob("*.parquet")):
        table = pd.read_parquet(file)
        assert table.groupby("id").size().tolist() == [8, 8]  # a whole group from each process


# --- what a user may get wrong


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with rows for Time-R1's recipe, and a torch that cannot be imported."""
    place = tmp_path_factory.mktemp("desk")
    (place / "no_torch").mkdir()
    (place / "no_torch" / "torch.py").write_text('raise RuntimeError("torch was loaded")\n')
    (place / "videos").mkdir()
    write_video(place / "videos" / "a.mp4", every_tenth(100))
    rows: list[dict[str, Any]] = [
        {"id": str(k), "video": "a.mp4", "duration": 10.0, "query": "a dog", "spans": [[1.0, 3.0]]} for k in range(3)
    ]
    (place / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows[1]["video"] = "gone.mp4"
    (place / "gone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "broken.jsonl").write_text('{"id": "0", "video"\n')
    (place / "mine.yaml").write_text(
        "extends: time_r1\n"
        "data:\n"
        + "".join(
            f"  {name}: {{reader: jsonl, annotations: good.jsonl, videos: videos}}\n"
            for name in ("cold_start", "rl", "test")
        )
        + "stages: {rl: {rounds: 1, difficulty: null, select: [], reselect: null}}\n"
    )
    return place


def refused(place: Path, *argv: str, **changes: str) -> str:
    """What the command says when it refuses: one line, status 2, at once."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime  # not by the clock, which other jobs slow down
    done = subprocess.run(
        [sys.executable, SCRIPT, *argv], cwd=place, env=environment(place, **changes), capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 5
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("seeed=1", ["seeed: unknown key", "nearest: seed"]),
        ("stages.rl.num_generation=8", ["stages.rl.num_generation: unknown key", "nearest: num_generations"]),
        ("stages.rl.learning_rate=fast", ["stages.rl.learning_rate: got 'fast', want a number"]),
        ("use_cpu=1", ["use_cpu: got 1, want true or false"]),
        ("recipe=time_r2", ["recipe: got 'time_r2', nearest: time_r1"]),
        ("scale=tinny", ["scale: got 'tinny', nearest: tiny"]),
        ("recipe=none.yaml", ["no file none.yaml"]),
        ("data.rl.annotations=none.jsonl", ["data.rl.annotations: no file none.jsonl"]),
        ("data.rl.videos=none", ["data.rl.videos: no folder none"]),
        ("data.rl.annotations=gone.jsonl", ["data.rl: 1 of 3 rows are bad (1 missing video)", "videos/gone.mp4"]),
        ("data.rl.annotations=broken.jsonl", ["data.rl: broken.jsonl, line 1: not JSON"]),
        ("data.rl.reader=charade_sta", ["data.rl.reader: got 'charade_sta', nearest: charades_sta"]),
        ("stages.rl.per_device_train_batch_size=12", ["got 12 with num_generations 8", "allowed 8, 16, 24 ..."]),
        ("stages.rl.per_device_train_batch_size=32", ["data.rl: got 3 rows, but stage rl takes 4 at once"]),
        ("stages.rl.rewards.timestamp_iou.weight=1", ["no reward is called 'timestamp_iou'", "'timestamp_tiou'"]),
        ("stages.rl.rewards.timestamp_tiou.args.clam=true", ["has no knob 'clam'", "did you mean 'clamp'"]),
        ('stages.rl.rewards={"own/mine.py:fn": {weight: 1}}', ["there is no file 'own/mine.py'"]),
        ("stages.cold_start.completion=null", ["stages.cold_start: row '0' has no completion"]),
        ("grammar=from_to", ["no grammar is called 'from_to'", "did you mean 'to'"]),
        ("model=runs/none/rl/merged", ["model: no folder runs/none/rl/merged"]),
        ("prompt={video} when is {qeury}", ["prompt: unknown placeholder {qeury}", "nearest: query"]),
        ("seed", ["got 'seed', want key=value"]),
    ],
)
def test_a_mistake_is_one_sentence_and_torch_is_not_loaded(desk: Path, argv: str, said: list[str]) -> None:
    given = [argv] if argv.startswith("recipe=") else ["recipe=mine.yaml", argv]
    line = refused(desk, *given, PYTHONPATH=f"{desk / 'no_torch'}{os.pathsep}{ROOT}")
    for part in said:
        assert part in line
    assert not list(desk.rglob("recipe.yaml"))  # nothing is taken for a run


def test_a_video_that_is_missing_from_the_demos_data_is_named(tmp_path: Path) -> None:
    from rlvtg.data.tiny import make

    make(tmp_path / "data/small", {"sft": 6, "rl": 4, "validation": 1, "test": 3})
    (tmp_path / "data/small/videos/rl/rl_00002.mp4").unlink()
    line = refused(tmp_path, "recipe=tiny", *SMALL[:5], "tiny.seed=0")
    assert "data/small/videos/rl/rl_00002.mp4" in line and "missing video" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("stages.cold_start.freeze=[visual.block]", "freeze: the model has no part 'visual.block'; parts are visual."),
        ("model=other", "model: type 'llama' is not supported; supported are qwen2_vl, qwen2_5_vl, qwen3_vl"),
    ],
)
def test_what_only_the_model_can_tell_is_one_sentence_too(tmp_path: Path, argv: str, said: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama"}')
    sizes = ["tiny.folder=data/small", "tiny.sft=1", "tiny.rl=1", "tiny.validation=1", "tiny.test=1"]
    command = [sys.executable, SCRIPT, "recipe=time_r1", "scale=tiny", *sizes, "evaluation.before=false", argv]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {said}")
    assert "Traceback" not in done.stderr
