import asyncio
import inspect
import math
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from rlvtg.reward import Parameters, RewardError, bind, check, find, reward_names

COLUMNS = ["id", "prompt", "video", "duration", "query", "spans"]
MINE = """
def mine(completions, spans, *, bonus=0.5, **_):
    return [len(text) + bonus + span[0][0] for text, span in zip(completions, spans)]
"""


@dataclass
class Spec:
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = None


def call_as_trl_does(reward, completions, **columns):
    """The keyword arguments of GRPOTrainer._calculate_rewards in TRL 1.16."""
    return reward(
        prompts=["p"] * len(completions),
        completions=completions,
        completion_ids=[[1, 2]] * len(completions),
        **columns,
        trainer_state=None,
        log_extra=lambda column, values: None,
        log_metric=lambda name, value: None,
    )


def write(path, source):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("rewards", "scores", "lab_one"):
            del sys.modules[name]


def bound(source, folder, *, name="mine", args=None, columns=COLUMNS, grammar=None):
    write(folder / "rewards" / f"{name}.py", source)
    return bind({name: Spec(args=args or {})}, columns, grammar=grammar)[0]


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("rewards/mine.py", "mine"),
        ("lab_one/scores.py", "lab_one.scores.mine"),
        ("anywhere/at all.py", "anywhere/at all.py:mine"),
    ],
)
def test_a_reward_of_ones_own_is_found_bound_and_called(file, key, folder):
    write(folder / file, MINE)
    (reward,) = bind({key: Spec(weight=2.0, args={"bonus": 1.0})}, COLUMNS)
    assert (reward.__name__, reward.weight) == ("mine", 2.0)
    assert call_as_trl_does(reward, ["ab", ""], spans=[[[3, 4]], [[0, 1]]], query=["q", "q"]) == [6.0, 1.0]


def test_a_file_outside_the_working_directory_is_found_by_its_path(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "scores.py"
    write(elsewhere, MINE)
    assert find(f"{elsewhere}:mine")(["abc"], [[[1, 2]]]) == [4.5]


def test_the_working_directory_comes_before_the_package(folder):
    assert find("tiou").__doc__
    write(folder / "rewards" / "tiou.py", "def tiou(completions, **_): return [7.0]")
    assert find("tiou")([""]) == [7.0]
    write(folder / "rewards" / "zebra.py", MINE)
    assert {"tiou", "zebra", "think_format"} <= set(reward_names())
    assert reward_names() == sorted(set(reward_names()))


def test_a_file_with_dataclasses_and_postponed_annotations_loads(folder):
    source = """
from __future__ import annotations
from dataclasses import dataclass, field
@dataclass
class Score:
    value: float = field(default=3.0)
def mine(completions, **_): return [Score().value for _ in completions]
"""
    assert call_as_trl_does(bound(source, folder), ["a"]) == [3.0]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("tiuo", r"no reward is called 'tiuo' \(did you mean 'tiou'\?\); there is .*think_format, .*tiou"),
        ("", "no reward is called ''"),
        (".tiou", "no reward is called '.tiou'"),
        ("no_such_package.score.fn", "cannot import 'no_such_package.score'"),
        ("gone.py:fn", "there is no file 'gone.py'"),
        ("scores.py", "a file needs the name of its function, as in path/to/file.py:fn"),
        ("lab/scores", "a file needs the name of its function"),
        ("scores.py:mime", r"has no function 'mime' \(did you mean 'mine'\?\); there is mine$"),
        ("scores.mime", r"has no function 'mime' \(did you mean 'mine'\?\)"),
        ("rewards.misnamed", "rewards has no function 'misnamed'; there is none"),
        ("misnamed", "has no function 'misnamed'.*there is mine$"),
    ],
)
def test_a_key_that_finds_nothing_says_what_there_is(key, message, folder):
    write(folder / "scores.py", "from math import sqrt\n" + MINE)
    write(folder / "rewards" / "misnamed.py", MINE)
    with pytest.raises(RewardError, match=message):
        find(key)


def test_check_tells_columns_from_knobs():
    def score(completions, spans, id=None, *, clamp=False, grammar="to", **_):
        return []

    assert check(score) == Parameters(("completions", "spans"), ("id",), ("clamp", "grammar"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def mine(spans, **_): ...", "mine has no positional parameter 'completions'"),
        ("def mine(*, completions=(), **_): ...", "mine has no positional parameter 'completions'"),
        ("def mine(completions): ...", r"mine must end with \*\*_"),
        ("def mine(completions, *, alpha, **_): ...", "knob 'alpha' has no default"),
        ("def mine(completions, *, log_metric=None, **_): ...", "'log_metric' comes from TRL"),
        ("def mine(completions, *rest, **_): ...", r"\*rest cannot be filled"),
        ("def mine(completions, /, **_): ...", "completions cannot be filled"),
    ],
)
def test_a_signature_outside_the_protocol_is_an_error(source, message, folder):
    with pytest.raises(RewardError, match=message):
        bound(source, folder)


