"""Stages that choose their rows, and stages of several rounds, as a run goes through them: a real model and videos."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from rlvtg import completions
from rlvtg import run as running
from rlvtg.data.difficulty import read_difficulty
from rlvtg.data.sample import DataError
from rlvtg.evaluation.jobs import trained_on
from rlvtg.evaluation.page import page
from rlvtg.evaluation.predictions import read_predictions
from rlvtg.prepare import prepare
from rlvtg.recipe import RecipeError, load
from rlvtg.run import run
from tests.desk import KilledError

pytestmark = pytest.mark.slow  # whole training runs

SMALL = (
    "recipe=tiny", "tiny.folder=data/small", "tiny.sft=1", "tiny.rl=3", "tiny.validation=1", "tiny.test=1",
    "stages.cold_start=null", "stages.rl.per_device_train_batch_size=4", "stages.rl.num_generations=2",
    "stages.rl.max_steps=-1", "stages.rl.num_train_epochs=1", "stages.rl.max_completion_length=6", "report_to=[]",
    "stages.rl.rewards={mine.py:letters: {weight: 1.0}}", "evaluation.before=false", "evaluation.pictures=1",
    "evaluation.max_new_tokens=6", "save_steps=1", "logging_steps=1",
)  # fmt: skip
ROUNDS = (
    "stages.rl.difficulty={num_generations: 2}", "stages.rl.select=[{method: gaussian, size: 4}]",
    "stages.rl.reselect=[{method: gaussian, size: 2}]", "stages.rl.rounds=3",
)  # fmt: skip
OWN_REWARD = """\
def letters(completions, **_):
    return [sum(map(str.isalpha, completion[0]["content"])) / 10 for completion in completions]
