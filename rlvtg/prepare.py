"""What a run needs before torch loads: rewards bound, the demo's videos made, the run's folder, rows read and checked.

Whatever a recipe, a reward or an annotation file has wrong comes to light here, within seconds.
"""

import inspect
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from socket import gethostname
from typing import Any

from rlvtg import recipe as recipes
from rlvtg.data.check import Fault, check
from rlvtg.data.difficulty import of_rows, read_difficulty
from rlvtg.data.mix import epoch_length
from rlvtg.data.narration import narrate
from rlvtg.data.row import COLUMNS, rows
from rlvtg.data.sample import DataError, Sample
from rlvtg.data.selected import choose_for_round
from rlvtg.data_check import PROBES, cut, decoded, make_demo, segments, usable_samples
from rlvtg.disk import remove_unfinished, write_whole
from rlvtg.evaluation.protocol import chosen, metric_names
from rlvtg.recipe import (
    Expert,
    GrpoStage,
    Recipe,
    RecipeError,
    SftStage,
    Task,
    data_of,
    evaluation_prompt,
    prompts_per_rollout,
    tasks_of,
    validation_prompt,
)
from rlvtg.reward import Reward, bind, find
from rlvtg.reward import check as reward_parameters
from rlvtg.text.grammar import grammar
from rlvtg.text.verbs import Tagger
from rlvtg.text.verbs import tagger as tagger_named
from rlvtg.training.experts import expert_text
from rlvtg.video.scan import Probes, read_probes, write_probes
from rlvtg.video.worker import Probe

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
        rows_by_use = _read(recipe, folder, probes, first=True)
    finally:
        write_probes(folder / PROBES, probes)
    written = folder / "recipe.yaml"
    if not written.exists():
        write_whole(written, recipes.dump(replace(recipe, output_dir=str(folder))))
    return Prepared(folder, stage_rewards, *rows_by_use)


def follow(recipe: Recipe, folder: Path) -> Prepared:
    """The same for the other processes, once `prepare` has returned in the first one; nothing is written.

    What the first one has found the videos to be, and which segments of them cannot be decoded, is read from the
    folder, so that all go by the same.

    Raises:
        DataError: a video is not there, on this machine or any more, that was there for the first process.
    """
    probes = read_probes(folder / PROBES)
    good = [video for video, found in probes.items() if isinstance(found, Probe)]
    gone = [video for video in good if not os.path.isfile(video)]
    if gone:
        raise DataError(
            f"{len(gone)} of {len(good)} videos that the first process has read are not there on {gethostname()}, e.g. "
            f"{gone[0]}; every machine of a run needs all of them, under the same paths"
        )
    return Prepared(folder, _bind(recipe), *_read(recipe, folder, probes, first=False))


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


def _read(
    recipe: Recipe, folder: Path, probes: Probes, *, first: bool
) -> tuple[dict[str, Rows], dict[str, Rows], Rows]:
    """The rows of every stage, of its validation and of the evaluation. The first process lists the bad rows in
    `folder`.

    `probes` is what is known of the videos; it gets what is read now.
    """
    samples = {}
    # in the order of the recipe: the first thing that is wrong is the same every time
    for name in data_of(recipe):
        listed = folder / f"bad_rows.{name}.jsonl" if first else None
        samples[name] = usable_samples(recipe, name, probes, listed, decode=recipe.decode_ahead and first)
    stage_rows = {}
    for name, stage in recipe.stages.items():
        found: Rows = []
        for key, task in tasks_of(recipe, stage).items():
            path = f"stages.{name}" if key is None else f"stages.{name}.tasks.{key}"
            some = samples[str(task.data)]
            try:
                if isinstance(stage, GrpoStage) and key is not None:
                    if task.inverse is not None:
                        listed = folder / f"bad_rows.{name}.{key}.jsonl"
                        tagger = _tagger(stage, key)
                        some = _segments(recipe, path, task, some, probes, listed, tagger, first=first)
                    some = _of_task(some, key, task.inverse)
                completion = stage.completion if isinstance(stage, SftStage) else None
                supervised = isinstance(stage, SftStage)
                found += rows(some, str(task.prompt), recipe.system, completion, supervised=supervised)
            except DataError as error:
                raise DataError(f"{path}: {error}") from error
        if isinstance(stage, SftStage):
            found = narrate(found, share=stage.narrate, seed=recipe.seed)
        else:
            world_size = int(os.environ.get("WORLD_SIZE", "1"))
            _require_enough(name, stage, found, world_size)
            if stage.expert is not None:
                _require_experts(name, found, recipe.grammar, stage.expert)
            _try_selection(recipe, name, stage, found, world_size)
        stage_rows[name] = found
    validation_rows = {
        name: rows(samples[stage.early_stopping.data], validation_prompt(recipe, stage), recipe.system)
        for name, stage in recipe.stages.items()
        if stage.early_stopping is not None
    }
    tests = samples[recipe.evaluation.data]
    try:
        return stage_rows, validation_rows, rows(tests, evaluation_prompt(recipe), recipe.system)
    except DataError as error:
        raise DataError(f"evaluation.data: {error}") from error


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


