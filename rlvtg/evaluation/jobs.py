"""What `rlvtg eval` is asked for: each of several models on each of several test sets. Nothing heavy loads here."""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvtg.data.row import rows
from rlvtg.data_check import PROBES, make_demo, usable_samples
from rlvtg.evaluation.protocol import chosen
from rlvtg.recipe import Recipe, RecipeError, evaluation_prompt, load, read_file
from rlvtg.text.grammar import grammar
from rlvtg.video.scan import read_probes, write_probes

_WORDS = ("model", "data", "output", "protocol")


@dataclass(frozen=True)
class Job:
    """One model on one test set.

    Args:
        recipe: with this `model` and this `evaluation.data`, and without stages.
        rows: the test rows.
        folder: of all jobs' output.
        trained_on: the annotation files of the stages that made the model, if its run's folder tells; else "".
    """

    recipe: Recipe
    rows: list[dict[str, Any]]
    folder: Path
    trained_on: str

    @property
    def model(self) -> str:
        """The model's folder or hub id, as it was given."""
        return self.recipe.model

    @property
    def data(self) -> str:
        """The test set's key in the recipe's data."""
        return self.recipe.evaluation.data

    @property
    def place(self) -> Path:
        """The folder of this evaluation."""
        return self.folder / _label(self.model) / self.data


def jobs(words: Sequence[str]) -> list[Job]:
    """The jobs that the words of a command ask for, model by model.

    Words: `recipe=`, `scale=` and overrides as for training, and `model=PATH,...` (folders of models or of PEFT
    adapters, or hub ids; default the recipe's model), `data=KEY,...` (of the recipe's data; default its
    `evaluation.data`), `protocol=NAME` and `output=DIR` (default evaluations/<recipe's name>).

    Raises RecipeError, GrammarError, ProtocolError or DataError for whatever is wrong, in one sentence.
    """
    asked = {key: text for key, equals, text in (word.partition("=") for word in words) if equals and key in _WORDS}
    others = [word for word in words if word.partition("=")[0] not in asked]
    if "protocol" in asked:
        others.append(f"evaluation.protocol={asked['protocol']}")
    models = [f"model={name}" for name in _names(asked, "model")]
    data = [f"evaluation.data={name}" for name in _names(asked, "data")]
    recipes = [
        load([*others, *words], stages=False)
        for words in itertools.product(*(several for several in (models, data) if several))
    ]
    first = recipes[0]
    grammar(first.grammar)
    chosen(first.evaluation)
    folder = Path(asked.get("output", f"evaluations/{first.name}"))
    keys = list(dict.fromkeys(recipe.evaluation.data for recipe in recipes))
    # the first process reads the files; the others get its rows in `evaluate_all`
    is_first = os.environ.get("RANK", "0") == "0"
    tests = _rows(first, keys, folder) if is_first else {key: [] for key in keys}
    return [Job(recipe, tests[recipe.evaluation.data], folder, trained_on(recipe.model)) for recipe in recipes]


def _rows(recipe: Recipe, keys: Sequence[str], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each test set; bad ones, and what the video files say of themselves, are listed in `folder`."""
    make_demo(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    probes = read_probes(folder / PROBES, again=True)
    tests = {}
    try:
        for key in keys:
            listed = folder / f"bad_rows.{key}.jsonl"
            samples = usable_samples(recipe, key, probes, listed, decode=recipe.decode_ahead)
            tests[key] = rows(samples, evaluation_prompt(recipe), recipe.system)
    finally:
        write_probes(folder / PROBES, probes)
    return tests


def trained_on(model: str) -> str:
    """The annotation files of the stages up to the one whose adapter/ or merged/ folder `model` is; "" if unknown."""
    path = Path(model).resolve()
    # RUN/STAGE/merged, or RUN/STAGE/round_1/merged of a stage of several rounds
    run = next((folder for folder in list(path.parents)[1:3] if (folder / "recipe.yaml").is_file()), None)
    if run is None:
        return ""
    tree, stage = read_file(run / "recipe.yaml"), path.relative_to(run).parts[0]
    stages, data = tree.get("stages") or {}, tree.get("data") or {}
    if stage not in stages:
        return ""
    before = list(stages)[: list(stages).index(stage) + 1]
    keys = [
        task.get("data") or stages[name]["data"]
        for name in before
        for task in (stages[name].get("tasks") or {"": {}}).values()
    ]
    files = [str(data[key]["annotations"]) for key in keys]
    return " + ".join(dict.fromkeys(files))


def _names(asked: Mapping[str, str], key: str) -> list[str]:
    if key not in asked:
        return []
    names = asked[key].split(",")
    if not all(names) or len(set(names)) < len(names):
        raise RecipeError(f"{key}: got {asked[key]!r}, want one name or several different ones with commas between")
    return names


def _label(model: str) -> str:
    """The model's path as the name of one folder."""
    return os.path.normpath(model).replace("..", "").strip("/").replace("/", "--")