@pytest.mark.parametrize(
    ("parameters", "args", "message"),
    [
        ("completions, *, alpha=1.0", {"alhpa": 2}, r"no knob 'alhpa' \(did you mean 'alpha'\?\); there is alpha"),
        ("completions", {"alpha": 2}, "no knob 'alpha'; there is none"),
        ("completions, spans", {"spans": 2}, "'spans' comes from the data or from TRL, so args cannot set it"),
        (
            "completions, span",
            {},
            r"'span', which is no column.*did you mean 'spans'.*duration, id, query, spans, video",
        ),
        ("completions, prompt", {}, r"asks for 'prompt', which is no column.*did you mean 'prompts'"),
        ("completions, *, duration=1.0", {}, "knob 'duration' is also a column"),
    ],
)
def test_a_spec_that_does_not_fit_is_an_error_before_anything_runs(parameters, args, message, folder):
    with pytest.raises(RewardError, match=message):
        bound(f"def mine({parameters}, **_): ...", folder, args=args)


def test_knobs_that_a_rewards_own_check_refuses_are_an_error_before_anything_runs(folder):
    source = """
def mine(completions, *, low=None, high=None, **_):
    return [float(high - low) for _ in completions]

def check_mine(low=None, high=None):
    if low is None or high is None or low > high:
        raise ValueError(f"low and high must be set, in order, got {low!r} and {high!r}")
"""
    assert call_as_trl_does(bound(source, folder, args={"low": 1, "high": 3}), ["a"]) == [2.0]
    for args, got in [({}, "None and None"), ({"low": 1}, "1 and None"), ({"low": 3, "high": 1}, "3 and 1")]:
        with pytest.raises(RewardError, match=f"reward 'mine': args: low and high must be set, in order, got {got}"):
            bound(source, folder, args=args)
    with pytest.raises(RewardError, match="no knob 'hihg'"):
        bound(source, folder, args={"low": 1, "hihg": 3})


def test_what_trl_provides_and_optional_columns_need_not_be_in_the_data(folder):
    source = """
def mine(completions, prompts, trainer_state, log_metric, category=None, **_):
    log_metric("seen", 1.0)
    return [float(category is None)] * len(prompts)
"""
    assert call_as_trl_does(bound(source, folder), ["a", "b"]) == [1.0, 1.0]


def test_two_rewards_of_one_name_are_an_error(folder):
    write(folder / "scores.py", "def tiou(completions, **_): return [0.0]")
    with pytest.raises(RewardError, match="'tiou' and 'scores.py:tiou' would both be logged as 'tiou'"):
        bind({"tiou": Spec(), "scores.py:tiou": Spec()}, COLUMNS)


@pytest.mark.parametrize("weight", [math.nan, math.inf, True])
def test_a_weight_that_is_no_finite_number_is_an_error(weight):
    with pytest.raises(RewardError, match="weight must be a finite number"):
        bind({"tiou": Spec(weight=weight)}, COLUMNS)


def test_the_recipes_grammar_goes_where_it_is_wanted_and_not_set(folder):
    source = "def mine(completions, *, grammar='none', **_): return [float(grammar == 'to')]"
    assert call_as_trl_does(bound(source, folder, grammar="to"), ["a"]) == [1.0]
    assert call_as_trl_does(bound(source, folder), ["a"]) == [0.0]
    with pytest.raises(ValueError, match="no grammar is called 'dash'"):
        bound(source, folder, args={"grammar": "dash"}, grammar="to")
    assert [reward.__name__ for reward in bind({"think_format": Spec()}, COLUMNS, grammar="to")] == ["think_format"]


def test_a_recipes_rewards_are_bound_in_order_and_score_messages():
    specs = {"timestamp_tiou": Spec(args={"clamp": True}), "think_format": Spec(0.5), "tiou": Spec(0.0)}
    rewards = bind(specs, COLUMNS, grammar="to")
    assert [(r.__name__, r.weight) for r in rewards] == [("timestamp_tiou", 1.0), ("think_format", 0.5), ("tiou", 0.0)]
    texts = ["<think>x</think><answer>10 to 15</answer>", "<answer>0 to 1000</answer>"]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    columns = {"spans": [[[10, 20]], [[0, 10]]], "duration": [30.0, 10.0], "id": ["a", "b"], "query": ["q", "q"]}
    values = [call_as_trl_does(reward, completions, **columns) for reward in rewards]
    assert values == [pytest.approx([5 / 12, 0.0]), [1.0, 0.0], pytest.approx([0.5, 0.01])]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e+39"])
