"""The reward protocol: find a function by its key, check its signature, bind it to a recipe's weight and knobs.

A reward is a plain function in TRL's signature, `def mine(completions, spans, *, knob=1.0, **_) -> list[float | None]`:
positional parameters are dataset columns or what TRL provides, keyword-only ones are knobs, `**_` takes the rest.
Everything here happens before a model is loaded, so that a wrong recipe costs a second and not an hour.
"""

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import Parameter
from math import isfinite
from pathlib import Path
from typing import Any, Protocol, cast

import rlvtg
from rlvtg.text.annotation import row_names
from rlvtg.text.grammar import grammar as grammar_named

PROVIDED = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""What TRL 1.16 passes to every reward function besides the columns."""

NOT_PASSED = ("prompt", "completion", "completion_ids")
"""Columns that TRL 1.16 keeps from reward functions."""

LOGGED = ("step", "prompt", "completion", "predicted", "advantage", "expert")
"""What the log of completions holds besides the rewards and the columns that they may ask for."""

_LARGEST = 3.4028234e38
"""TRL stores rewards as float32, where anything larger is infinite."""


class RewardError(ValueError):
    """A reward cannot be found, does not follow the protocol, or returned something that is not a reward."""


class Spec(Protocol):
    """What a recipe says about one reward: its weight (0 = log only), the knobs it sets and the tasks it is for."""

    @property
    def weight(self) -> float: ...

    @property
    def args(self) -> Mapping[str, Any]: ...

    @property
    def tasks(self) -> Sequence[str] | None: ...


class Reward(Protocol):
    """A reward ready for TRL: called with keyword arguments only, named by `__name__` in TRL's metrics."""

    __name__: str
    weight: float
    tasks: Sequence[str] | None
    asks_for: tuple[str, ...]
    """The columns that it may be given."""

    def __call__(self, **kwargs: Any) -> Any: ...


@dataclass(frozen=True)
class Parameters:
    """A reward function's parameters: columns it must have, columns it can do without, knobs it offers."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    knobs: tuple[str, ...]


def find(key: str) -> Callable[..., Any]:
    """The reward function that `key` stands for; RewardError, with the nearest name, if there is none.

    `name`             function `name` of rewards/name.py, in the working directory or else beside the package
    `pkg.mod.fn`       function `fn` of an importable module (the working directory counts as importable)
    `path/file.py:fn`  function `fn` of a file, relative to the working directory
    """
    if ":" in key:
        path, _, name = key.rpartition(":")
        if not Path(path).is_file():
            raise RewardError(f"reward {key!r}: there is no file {path!r} in {Path.cwd()}")
        return _function(_load(Path(path)), name, key)
    if key.endswith(".py") or "/" in key:
        raise RewardError(f"reward {key!r}: a file needs the name of its function, as in path/to/file.py:fn")
    if "." in key and all(part.isidentifier() for part in key.split(".")):
        return _find_dotted(key)
    for folder in _folders():
        if (folder / f"{key}.py").is_file():
            return _function(_load(folder / f"{key}.py"), key, key)
    names = reward_names()
    raise RewardError(
        f"no reward is called {key!r}{_nearest(key, names)}; there is {', '.join(names) or 'none'}; "
        "a function of your own is rewards/name.py, pkg.mod.fn or path/to/file.py:fn"
    )


def reward_names() -> list[str]:
    """Names of the files in the two rewards folders, sorted."""
    return sorted({file.stem for folder in _folders() for file in folder.glob("*.py") if file.stem.isidentifier()})


def check(function: Callable[..., Any]) -> Parameters:
    """The parameters of a reward function; RewardError says in one sentence where it leaves the protocol."""
    name = getattr(function, "__name__", repr(function))
    parameters = inspect.signature(function).parameters.values()
    by_position = [p for p in parameters if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    knobs = [p for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
    for p in parameters:
        if p.kind is Parameter.POSITIONAL_ONLY or p.kind is Parameter.VAR_POSITIONAL:
            raise RewardError(f"reward {name}: {p} cannot be filled, because TRL passes everything by name")
    if "completions" not in [p.name for p in by_position]:
        raise RewardError(f"reward {name} has no positional parameter 'completions', so there is nothing to score")
    if not any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
        raise RewardError(f"reward {name} must end with **_, because TRL passes every column of the data")
    for p in knobs:
        if p.name in PROVIDED:
            raise RewardError(f"reward {name}: {p.name!r} comes from TRL, so it stands before the *, not after it")
        if p.default is Parameter.empty:
            raise RewardError(
                f"reward {name}: knob {p.name!r} has no default; give it one, or put it before the * to read a column"
            )
    return Parameters(
        required=tuple(p.name for p in by_position if p.default is Parameter.empty),
        optional=tuple(p.name for p in by_position if p.default is not Parameter.empty),
        knobs=tuple(p.name for p in knobs),
    )


def logged_name(key: str) -> str:
    """What the reward of a recipe's `key` is called in logs: the last part of the key."""
    return key.replace(":", ".").rpartition(".")[2]


