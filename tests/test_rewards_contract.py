"""What every file of rewards/ must keep, found by glob: a new reward is tested by being there."""

import asyncio
import inspect
import math
import random
import re
import time
from functools import cache
from pathlib import Path

import pytest

from rlvtg.reward import check, find
from tests.local_judge import by_chance, serving

NAMES = sorted(file.stem for file in (Path(__file__).parent.parent / "rewards").glob("*.py"))
EVERY_REWARD = pytest.mark.parametrize("name", NAMES)

# A value that a row can hold, for each column that some reward asks for, and values that no row may hold.
COLUMNS = {"spans": [[10.0, 20.0]], "duration": 30.0, "id": "v1", "query": "a person opens the door", "answer": "B"}
BROKEN = {"spans": [None, [], [[10.0]], [[10.0, math.nan]]], "duration": [None, 0.0, -1.0, math.nan]}
COLUMNS |= {"verb": "opens", "masked_query": "a person the door"}
# The same for a reward that asks a column for something else.
OWN_COLUMNS = {"box_iou": {"answer": "[0, 0, 10, 10]"}}
BROKEN |= {"query": [None, 7], "verb": [7, ["opens"]], "masked_query": [7], "answer": [7]}
# Knobs that a reward cannot do without: a server to ask.
KNOBS: dict[str, dict[str, object]] = {}

GOOD = [
    "<think>x</think><answer>10 to 20</answer>",
    "<think>x</think>\n<answer>12.54 to 17.83</answer>",
    "<think>early</think><answer>0.00 to 1.00</answer>",
    "<answer>opens</answer>",
    "<answer>the person opened the door</answer>",
    "<think>from 12.0 to 25.0</think><answer>12.00-25.00</answer>",
    "<thinking>x</thinking><answer>10 to 20</answer>",
    "<think>However,\n<timestep>1 to 2</timestep></think><answer>B</answer><glue>[(10.0, 20.0)]</glue>",
    "<answer>[5, 5, 15, 15]</answer>",
    f"<think>x</think><answer>[{'[0, 0, 1, 1], ' * 8}]</answer>",
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

GENERATED = 10_000
# fmt: off
PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "<glue>", "</glue>", "<thinking>", "</thinking>", "<timestep>",
    "</timestep>", "<answer", "</", "<", ">", "[", "]", "(", ")", "[[", "]]", "{", "}", '"', ",", ", ", ";", ":", "-",
    " - ", "–", "—", " to ", " TO ", "to", " and ", " ", "  ", "\n", "\t", "\u00a0", "\x00", "%", "s", " seconds", ".",
    "+", "_", "e", "0", "00", "7", "12", "3.5", ".5", "5.", "-5", "1e1", "1e400", "1_0", "nan", "NaN", "inf", "-inf",
    "Infinity", "null", "true", "²", "١٠", "１２", "½", "00:10", "1:02:03.5", "100:10", "9" * 400, "A", "(B)", "b",
    "DOG", "The best answer is ", "The event happens in ", "a person opens the door", "closes", "opens puts takes",
    "```json", "<1>", "<42>", "<TIME_ONE>", "\ud800", "é", "😀",
]
# fmt: on
SHAPES = [
    "<think>{0}</think><answer>{1} to {2}</answer>",
    "<think>from {1} to {2}</think>\n<answer>{1}-{2}</answer>",
    "<think>{1} {2}</think><answer>{1}-{2} {3}-{4}</answer>",
    "<think>{0}</think><answer>B</answer><glue>[({1}, {2}), ({3}, {4})]</glue>",
    "<answer>[({1}, {2})]</answer>",
    "The event happens in {1} - {2} seconds.",
    "[[{1}, {2}], [{3}, {4}]]",
    "<thinking>{0}</thinking><answer>[[{1}, {2}]]</answer>",
    "<answer>a person {0} the door</answer>",
    "<answer>opens{0}</answer>",
    "<answer> {1} to {2} </answer>",
    "<think>{0}<timestep>{1} to {2}</timestep></think><answer>{1} to {2}</answer>",
    "<answer>[{1}, {2}, 5, 5]</answer>",
    "<think>{0}</think><answer>[" + "[{1}, {2}, {3}, {4}], " * 8 + "]</answer>",
    "{0}",
]