def test_a_value_that_is_not_finite_is_an_error_with_reward_and_row(value, folder):
    reward = bound(f"def mine(completions, **_): return [1.0, float('{value}')]", folder)
    with pytest.raises(RewardError, match=f"reward mine returned {re.escape(value)} for row 'v8'"):
        call_as_trl_does(reward, ["a", "b"], id=["v7", "v8"])
    with pytest.raises(RewardError, match="for row 1 of the batch"):
        call_as_trl_does(reward, ["a", "b"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[1.0]", "returned 1 values for 2 completions"),
        ("[]", "returned 0 values for 2 completions"),
        ("1.0", "must return a list, got float"),
        ("None", "must return a list, got NoneType"),
        ("'ab'", "must return a list, got str"),
        ("['1', 1.0]", "returned '1' for row 0"),
    ],
)
def test_anything_but_one_number_per_completion_is_an_error(returned, message, folder):
    with pytest.raises(RewardError, match=message):
        call_as_trl_does(bound(f"def mine(completions, **_): return {returned}", folder), ["a", "b"])


def test_none_stays_none_and_numbers_become_floats(folder):
    source = "import numpy\ndef mine(completions, **_): return [None, True, 2, numpy.float32(0.5)]"
    rewards = call_as_trl_does(bound(source, folder), list("abcd"))
    assert rewards == [None, 1.0, 2.0, 0.5]
    assert [type(reward) for reward in rewards] == [type(None), float, float, float]


def test_an_async_reward_stays_async(folder):
    reward = bound("async def mine(completions, *, bonus=1.0, **_): return [bonus for _ in completions]", folder)
    assert inspect.iscoroutinefunction(reward)
    assert not inspect.iscoroutinefunction(bind({"tiou": Spec()}, COLUMNS)[0])
    assert asyncio.run(call_as_trl_does(reward, ["a", "b"])) == [1.0, 1.0]
    broken = bound("async def mine(completions, **_): return [float('nan')]", folder)
    with pytest.raises(RewardError, match="returned nan for row 0"):
        asyncio.run(call_as_trl_does(broken, ["a"]))


ON_TASKS = """
def mine(completions, spans, log_extra, *, bonus=0.5, **_):
    log_extra("seen", [text.upper() for text in completions])
    return [bonus + span[0][0] for span in spans]
"""


def test_rows_of_other_tasks_get_none_and_are_not_shown_to_the_reward(folder):
    write(folder / "rewards" / "mine.py", ON_TASKS)
    (reward,) = bind({"mine": Spec(tasks=["qa", "grounding"])}, [*COLUMNS, "task"])
    seen = {}
    columns = {"spans": [[[1.0, 2.0]], None, [[3.0, 4.0]]], "task": ["qa", "caption", "grounding"]}
    rewards = reward(completions=["a", "b", "c"], log_extra=seen.__setitem__, **columns)
    assert rewards == [1.5, None, 3.5]
    assert seen == {"seen": ["A", None, "C"]}
    columns["task"] = ["caption"] * 3
    assert reward(completions=["a", "b", "c"], log_extra=seen.__setitem__, **columns) == [None] * 3


def test_a_reward_for_tasks_needs_the_column(folder):
    write(folder / "rewards" / "mine.py", ON_TASKS)
    with pytest.raises(RewardError, match="no column 'task'"):
        bind({"mine": Spec(tasks=["qa"])}, COLUMNS)


def test_a_count_that_is_wrong_for_the_rows_of_a_task_is_an_error(folder):
    write(folder / "rewards" / "mine.py", "def mine(completions, **_):\n    return [1.0]\n")
    (reward,) = bind({"mine": Spec(tasks=["qa"])}, [*COLUMNS, "task"])
    with pytest.raises(RewardError, match="returned 1 values"):
        reward(completions=["a", "b", "c"], task=["qa", "qa", "caption"])


@pytest.mark.parametrize("name", ["query", "advantage", "predicted"])
def test_a_reward_that_would_hide_a_column_of_the_log_is_refused(folder, name):
    with pytest.raises(RewardError, match=f"would be logged as '{name}', which is a column of the data or of the log"):
        bound(f"def {name}(completions, **_):\n    return [0.0]\n", folder, name=name)
