"""A recipe's `select:` applied to the rows of a stage: one selection after the other, each on what is left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from rlvtg.data.difficulty import Reached, in_window
from rlvtg.data.query import is_about_sound
from rlvtg.data.sample import DataError, Sample
from rlvtg.data.selection import draw_by_duration, fits, gaussian_draw, rollout_weights, spaced, weighted_draw
from rlvtg.recipe import GrpoStage, Recipe, Selection, needs_difficulty, prompts_per_rollout

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Choice:
    """The rows that a stage trains on.

    Args:
        rows: in the order in which they were selected: that of the draw for `gaussian` and `weights`, else as before.
        reached: what the model's answers to each of them reached; None if nobody asked.
        probabilities: of each to be drawn first by the last draw, within its range of durations; None without a draw.
        said: how it came about, in one line.
    """

    rows: list[dict[str, Any]]
    reached: list[Reached] | None
    probabilities: list[float] | None
    said: str


def choose_for_round(
    recipe: Recipe,
    name: str,
    number: int,
    rows: Rows,
    ask: Callable[[Rows], list[Reached]],
    world_size: int,
) -> Choice:
    """What round `number`, counted from 1, of the GRPO stage `name` trains on, of the `rows` that it may choose from.

    `ask` as for `choose`; it is called if the round selects by IoUs, if the curriculum goes by them, and if the stage
    has `difficulty` and nothing in it goes by them, so that the file is written all the same.

    Raises DataError as `choose` does, and when fewer rows are left than `world_size` devices take at once.
    """
    stage = recipe.stages[name]
    if not isinstance(stage, GrpoStage):
        return Choice(list(rows), None, None, f"{len(rows)} rows")
    again = number > 1 and stage.reselect is not None
    selections = (stage.reselect or []) if again else stage.select
    is_sorted = stage.curriculum is not None and stage.curriculum.order != "as_selected"
    unused = stage.difficulty is not None and not needs_difficulty([*stage.select, *(stage.reselect or [])])
    where = f"stages.{name}.{'reselect' if again else 'select'}"
    choice = choose(rows, selections, ask, always=is_sorted or unused, seed=recipe.seed, where=where)
    needed = prompts_per_rollout(stage, world_size)
    if len(choice.rows) < needed:
        raise DataError(
            f"{where}: left {choice.said}, but stage {name} takes {needed} at once "
            "(per_device_train_batch_size / num_generations * steps_per_generation * devices)"
        )
    return choice


def choose(
    rows: Rows,
    selections: Sequence[Selection],
    ask: Callable[[Rows], list[Reached]],
    *,
    always: bool = False,
    seed: int = 42,
    where: str = "select",
) -> Choice:
    """What `selections` leave of `rows`. Rows are asked about when first needed: `fits` before that saves answers.

    Args:
        rows: rows with `id`, `duration`, `query` and `spans`.
        selections: as the recipe states them.
        ask: what a model's answers to rows reach, a `Reached` for each.
        always: ask about the rows even if no selection needs it.
        seed: of the draws; the same seed draws the same rows.
        where: what errors call the selections.

    Raises DataError when a selection leaves no row, and as the draws do.
    """
    kept, reached = list(rows), None
    probabilities: list[float] | None = None
    said, before = [], 0.0
    for k, selection in enumerate(selections):
        if reached is None and selection.method != "fits":
            reached = ask(kept)
            before = fmean(one.mean for one in reached)
        try:
            chosen, weights = _select(selection, kept, reached or [], seed)
        except DataError as error:
            raise DataError(f"{where}[{k}]: {selection.method}: {error}") from error
        if not chosen:
            raise DataError(f"{where}[{k}]: {_none_left(selection, kept, reached)}")
        wanted = selection.size
        short = wanted is not None and selection.method != "window" and len(chosen) < wanted
        said.append(f"{selection.method} {len(chosen)}" + (f" of {wanted} wanted" if short else ""))
        kept = [kept[row] for row in chosen]
        reached = None if reached is None else [reached[row] for row in chosen]
        if weights is not None:
            probabilities = [weights[row] for row in chosen]
        elif probabilities is not None:
            probabilities = [probabilities[row] for row in chosen]
    if reached is None and always:
        reached = ask(kept)
        before = fmean(one.mean for one in reached)
    words = f"{len(kept)} of {len(rows)} rows" + (f" ({', '.join(said)})" if said else "")
    if reached is not None:
        after = fmean(one.mean for one in reached)
        words += f"; mean IoU {before:.3f} before, {after:.3f} after" if said else f"; mean IoU {after:.3f}"
    return Choice(kept, reached, probabilities, words)


def _select(
    selection: Selection, rows: Rows, reached: Sequence[Reached], seed: int
) -> tuple[list[int], dict[int, float] | None]:
    """The chosen rows in order and, after a draw, the probability of each to be drawn first."""
    means = [one.mean for one in reached]
    if selection.method == "fits":
        knobs = _given(selection, "min_duration", "max_duration", "max_words")
        silent = selection.sound is False
        return [
            index
            for index, row in enumerate(rows)
            if fits(_sample(row), **knobs) and not (silent and is_about_sound(row["query"]))
        ], None
    if selection.method == "window":
        knobs = _given(selection, "low", "high")
        inside = [index for index, mean in enumerate(means) if in_window(mean, **knobs)]
        if selection.size is not None and len(inside) > selection.size:
            inside = [inside[k] for k in spaced([means[index] for index in inside], selection.size)]
        return inside, None
    if selection.method == "duration_gaussian":
        knobs = _given(selection, "mean", "std", "level_bins") | {"target": selection.size}
        draws = draw_by_duration(means, [row["duration"] for row in rows], **knobs, seed=seed)
        drawn = sorted(index for draw in draws for index in draw.drawn)
    else:
        if selection.method == "gaussian":
            draws = [gaussian_draw(means, selection.size or 0, **_given(selection, "mean", "std"), seed=seed)]
        else:
            knobs = _given(selection, "std_power", "mean_power")
            weights = rollout_weights([one.ious for one in reached], means, **knobs)
            draws = [weighted_draw(weights.tolist(), selection.size, seed=seed)]
        drawn = draws[0].drawn
    chances = [zip(draw.rows, draw.probabilities.tolist(), strict=True) for draw in draws]
    return drawn, {index: chance for pairs in chances for index, chance in pairs}


def _given(selection: Selection, *names: str) -> dict[str, Any]:
    """The parameters that the recipe states; the others keep the defaults of the paper's code."""
    return {name: getattr(selection, name) for name in names if getattr(selection, name) is not None}


def _sample(row: Mapping[str, Any]) -> Sample:
    spans = tuple((start, end) for start, end in row["spans"])
    return Sample(row["id"], row["video"], row["duration"], row["query"], spans)


def _none_left(selection: Selection, rows: Rows, reached: Sequence[Reached] | None) -> str:
    got = f"{selection.method} leaves none of {len(rows)} rows"
    if not reached:
        return got
    means = np.array([one.mean for one in reached])
    return f"{got}, whose IoUs are {means.min():.3f} to {means.max():.3f}, {means.mean():.3f} on average"
