"""Tries a reward on logged completions, so that what it pays for is seen before anything is trained with it.

The reward is bound and called as in training: by name, with completions as messages, its knobs and tasks as the run's
recipe has them (the command's own knobs win), and with the columns of the data that were logged.
"""

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlvtg import completions
from rlvtg.data.sample import DataError
from rlvtg.recipe import RewardSpec, read_file
from rlvtg.reward import LOGGED, Reward, RewardError, bind, check, logged_name
from rlvtg.text.grammar import grammar as grammar_named

# What TRL passes to a reward and a log does not hold.
_ONLY_IN_TRAINING = ("completion_ids", "trainer_state")
# Logged rewards are float32.
_EQUAL = 1e-6
_WIDTH = 80


@dataclass(frozen=True)
class Trial:
    """A reward's values on logged rows.

    Args:
        name: of the reward in a log.
        source: what was read, in words.
        settings: the knobs that were set, by the run's recipe or the caller, and the tasks, in words.
        rows: the rows as they were logged, without the reward's own column.
        values: one per row; None = does not apply.
        logged: the reward's own column, if the rows have one.
        unparsed: share of the rows with a value in whose completion no span was found; None without a grammar.
        extras: columns that the reward logged with `log_extra`.
        metrics: means of what it logged with `log_metric`.
    """

    name: str
    source: str
    settings: str
    rows: list[dict[str, Any]]
    values: list[float | None]
    logged: list[Any] | None
    unparsed: float | None
    extras: dict[str, list[Any]]
    metrics: dict[str, float]


def score(key: str, path: str | Path, knobs: Mapping[str, Any]) -> Trial:
    """Score all completions below `path` (see `rlvtg.completions.find`) in one call of the reward `key`.

    Raises RewardError, GrammarError, AnnotationError or DataError for what is wrong with reward, knobs or file. What
    the reward's own code raises passes through.
    """
    files = completions.find(path)
    rows = completions.read(files)
    name = logged_name(key)
    logged = [row.pop(name) for row in rows] if name in rows[0] else None
    columns = [column for column in rows[0] if column not in LOGGED]
    grammar, spec = _of_run(key, files[0])
    spec.args = {**spec.args, **knobs}
    [reward] = bind({key: spec}, columns, grammar=grammar)
    given = {column: [row[column] for row in rows] for column in columns}
    given["completions"] = [[{"role": "assistant", "content": row["completion"]}] for row in rows]
    if "prompt" in rows[0]:
        given["prompts"] = [row["prompt"] for row in rows]
    _check_provided(key, reward, given)
    extras: dict[str, list[Any]] = {}
    metrics: dict[str, list[float]] = {}
    returned = reward(
        **given,
        log_extra=lambda column, values: extras.setdefault(column, []).extend(values),
        log_metric=lambda metric, value: metrics.setdefault(metric, []).append(float(value)),
    )
    values = asyncio.run(returned) if inspect.iscoroutine(returned) else returned
    for column, logs in extras.items():
        if len(logs) != len(rows):
            raise RewardError(f"reward {name} logged {len(logs)} values of {column!r} for {len(rows)} completions")
    used = dict(spec.args)
    unparsed = None
    if "grammar" in check(reward).knobs:
        used.setdefault("grammar", grammar or inspect.signature(reward).parameters["grammar"].default)
        parse = grammar_named(used["grammar"]).parse
        found = [parse(row["completion"], row.get("duration")) for row, value in zip(rows, values, strict=True)
                 if value is not None]  # fmt: skip
        unparsed = sum(not spans for spans in found) / len(found) if found else None
    return Trial(
        name=name,
        source=str(path) if len(files) == 1 else f"{path} ({len(files)} files)",
        settings=_settings(used, spec.tasks),
        rows=rows,
        values=values,
        logged=logged,
        unparsed=unparsed,
        extras=extras,
        metrics={metric: sum(found) / len(found) for metric, found in metrics.items()},
    )


def _of_run(key: str, file: Path) -> tuple[str | None, RewardSpec]:
    """What the recipe of the file's run says: its grammar, and what its stage sets for the reward."""
    recipe = completions.recipe_of(file)
    if recipe is None:
        return None, RewardSpec()
    tree = read_file(recipe)
    stage = (tree.get("stages") or {}).get(file.resolve().relative_to(recipe.parent).parts[0]) or {}
    said = (stage.get("rewards") or {}).get(key) or {}
    return tree.get("grammar"), RewardSpec(args=said.get("args") or {}, tasks=said.get("tasks"))


def _check_provided(key: str, reward: Reward, given: Mapping[str, Any]) -> None:
    for column in check(reward).required:
        if column in _ONLY_IN_TRAINING:
            raise RewardError(f"reward {key!r} asks for {column!r}, which only training has; give it a default to try "
                              "the reward on a log")  # fmt: skip
        if column == "prompts" and column not in given:
            raise RewardError(f"reward {key!r} asks for 'prompts', but the rows have no column 'prompt'")


def _settings(used: Mapping[str, Any], tasks: Sequence[str] | None) -> str:
    words = [f"{knob}={value if isinstance(value, str) else json.dumps(value)}" for knob, value in used.items()]
    if tasks is not None:
        words.append(f"tasks={json.dumps(list(tasks))}")
    return ", ".join(words) or "no knobs set"


