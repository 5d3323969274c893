"""What a run needs before torch loads: rewards bound, the demo's videos made, the run's folder, rows read and checked.

Whatever a recipe, a reward or an annotation file has wrong comes to light here, within seconds.
"""

import os
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rlvtg import recipe as recipes
from rlvtg.data.difficulty import of_rows, read_difficulty
from rlvtg.data.narration import narrate
from rlvtg.data.row import COLUMNS, rows
from rlvtg.data.sample import DataError, Sample
from rlvtg.data.selected import choose_for_round
from rlvtg.data_check import PROBES, make_demo, usable_samples
from rlvtg.disk import remove_unfinished, write_whole
from rlvtg.evaluation.protocol import chosen, metric_names
from rlvtg.recipe import Expert, GrpoStage, Recipe, RecipeError, SftStage, data_used, prompts_per_rollout
from rlvtg.reward import Reward, bind
from rlvtg.text.grammar import grammar
from rlvtg.training.experts import expert_text
from rlvtg.video.scan import Probes, read_probes, write_probes

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Prepared:
    """What a recipe needs before a model loads: the folder of its run, and rows and rewards by stage.

    `validation_rows` has the stages that may stop early.
    """

    folder: Path
    stage_rewards: dict[str, list[Reward]]
    stage_rows: dict[str, Rows]
    validation_rows: dict[str, Rows]
    test_rows: Rows


def prepare(recipe: Recipe) -> Prepared:
    """Everything that one process of a run does for all: make the demo's data, open the folder, list the bad rows.

    The folder is `output_dir`, or, unless the run is resumed, `output_dir` with a number behind it when that one is
    taken. It is taken by its recipe.yaml, which is written when nothing was found wrong.

    Raises:
        RecipeError, RewardError, GrammarError, ProtocolError, DataError: whatever is wrong, in one sentence.
    """
    stage_rewards = _bind(recipe)
    make_demo(recipe)
    folder = _free_folder(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    # a resumed run reads the videos again that have changed since
    probes = read_probes(folder / PROBES, again=True)
    try:
        rows_by_use = _read(recipe, folder, probes)
    finally:
        write_probes(folder / PROBES, probes)
    written = folder / "recipe.yaml"
    if not written.exists():
        write_whole(written, recipes.dump(replace(recipe, output_dir=str(folder))))
    return Prepared(folder, stage_rewards, *rows_by_use)


def follow(recipe: Recipe, folder: Path) -> Prepared:
    """The same for the other processes, once `prepare` has returned in the first one; nothing is written.

    What the first one has found the videos to be is read from the folder, so that all go by the same.
    """
    return Prepared(folder, _bind(recipe), *_read(recipe, None, read_probes(folder / PROBES)))


def _bind(recipe: Recipe) -> dict[str, list[Reward]]:
    """The rewards of the GRPO stages; what the recipe names besides them is there too."""
    grammar(recipe.grammar)
    known = metric_names(chosen(recipe.evaluation))
    for name, stage in recipe.stages.items():
        if stage.early_stopping is not None and stage.early_stopping.metric not in known:
            got = stage.early_stopping.metric
            nearest = get_close_matches(got, known, n=1, cutoff=0.0)[0]
            raise RecipeError(
                f"stages.{name}.early_stopping.metric: got {got!r}, nearest: {nearest} (allowed: {', '.join(known)})"
            )
    return {
        name: bind(stage.rewards, COLUMNS, grammar=recipe.grammar)
        for name, stage in recipe.stages.items()
        if isinstance(stage, GrpoStage)
    }


def _free_folder(recipe: Recipe) -> Path:
    wanted = Path(recipe.output_dir)
    folder, number = wanted, 1
    while not recipe.resume and (folder / "recipe.yaml").exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    if (folder / "recipe.yaml").exists():
        _require_same_recipe(folder / "recipe.yaml", recipe)
    return folder


def _require_same_recipe(written: Path, recipe: Recipe) -> None:
    """A run is resumed with the recipe that it was started with."""
    before = recipes.load([f"recipe={written}", "resume=true"])
    changed = [key for key, value in vars(recipe).items() if value != getattr(before, key)]
    if changed:
        raise RecipeError(
            f"{written} was written with another {', '.join(changed)}; resume with that recipe (recipe={written} "
            "resume=true), or start a new run without resume"
        )


def _read(recipe: Recipe, folder: Path | None, probes: Probes) -> tuple[dict[str, Rows], dict[str, Rows], Rows]:
    """The rows of every stage, of its validation and of the evaluation. Bad rows are listed in `folder`, if given.

    `probes` is what is known of the videos; it gets what is read now.
    """
    used = {name for _, name in data_used(recipe)}
    # in the order of the recipe: the first thing that is wrong is the same every time
    samples = {}
    for name in [name for name in recipe.data if name in used]:
        listed = None if folder is None else folder / f"bad_rows.{name}.jsonl"
        samples[name] = usable_samples(recipe, name, probes, listed, decode=recipe.decode_ahead and folder is not None)
    stage_rows = {}
    for name, stage in recipe.stages.items():
        if isinstance(stage, SftStage):
            found = _supervised(recipe, name, stage, samples[stage.data])
            found = narrate(found, share=stage.narrate, seed=recipe.seed)
        else:
            found = rows(samples[stage.data], recipe.prompt, recipe.system)
            world_size = int(os.environ.get("WORLD_SIZE", "1"))
            needed = prompts_per_rollout(stage, world_size)
            if len(found) < needed:
                raise DataError(
                    f"data.{stage.data}: got {len(found)} rows, but stage {name} takes {needed} at once "
                    "(per_device_train_batch_size / num_generations * steps_per_generation * devices)"
                )
            if stage.expert is not None:
                _require_experts(name, found, recipe.grammar, stage.expert)
            _try_selection(recipe, name, stage, found, world_size)
        stage_rows[name] = found
    validation_rows = {
        name: rows(samples[stage.early_stopping.data], recipe.prompt, recipe.system)
        for name, stage in recipe.stages.items()
        if stage.early_stopping is not None
    }
    return stage_rows, validation_rows, rows(samples[recipe.evaluation.data], recipe.prompt, recipe.system)


def _require_experts(name: str, found: Rows, grammar_name: str, expert: Expert) -> None:
    for row in found:
        try:
            expert_text(row, grammar_name, expert)
        except ValueError as error:
            raise DataError(f"stages.{name}.expert: {error}") from error


def _try_selection(recipe: Recipe, name: str, stage: GrpoStage, found: Rows, world_size: int) -> None:
    """Select the stage's first rows where that takes no model, to hear of what is wrong before one loads."""
    difficulty = stage.difficulty
    if difficulty is None:
        choose_for_round(recipe, name, 1, found, lambda rows: [], world_size)
    elif difficulty.file is not None:
        file, known = difficulty.file, read_difficulty(difficulty.file, difficulty.format)
        choose_for_round(recipe, name, 1, found, lambda rows: of_rows(known, rows, file), world_size)


def _supervised(recipe: Recipe, name: str, stage: SftStage, samples: list[Sample]) -> Rows:
    try:
        return rows(samples, recipe.prompt, recipe.system, stage.completion, supervised=True)
    except DataError as error:
        raise DataError(f"stages.{name}: {error}") from error
