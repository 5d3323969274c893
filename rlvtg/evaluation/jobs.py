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
from rlvtg.recipe import Recipe, RecipeError, load, read_file
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
    writes = os.environ.get("RANK", "0") == "0"
    if writes:
        make_demo(first)
    probes = read_probes(folder / PROBES, again=writes)
    tests = {}
    for key in dict.fromkeys(recipe.evaluation.data for recipe in recipes):
        samples = usable_samples(first, key, probes, folder / f"bad_rows.{key}.jsonl" if writes else None)
        tests[key] = rows(samples, first.prompt, first.system)
    if writes:
        write_probes(folder / PROBES, probes)
    return [Job(recipe, tests[recipe.evaluation.data], folder, trained_on(recipe.model)) for recipe in recipes]


def trained_on(model: str) -> str:
    """The annotation files of the stages up to the one whose adapter/ or merged/ folder `model` is; "" if unknown."""
    path = Path(model).resolve()
    file, stage = path.parent.parent / "recipe.yaml", path.parent.name
    if not file.is_file():
        return ""
    tree = read_file(file)
    stages, data = tree.get("stages") or {}, tree.get("data") or {}
    if stage not in stages:
        return ""
    before = list(stages)[: list(stages).index(stage) + 1]
    files = [str(data[stages[name]["data"]]["annotations"]) for name in before]
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