def bind(specs: Mapping[str, Spec], columns: Collection[str], *, grammar: str | None = None) -> list[Reward]:
    """The rewards of a recipe, in its order, each checked against its own signature and the data's `columns`.

    A reward with a `grammar` knob that its args leave unset gets the recipe's `grammar`. One with `tasks` sees only the
    rows whose `task` is among them; the others get None. A reward `mine` whose knobs can be wrong in a way that its
    signature cannot show has `check_mine(**knobs)` beside it, which raises ValueError; it is called with the args.
    Each bound reward is a function (a coroutine function where the reward is one) with what `Reward` says; its
    `__name__` is the last part of its key. It returns one finite float or None per completion, or raises RewardError
    naming reward and row.
    """
    rewards: list[Reward] = []
    keys: dict[str, str] = {}
    for key, spec in specs.items():
        function = find(key)
        name = logged_name(key)
        if name in columns or name in LOGGED:
            raise RewardError(
                f"reward {key!r} would be logged as {name!r}, which is a column of the data or of the log; rename it"
            )
        if name in keys:
            raise RewardError(
                f"rewards {keys[name]!r} and {key!r} would both be logged as {name!r}; rename one of them"
            )
        keys[name] = key
        if isinstance(spec.weight, bool) or not isfinite(spec.weight):
            raise RewardError(f"reward {key!r}: weight must be a finite number, got {spec.weight!r}")
        parameters = check(function)
        _check_columns(key, parameters, columns)
        knobs = dict(spec.args)
        _check_knobs(key, parameters, knobs)
        if "grammar" in parameters.knobs:
            if grammar is not None:
                knobs.setdefault("grammar", grammar)
            if "grammar" in knobs:
                grammar_named(knobs["grammar"])
        _check_values(key, function, knobs)
        if spec.tasks is not None and "task" not in columns:
            raise RewardError(f"reward {key!r} is for tasks {list(spec.tasks)}, but the data has no column 'task'")
        reward = _bound(function, name, knobs, spec.tasks)
        asks_for = (*parameters.required, *parameters.optional)
        reward.__dict__.update(weight=float(spec.weight), tasks=spec.tasks, asks_for=asks_for)
        rewards.append(reward)
    return rewards


def goes_by_spans(rewards: Iterable[Reward], task: str | None) -> bool:
    """Whether any of the bound rewards judges the spans in the answer to a row of `task`."""
    return any("spans" in reward.asks_for for reward in rewards if reward.tasks is None or task in reward.tasks)


def _check_columns(key: str, parameters: Parameters, columns: Collection[str]) -> None:
    passed = sorted(set(columns) - set(NOT_PASSED))
    for name in parameters.required:
        if name not in passed and name not in PROVIDED:
            raise RewardError(
                f"reward {key!r} asks for {name!r}, which is no column of the data"
                f"{_nearest(name, [*passed, *PROVIDED])}; there is {', '.join(passed) or 'none'}, "
                f"and TRL provides {', '.join(PROVIDED)}"
            )
    for name in parameters.knobs:
        if name in passed:
            raise RewardError(f"reward {key!r}: its knob {name!r} is also a column of the data; rename one of them")


def _check_knobs(key: str, parameters: Parameters, knobs: Mapping[str, Any]) -> None:
    for name in knobs:
        if name in (*parameters.required, *parameters.optional):
            raise RewardError(f"reward {key!r}: {name!r} comes from the data or from TRL, so args cannot set it")
        if name not in parameters.knobs:
            raise RewardError(
                f"reward {key!r} has no knob {name!r}{_nearest(name, parameters.knobs)}; "
                f"there is {', '.join(parameters.knobs) or 'none'}"
            )


