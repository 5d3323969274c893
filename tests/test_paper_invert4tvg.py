"""The rewards of Invert4TVG composed as its recipe does: grounding and three inverse tasks, each with its format."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from rlvtg.reward import bind
from tests.invert4tvg_cases import TAGGERS, TASKS

COLUMNS = ["id", "spans", "task", "query", "masked_query", "verb"]


@dataclass
class Spec:
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = None


def rewards(tagger, **args):
    specs = {"tiou": Spec(tasks=["grounding"]), "think_format": Spec(tasks=["grounding"])}
    specs |= {task: Spec(args={"tagger": tagger, **args}, tasks=[task]) for task in TASKS}
    return bind(specs | {"inverse_format": Spec(tasks=list(TASKS))}, COLUMNS, grammar="to")


def composed(rows, tagger, **args):
    """(total, {reward: value}) of each (task, completion) row about one query, None values left out."""
    count = len(rows)
    columns = {
        "id": [f"v{index}" for index in range(count)],
        "spans": [[[24.3, 30.4]]] * count,
        "task": [task for task, _ in rows],
        "query": ["person closes the door"] * count,
        "masked_query": ["person the door"] * count,
        "verb": ["closes"] * count,
    }
    bound = rewards(tagger, **args)
    values = {each.__name__: each(completions=[text for _, text in rows], **columns) for each in bound}
    weights = {each.__name__: each.weight for each in bound}
    kept = [{name: cells[row] for name, cells in values.items() if cells[row] is not None} for row in range(count)]
    return [(sum(weights[name] * value for name, value in row.items()), row) for row in kept]


@pytest.mark.parametrize("tagger", TAGGERS.values(), ids=TAGGERS)
def test_a_row_gets_the_rewards_of_its_task_and_of_no_other(tagger):
    rows = [
        ("grounding", "<think>x</think><answer>20 to 30</answer>"),
        ("grounding", "<answer>24.3 to 30.4</answer>"),
        ("grounding", "<think>x</think><answer>closes</answer>"),
        ("verb_completion", "<answer>person closed the door</answer>"),
        ("verb_completion", "<answer>person opens the door</answer>"),
        ("action_recognition", "<think>x</think><answer>closing</answer>"),
        ("action_recognition", "closing"),
        ("video_description", "<answer>A man in a hat closes the door.</answer>"),
        ("video_description", "<answer>closes open puts takes sits runs</answer>"),
    ]
    totals = [5.7 / 10.4 + 1, 1.0, 1.0, 2.0, 1.0, 2.0, 0.0, 2.0, 1.0]
    result = composed(rows, tagger)
    assert [total for total, _ in result] == pytest.approx(totals)
    for (task, _), (_, values) in zip(rows, result, strict=True):
        formats = ["tiou", "think_format"] if task == "grounding" else [task, "inverse_format"]
        assert list(values) == formats


@pytest.mark.parametrize("tagger", TAGGERS.values(), ids=TAGGERS)
def test_the_released_completion_reward_has_the_tabulated_values(tagger):
    (original,) = bind({"verb_completion": Spec(args={"mode": "original", "tagger": tagger})}, COLUMNS)
    texts = {
        "closes the door": 1.0,
        "closed the door": 1.0,
        "opens": 0.0,
        "closes open puts takes sits runs": 1.0,
        "": 0.0,
    }
    columns = {"query": ["person closes the door"] * 5, "masked_query": ["person the door"] * 5, "verb": ["closes"] * 5}
    assert original(completions=[f"<answer>{text}</answer>" for text in texts], **columns) == list(texts.values())


def test_grounding_with_an_inverse_task_in_one_step_of_five_is_the_papers_mean():
    """Every group is of one task, so the mean over a batch of the default mix is 0.8 and 0.2 of the groups' means."""
    grounding = [("grounding", "<think>x</think><answer>24.3 to 30.4</answer>")] * 8
    inverse = [("verb_completion", "<answer>person opens the door</answer>")] * 2
    totals = [total for total, _ in composed(grounding + inverse, "hanta")]
    assert sum(totals) / len(totals) == pytest.approx(0.8 * 2.0 + 0.2 * 1.0)