def _of_task(samples: Sequence[Sample], key: str, inverse: str | None) -> list[Sample]:
    """Samples with the task's key, also in their ids, since tasks may share the rows of one file."""
    return [replace(sample, id=f"{sample.id.removesuffix(f'/{inverse}')}/{key}", task=key) for sample in samples]


def _require_enough(name: str, stage: GrpoStage, found: Rows, world_size: int) -> None:
    """TRL leaves out what does not fill a generation batch."""
    shares = {key: task.share for key, task in stage.tasks.items() if task.share is not None}
    count, source = len(found), f"data.{stage.data}"
    if shares:
        count = epoch_length(sum(row["task"] == next(iter(shares)) for row in found), shares)
    if stage.tasks:
        source = f"stages.{name}.tasks"
    needed = prompts_per_rollout(stage, world_size)
    if count < needed:
        raise DataError(
            f"{source}: got {count} rows{' an epoch' if shares else ''}, but stage {name} takes {needed} at once "
            "(per_device_train_batch_size / num_generations * steps_per_generation * devices)"
        )


def _tagger(stage: GrpoStage, key: str) -> Tagger | None:
    """The tagger of the first reward for the task that has one: a verb that it does not see cannot be rewarded."""
    for name, spec in stage.rewards.items():
        function = find(name)
        if "tagger" in reward_parameters(function).knobs and (spec.tasks is None or key in spec.tasks):
            return tagger_named(spec.args.get("tagger", inspect.signature(function).parameters["tagger"].default))
    return None


def _segments(
    recipe: Recipe,
    path: str,
    task: Task,
    samples: Sequence[Sample],
    probes: Probes,
    listed: Path,
    tagger: Tagger | None,
    *,
    first: bool,
) -> list[Sample]:
    """The samples of an inverse task. Those that cannot be decoded are bad rows; rows that give none are counted.

    Only the first process decodes, and lists both; the others read from `listed` what it has found.
    """
    made, left_out = segments(samples, str(task.inverse), recipe, probes, tagger)
    if not made:
        name, reason = left_out[0]
        raise DataError(f"none of {len(samples)} rows of data.{task.data} is one of {task.inverse}; {name}: {reason}")
    faults: Sequence[Fault | None]
    if first:
        errors = decoded(map(cut, made), recipe) if recipe.decode_ahead else {}
        found = [errors.get(cut(sample)) for sample in made]
        faults = [None if error is None else (error.kind, error.reason) for error in found]
        _tell(path, task, samples, left_out, listed.with_name(listed.name.replace("bad_rows", "left_out", 1)))
    else:
        known = _known_faults(listed)
        faults = [known.get(sample.id) for sample in made]
    return check(
        made,
        max_bad_fraction=recipe.max_bad_fraction,
        bad_rows_path=listed if first else None,
        file_faults=faults,
    )


def _tell(path: str, task: Task, samples: Sequence[Sample], left_out: Sequence[tuple[str, str]], listed: Path) -> None:
    lines = [json.dumps({"id": name, "reason": reason}, ensure_ascii=False) + "\n" for name, reason in left_out]
    write_whole(listed, "".join(lines))
    if left_out:
        reason, count = Counter(reason for _, reason in left_out).most_common(1)[0]
        print(f"{path}: {len(left_out)} of {len(samples)} rows of data.{task.data} are none of {task.inverse}, "
              f"{count} of them because {reason}; listed in {listed}")  # fmt: skip


def _known_faults(listed: Path) -> Mapping[str, Fault]:
    if not listed.is_file():
        return {}
    bad = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: (row["reason"], row["detail"]) for row in bad}