@cache
def generated():
    """10,000 completions: every grammar's answers with any numbers, and rubble of their parts."""
    draw = random.Random(0)

    def number():
        return draw.choice(["{:.2f}", "{:.0f}", "{}"]).format(draw.choice([1, 10, 60, -10, 1e6]) * draw.random())

    def rubble(most):
        return "".join(draw.choices(PIECES, k=draw.randint(0, most)))

    texts = []
    for index in range(GENERATED):
        if index % 2:
            texts.append(rubble(12))
        else:
            texts.append(draw.choice(SHAPES).format(rubble(3), *[number() for _ in range(4)]))
    texts[:: GENERATED // 10] = [rubble(2000) for _ in range(10)]
    return texts


@cache
def annotations(count):
    """Spans inside videos of some duration, as data may hold them, a few of them reversed or of zero length."""
    draw = random.Random(1)
    spans = []
    for _ in range(count):
        bounds = [draw.choice([0.0, 5.0, 10.0, 20.0, 40.0]) + draw.choice([0.0, draw.random()]) for _ in range(6)]
        spans.append([bounds[:2], bounds[2:4], bounds[4:]][: draw.randint(1, 3)])
    ends = [max(map(max, row), default=0.0) for row in spans]
    return {"spans": spans, "duration": [end + draw.choice([0.5, draw.uniform(0.0, 100.0)]) for end in ends]}


def documented_range(name):
    """(values or None, low, high, low is in, high is in) of the `Range:` that the docstring gives."""
    text = inspect.getdoc(find(name))
    found = re.search(r"Range:\s+(?:\{([^}]*)\}|([\[(])\s*([^,]+),\s*([^\])]+)([\])]))", text)
    assert found, (
        f"reward {name}: the docstring needs `Range:` and an interval such as [0, 1], or a set such as {{0, 1}}"
    )
    values, left, low, high, right = found.groups()
    if values is not None:
        return {float(value) for value in values.split(",")}, -math.inf, math.inf, True, True
    return None, float(low), float(high), left == "[", right == "]"


def is_in_range(value, documented):
    values, low, high, low_in, high_in = documented
    if values is not None:
        return any(math.isclose(value, allowed, abs_tol=1e-12) for allowed in values)
    slack = 1e-9  # of arithmetic
    return (low - slack <= value if low_in else low < value) and (value <= high + slack if high_in else value < high)


def score(name, completions, **columns):
    function = find(name)
    parameters = check(function)
    unknown = set(parameters.required) - {"completions"} - set(COLUMNS)
    assert not unknown, f"give COLUMNS in this file a value for {sorted(unknown)}"
    cells = COLUMNS | OWN_COLUMNS.get(name, {})
    rows = {column: [value] * len(completions) for column, value in cells.items()} | columns
    rewards = function(prompts=[""] * len(completions), completions=completions, **rows, **KNOBS.get(name, {}))
    return asyncio.run(rewards) if inspect.iscoroutine(rewards) else rewards


@pytest.fixture(scope="module", autouse=True)
def a_judge(tmp_path_factory):
    with serving(by_chance) as judge:
        KNOBS["caption_recall"] = judge.knobs(cache=str(tmp_path_factory.mktemp("judge")))
        yield


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


# a request to the judge takes milliseconds
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "caption_recall" else name for name in NAMES]
)
def test_ten_thousand_generated_completions_score_within_the_documented_range_in_any_order(name):
    texts, columns = generated(), annotations(GENERATED) | {"id": [f"v{index}" for index in range(GENERATED)]}
    rewards = score(name, texts, **columns)
    documented = documented_range(name)
    for text, reward in zip(texts, rewards, strict=True):
        assert reward is None or is_in_range(reward, documented), (text[:200], reward)
    order = random.Random(2).sample(range(GENERATED), GENERATED)
    shuffled = score(
        name, [texts[row] for row in order], **{key: [cells[row] for row in order] for key, cells in columns.items()}
    )
    assert shuffled == [rewards[row] for row in order]
    assert len(set(rewards) - {None}) > 1


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


# fmt: off
UNITS = [
    "9", "9.", "<answer>", "</answer>", "<think>", "</think> ", "<glue>", " ", "1 to ", "[", "(", "{", "[[1,2],",
    "(1, 2), ", "1-2 ", "-", "1:2:", "00:10 ", "to", "A ", "opens ", "<1>", ".", "<timestep>1 to 2</timestep>", '"',
    "\\",
]
# fmt: on


@EVERY_REWARD
@pytest.mark.parametrize("unit", UNITS)
def test_a_long_answer_does_not_take_quadratic_time(name, unit):
    for length in [12_500, 50_000, 200_000]:
        body = unit * (length // len(unit))
        began = time.process_time()
        score(name, [body, f"<answer>{body}</answer>", f"<think>{body}</think><answer>{body}</answer>"])
        assert time.process_time() - began < 1.0, f"{length} characters"