"""


def go(place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Path:
    """Train in `place`; returns the folder of the run."""
    monkeypatch.chdir(place)
    Path("mine.py").write_text(OWN_REWARD)
    recipe = load([*SMALL, *words])
    assert run(recipe, prepare(recipe)) == 0
    return place / "runs/tiny"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def ids(file: Path) -> list[str]:
    return [json.loads(line)["id"] for line in file.read_text().splitlines()]


def trained(place: Path) -> set[str]:
    return set(pd.concat(pd.read_parquet(file) for file in (place / "completions").glob("*.parquet"))["id"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return go(tmp_path_factory.mktemp("whole"), patch, *ROUNDS)


def test_each_round_chooses_from_the_rows_of_the_round_before_and_trains_on_them(whole: Path) -> None:
    places = [whole / "rl" / f"round_{k}" for k in (1, 2, 3)]
    chosen = [ids(place / "selected.jsonl") for place in places]
    assert [len(names) for names in chosen] == [4, 2, 2]
    assert set(chosen[1]) < set(chosen[0]) and set(chosen[2]) == set(chosen[1])
    assert [trained(place) for place in places] == [set(names) for names in chosen]
    asked = [list(read_difficulty(str(place / "difficulty.jsonl"))) for place in places]
    assert len(asked[0]) == 6 and [set(names) for names in asked[1:]] == [set(names) for names in chosen[:2]]


def test_each_round_starts_from_the_weights_of_the_round_before(whole: Path) -> None:
    sources = [json.loads((whole / f"rl/round_{k}/difficulty/made_from.json").read_text()) for k in (1, 2, 3)]
    assert len({source["weights"] for source in sources}) == 3
    rates = [entry["learning_rate"] for entry in history(whole) if "learning_rate" in entry]
    # linear from the full rate: two steps of two rows, then one, then one
    assert rates == pytest.approx([6e-4, 3e-4, 6e-4, 6e-4])


def history(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "rl/log_history.json").read_text())["log"]


def test_a_stage_of_several_rounds_looks_like_one_stage_from_outside(whole: Path) -> None:
    assert [entry["step"] for entry in history(whole) if "loss" in entry] == [1, 2, 3, 4]
    assert [place.name for place in (whole / "evaluation").iterdir()] == ["rl"]
    assert len(read_predictions(whole / "evaluation/rl/predictions.jsonl")) == 2
    assert (whole / "rl/merged").is_dir()
    assert set(json.loads((whole / "metrics.json").read_text())) > {"rl"}
    assert "<td>rl</td><td>done</td>" in page(whole, worst=0).replace(' class="number"', "")
    assert trained_on(str(whole / "rl/round_1/merged")) == trained_on(str(whole / "rl/merged")) == "data/small/rl.json"
    assert completions.recipe_of(completions.find(whole / "rl/round_2")[0]) == whole / "recipe.yaml"
    with pytest.raises(DataError, match="several stages or rounds have completions; name one of .*round_1, .*round_2"):
        completions.find(whole)


def test_weights_that_nothing_starts_from_any_more_are_gone(whole: Path) -> None:
    left = {file.parent.relative_to(whole / "rl").as_posix() for file in whole.glob("rl/**/model.safetensors")}
    assert left == {"merged", "round_3/checkpoint-1"}


def test_a_killed_run_goes_on_with_the_round_that_it_was_in(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, begun = Trainer.train, []

    def killed(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        begun.append(Path(str(self.args.output_dir)).name)
        if begun == ["round_1", "round_2"]:
            raise KilledError
        return true(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "train", killed)
    with pytest.raises(KilledError):
        go(tmp_path, monkeypatch, *ROUNDS)
    folder = go(tmp_path, monkeypatch, *ROUNDS, "resume=true")
    assert begun == ["round_1", "round_2", "round_2", "round_3"]
    for name in ("difficulty.jsonl", "selected.jsonl"):
        for k in (1, 2, 3):
            assert (folder / f"rl/round_{k}/{name}").read_bytes() == (whole / f"rl/round_{k}/{name}").read_bytes()
    assert same(folder / "rl/merged", whole / "rl/merged")
    assert not list(folder.glob("rl/round_*/merged"))


def test_one_round_trains_on_what_it_selected_in_the_order_of_the_curriculum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN_REWARD)
    known = {"easier": "higher"}
    prepare(load([*SMALL, "output_dir=runs/first"]))
    names = [f"{video}#{k}" for video in json.loads(Path("data/small/rl.json").read_text()) for k in (0, 1)]
    lines = [known, *({"id": name, "ious": [k / 10]} for k, name in enumerate(names))]
    Path("hard.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = go(
        tmp_path, monkeypatch, "stages.rl.difficulty={file: hard.jsonl}", "stages.rl.curriculum={order: easy_first}",
        "stages.rl.select=[{method: window, high: 0.4}]", "output_dir=runs/tiny",
    )  # fmt: skip
    assert ids(folder / "rl/selected.jsonl") == names[1:5] and not (folder / "rl/difficulty.jsonl").exists()
    tables = [pd.read_parquet(file) for file in sorted((folder / "rl/completions").glob("*.parquet"))]
    assert [set(table["id"]) for table in tables] == [set(names[3:5]), set(names[1:3])]
    Path("hard.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:3]))
    monkeypatch.setattr(running, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(DataError, match="hard.jsonl: has no difficulty of 4 of 6 rows"):
        go(tmp_path, monkeypatch, "stages.rl.difficulty={file: hard.jsonl}", "output_dir=runs/third")


# --- what a recipe may get wrong

ASKS = "stages.rl.difficulty={num_generations: 1}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stages.rl.select=[{method: window}]"],
         "stages.rl.select: got window, which goes by IoUs, want stages.rl.difficulty too, e.g. {num_generations: 1}"),
        (["stages.rl.select=[{method: fits}]", "stages.rl.rounds=2", "stages.rl.reselect=[{method: window}]"],
         "stages.rl.reselect: got window, which goes by IoUs"),
        (["stages.rl.curriculum={order: easy_first}"],
         "stages.rl.curriculum: got easy_first, which goes by IoUs, want stages.rl.difficulty too"),
        ([ASKS, "stages.rl.curriculum={order: easy}"], "stages.rl.curriculum.order: got 'easy', nearest: easy_first"),
        (["stages.rl.curriculum={order: as_selected, parts: 2}"], "parts: got 2 with order as_selected, want null"),
        ([ASKS, "stages.rl.select=[{method: windows}]"], "stages.rl.select[0].method: got 'windows', nearest: window"),
        ([ASKS, "stages.rl.select=[{method: window}, {method: window, mean: 0.3}]"],
         "stages.rl.select[1].mean: got 0.3, which window does not take; it takes low, high, size"),
        ([ASKS, "stages.rl.select=[{method: gaussian}]"], "stages.rl.select[0].size: missing; gaussian draws"),
        ([ASKS, "stages.rl.select=[{method: window, low: 0.8}]"], "low: got 0.8 with high 0.7, want low below high"),
        ([ASKS, "stages.rl.select=[{method: gaussian, size: 2, std: 0}]"],
         "stages.rl.select[0].std: got 0, allowed: above 0"),
        ([ASKS, "stages.rl.select=[{method: weights, std_power: 1}]"],
         "stages.rl.difficulty.num_generations: got 1, of which there is no std"),
        ([ASKS, "stages.rl.select=window"], "stages.rl.select: got 'window', want a list of a mapping (method, size"),
        ([ASKS, "stages.rl.reselect=[{method: window}]"], "stages.rl.reselect: got a selection for the rounds after"),
        (["stages.rl.difficulty={file: none.jsonl}"], "stages.rl.difficulty.file: no file none.jsonl"),
        (["stages.rl.difficulty={format: time_r1}"], "stages.rl.difficulty.format: got time_r1 without a file"),
        (["stages.rl.difficulty={score: sets}"], "stages.rl.difficulty.score: got 'sets', nearest: set"),
        (["stages.rl.difficulty={num_generations: 0}"], "difficulty.num_generations: got 0, allowed: 1 or more"),
        (["stages.rl.rounds=0"], "stages.rl.rounds: got 0, allowed: 1 or more"),
        ([ASKS, "stages.rl.curriculum={order: easy_first}", "stages.rl.queries_per_video=2"],
         "stages.rl.queries_per_video: got 2 with a curriculum"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_selection_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load([*SMALL, *words])
    assert said in str(caught.value)


def test_a_scale_changes_a_selection_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "extends: tiny\nstages:\n  rl:\n    difficulty: {num_generations: 4, file: gone.jsonl, format: time_r1}\n"
        "    select: [{method: window}, {method: gaussian, size: 2500}]\n"
    )
    stage: Any = load(["recipe=mine.yaml", "scale=tiny"]).stages["rl"]
    assert stage.difficulty.num_generations == 4 and stage.difficulty.file is None
    assert [one.method for one in stage.select] == ["gaussian"] and stage.reselect is None
    plain: Any = load(["recipe=tiny", "scale=tiny"]).stages["rl"]
    assert plain.difficulty is None and plain.select == []


def test_too_few_rows_are_said_before_a_model_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN_REWARD)
    with pytest.raises(DataError, match=r"stages.rl.select\[0\]: fits leaves none of 6 rows"):
        prepare(load([*SMALL, "stages.rl.select=[{method: fits, min_duration: 400}]"]))