# Summary


def summary(trial: Trial) -> dict[str, str]:
    """The values in a few numbers, by what they are called; those that do not apply are left out.

    `std` divides by the number of values. `groups` are the completions of one prompt at one step; a group without
    spread, the largest value minus the smallest being 0, teaches nothing if this is the only reward.
    """
    values = np.array([value for value in trial.values if value is not None])
    found = {"rows": str(len(trial.rows)), "none": str(len(trial.rows) - len(values))}
    if len(values):
        measures: dict[str, Callable[[Any], Any]] = {
            "mean": np.mean, "std": np.std, "min": np.min, "median": np.median, "max": np.max,
        }  # fmt: skip
        found |= {measure: f"{of(values):.4f}" for measure, of in measures.items()}
        found["zero"] = f"{np.mean(values == 0):.4f} of the values"
    if trial.unparsed is not None:
        found["unparsed"] = f"{trial.unparsed:.4f} of the values"
    groups = _groups(trial)
    if groups:
        flat = sum(max(group) - min(group) <= _EQUAL for group in groups)
        found["groups"] = f"{len(groups)}, {flat / len(groups):.4f} of them without spread"
    if trial.logged is not None:
        found["logged"] = _agreement(trial.values, trial.logged)
    return found | {metric: f"{value:.4f}" for metric, value in trial.metrics.items()}


def _groups(trial: Trial) -> list[list[float]]:
    """The values of each group that has two or more."""
    groups: dict[str, list[float]] = {}
    label = next((column for column in ("id", "prompt") if column in trial.rows[0]), None)
    if label is None:
        return []
    for row, value in zip(trial.rows, trial.values, strict=True):
        if value is not None:
            groups.setdefault(json.dumps([row.get("step"), row[label]], default=str), []).append(value)
    return [group for group in groups.values() if len(group) > 1]


def _agreement(values: Sequence[float | None], logged: Sequence[Any]) -> str:
    """How many of the values are those in the log, and by how much the others differ."""
    gaps = []
    for value, other in zip(values, logged, strict=True):
        if value is None or not isinstance(other, int | float):
            gaps.append(0.0 if value is None and other is None else float("inf"))
        else:
            gaps.append(abs(value - other) / max(1.0, abs(value)))
    agree = sum(gap <= _EQUAL for gap in gaps)
    one_sided = sum(gap == float("inf") for gap in gaps)
    text = f"{agree} of {len(gaps)} agree with the column of the file"
    differing = [abs(v - o) for v, o, gap in zip(values, logged, gaps, strict=True) if _EQUAL < gap < float("inf")]
    if differing:
        text += f"; largest difference {max(differing):.4f}"
    return f"{text}; {one_sided} have a value on one side only" if one_sided else text


def report(trial: Trial, limit: int) -> str:
    """The first `limit` rows with their values, and the summary, as text for a terminal."""
    lines = [f"{trial.name} on {trial.source}: {trial.settings}", ""]
    if limit:
        names = [_shown(str(row["id"]) if row.get("id") is not None else str(number), 40)
                 for number, row in enumerate(trial.rows[:limit], start=1)]  # fmt: skip
        width = max(map(len, names))
        lines.append(f"{'value':>9}  {'id' if 'id' in trial.rows[0] else 'row':<{width}}  completion")
        for name, row, value in zip(names, trial.rows, trial.values, strict=False):
            number = "none" if value is None else f"{value:.4f}"
            lines.append(f"{number:>9}  {name:<{width}}  {_shown(row['completion'], _WIDTH)}")
        if limit < len(trial.rows):
            lines.append(f"... {len(trial.rows) - limit} more rows; --limit shows more, --output writes all")
        lines.append("")
    found = summary(trial)
    width = max(map(len, found))
    return "\n".join(lines + [f"{label:<{width}}  {value}" for label, value in found.items()])


def _shown(text: str, width: int) -> str:
    """`text` on one line of at most `width` characters, its middle left out: answers stand at the end."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if len(line) <= width:
        return line
    head = width // 3
    return f"{line[:head]} ... {line[len(line) - (width - head - 5) :]}"


# Files


def write(trial: Trial, path: str | Path) -> None:
    """Every row as one line of JSON, with its value under the reward's name and what the reward logged.

    The file can be tried again, with this reward or another one. DataError if it cannot be written.
    """
    lines = []
    for number, (row, value) in enumerate(zip(trial.rows, trial.values, strict=True)):
        own = {column: values[number] for column, values in trial.extras.items()}
        lines.append(json.dumps({**row, **own, trial.name: value}, default=str) + "\n")
    _save(path, lambda place: place.write_text("".join(lines), encoding="utf-8"))


def plot(trial: Trial, path: str | Path) -> None:
    """The histogram of the values; the suffix of `path` says in which format. DataError if it cannot be written."""
    from matplotlib.figure import Figure  # slow to load, and most trials draw nothing

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    values = [value for value in trial.values if value is not None]
    axes.hist(values, bins=40, color="#4c78a8")
    axes.set_xlabel(trial.name)
    axes.set_ylabel("completions")
    axes.set_title(f"{len(values)} of {len(trial.rows)} rows: {trial.settings}", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    _save(path, figure.savefig)


def _save(path: str | Path, save: Callable[[Path], Any]) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save(Path(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
