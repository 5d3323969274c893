"""What every file of rewards/ must keep, found by glob: a new reward is tested by being there."""

import asyncio
import inspect
import math
import time
from pathlib import Path

import pytest

from rlvtg.reward import check, find

NAMES = sorted(file.stem for file in (Path(__file__).parent.parent / "rewards").glob("*.py"))
EVERY_REWARD = pytest.mark.parametrize("name", NAMES)

# A value that a row can hold, for each column that some reward asks for, and values that no row may hold.
COLUMNS = {"spans": [[10.0, 20.0]], "duration": 30.0, "id": "v1", "query": "a person opens the door"}
BROKEN = {"spans": [None, [], [[10.0]], [[10.0, math.nan]]], "duration": [None, 0.0, -1.0, math.nan]}

GOOD = [
    "<think>x</think><answer>10 to 20</answer>",
    "<think>x</think>\n<answer>12.54 to 17.83</answer>",
    "<think>early</think><answer>0.00 to 1.00</answer>",
]
JUNK = [
    "",
    " \n\t\x00",
    "<answer>",
    "</answer><answer>",
    "<think></think><answer></answer>",
    "<answer>nan to inf</answer>",
    "<answer>20 to 10</answer>",
    "<answer>15 to 15</answer>",
    f"<answer>0 to {'9' * 308}</answer>",
    f"<answer>{'9' * 400} to {'9' * 400}</answer>",
    "<think>x</think><answer>0 to 1000000</answer>",
    "<answer>²³ to ½</answer>",
    "<answer>١٠ to ٢٠</answer>",
    "<answer>[[10, 20], [null, {}]]</answer>",
    "\ud800<answer>\udfff to \ud83d</answer>",
    "<answer>" * 50 + "1 to 2" + "</answer>" * 50,
]


def score(name, completions, **columns):
    function = find(name)
    parameters = check(function)
    unknown = set(parameters.required) - {"completions"} - set(COLUMNS)
    assert not unknown, f"give COLUMNS in this file a value for {sorted(unknown)}"
    rows = {column: [value] * len(completions) for column, value in COLUMNS.items()} | columns
    rewards = function(prompts=[""] * len(completions), completions=completions, **rows)
    return asyncio.run(rewards) if inspect.iscoroutine(rewards) else rewards


def test_there_are_rewards():
    assert {"tiou", "timestamp_tiou", "think_format"} <= set(NAMES)


@EVERY_REWARD
def test_a_reward_file_holds_a_function_of_its_name(name):
    assert find(name).__name__ == name


@EVERY_REWARD
def test_a_docstring_says_what_how_and_from_where(name):
    what, *rest = inspect.getdoc(find(name)).split("\n\n")
    assert what and not what.startswith(("Formula:", "Source:"))
    assert [part.split()[0] for part in rest] == ["Formula:", "Source:"]
    assert "Range:" in rest[0]


@EVERY_REWARD
def test_every_completion_gets_a_finite_reward_or_none(name):
    rewards = score(name, GOOD + JUNK)
    assert len(rewards) == len(GOOD + JUNK)
    assert all(reward is None or (isinstance(reward, float) and math.isfinite(reward)) for reward in rewards)


@EVERY_REWARD
def test_the_order_of_rows_does_not_matter(name):
    texts = GOOD + JUNK
    spans = [[[float(i), i + 10.0]] for i in range(len(texts))]
    ids = [f"v{i}" for i in range(len(texts))]
    forward = score(name, texts, spans=spans, id=ids)
    backward = score(name, texts[::-1], spans=spans[::-1], id=ids[::-1])
    assert forward == backward[::-1]
    assert len(set(forward)) > 1


@EVERY_REWARD
def test_messages_score_as_their_text_does(name):
    messages = [[{"role": "assistant", "content": text}] for text in GOOD + JUNK]
    assert score(name, messages) == score(name, GOOD + JUNK)


@EVERY_REWARD
def test_a_reward_prints_nothing_and_leaves_its_input_alone(name, capsys):
    texts, spans = GOOD + JUNK, [[[10.0, 20.0]] for _ in GOOD + JUNK]
    assert score(name, texts, spans=spans) == score(name, texts, spans=spans)
    assert texts == GOOD + JUNK and spans == [[[10.0, 20.0]] for _ in texts]
    assert capsys.readouterr() == ("", "")


@EVERY_REWARD
@pytest.mark.parametrize("column", BROKEN)
def test_a_broken_annotation_raises_whatever_the_model_wrote(name, column):
    if column not in check(find(name)).required:
        assert score(name, GOOD, **{column: BROKEN[column][:1] * len(GOOD)}) == score(name, GOOD)
        return
    for value in BROKEN[column]:
        for text in [GOOD[0], ""]:
            with pytest.raises(ValueError, match="v9"):
                score(name, [text], **{column: [value], "id": ["v9"]})


@EVERY_REWARD
@pytest.mark.parametrize("unit", ["9", "9.", "<answer>", "<think>", "</think> ", " ", "1 to ", "[", "[[1,2],"])
def test_a_long_answer_does_not_take_quadratic_time(name, unit):
    for length in [12_500, 50_000, 200_000]:
        body = unit * (length // len(unit))
        began = time.process_time()
        score(name, [body, f"<answer>{body}</answer>", f"<think>{body}</think><answer>{body}</answer>"])
        assert time.process_time() - began < 1.0, f"{length} characters"