def _check_values(key: str, function: Callable[..., Any], knobs: Mapping[str, Any]) -> None:
    name = getattr(function, "__name__", None)
    check_values = getattr(function, "__globals__", {}).get(f"check_{name}")
    if check_values is None:
        return
    try:
        check_values(**knobs)
    except ValueError as error:
        raise RewardError(f"reward {key!r}: args: {error}") from error


def _bound(function: Callable[..., Any], name: str, knobs: Mapping[str, Any], tasks: Sequence[str] | None) -> Reward:
    # TRL tells coroutine functions apart by looking at the function, so there is one wrapper of each kind.
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def reward(**kwargs: Any) -> list[float | None]:
            rows, part = _rows_of(tasks, kwargs)
            return _checked(_spread(await function(**part, **knobs) if rows else [], rows, kwargs), name, kwargs)
    else:

        @functools.wraps(function)
        def reward(**kwargs: Any) -> list[float | None]:
            rows, part = _rows_of(tasks, kwargs)
            return _checked(_spread(function(**part, **knobs) if rows else [], rows, kwargs), name, kwargs)

    reward.__name__ = name
    return cast(Reward, reward)


def _rows_of(tasks: Sequence[str] | None, kwargs: Mapping[str, Any]) -> tuple[list[int], dict[str, Any]]:
    """The rows of `tasks` (None: all), and what a reward is called with for them alone."""
    count = len(kwargs["completions"])
    rows = [row for row in range(count) if tasks is None or kwargs["task"][row] in tasks]
    if len(rows) == count:
        return rows, dict(kwargs)
    part = {
        key: [value[row] for row in rows] if isinstance(value, (list, tuple)) and len(value) == count else value
        for key, value in kwargs.items()
    }
    if (log_extra := kwargs.get("log_extra")) is not None:
        part["log_extra"] = lambda column, values: log_extra(column, _spread(values, rows, kwargs))
    return rows, part


def _spread(values: Any, rows: Sequence[int], kwargs: Mapping[str, Any]) -> Any:
    """The values of some rows, with None for the others."""
    count = len(kwargs["completions"])
    if len(rows) == count or len(values) != len(rows):  # the check of what was returned comes after this
        return values
    spread: list[Any] = [None] * count
    for row, value in zip(rows, values, strict=True):
        spread[row] = value
    return spread


def _checked(returned: Any, name: str, kwargs: Mapping[str, Any]) -> list[float | None]:
    """What a reward returned, as floats and None; RewardError if it is not one finite number or None per completion."""
    count, ids = len(kwargs["completions"]), kwargs.get("id")
    if isinstance(returned, (str, Mapping)) or not hasattr(returned, "__iter__"):
        raise RewardError(f"reward {name} must return a list, got {type(returned).__name__}")
    values = list(returned)
    if len(values) != count:
        raise RewardError(f"reward {name} returned {len(values)} values for {count} completions")
    for index, value in enumerate(values):
        if value is not None and not (hasattr(value, "__float__") and abs(value) <= _LARGEST):
            row = row_names(ids, count)[index]
            raise RewardError(f"reward {name} returned {value!r} for {row}; allowed are finite numbers and None")
    return [None if value is None else float(value) for value in values]


def _folders() -> list[Path]:
    return [Path("rewards"), Path(rlvtg.__file__).resolve().parent.parent / "rewards"]


def _load(path: Path) -> Any:
    """Execute a file as a module of its own. What its code raises passes through, traceback and all."""
    name = f"reward_file:{path.resolve()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RewardError(f"reward file {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # dataclasses and pickle look a class's module up by its name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _find_dotted(key: str) -> Callable[..., Any]:
    module, _, name = key.rpartition(".")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        # A launcher puts its script's folder on the path, not the working directory; last, so that it hides nothing.
        sys.path.append(str(Path.cwd()))
    try:
        return _function(importlib.import_module(module), name, key)
    except ImportError as error:
        raise RewardError(
            f"reward {key!r}: cannot import {module!r} ({error}); it must be installed or lie in {Path.cwd()}"
        ) from error


def _function(module: Any, name: str, key: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if callable(function):
        return cast(Callable[..., Any], function)
    there = [
        n for n, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    raise RewardError(
        f"reward {key!r}: {module.__file__ or module.__name__} has no function {name!r}{_nearest(name, there)}; "
        f"there is {', '.join(there) or 'none'}"
    )


def _nearest(name: str, choices: Collection[str]) -> str:
    matches = get_close_matches(name, choices, n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
