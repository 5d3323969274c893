"""The rewards of Invert4TVG composed as its recipe does: grounding and three inverse tasks, each with its format."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvtg.prepare import prepare
from rlvtg.recipe import load
from rlvtg.reward import bind
from rlvtg.training.sampler import order_of
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


# --- what the recipe does


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The recipe in a folder of its own, where its rows of scale=tiny can be made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("invert4tvg"))
        yield load(["recipe=invert4tvg", "scale=tiny", "decode_ahead=false"])


INVERSE = {"vc": "verb_completion", "ar": "action_recognition", "vd": "video_description"}
RIGHT = {
    "vc": "<answer>person closed the door</answer>",
    "ar": "<answer>closing</answer>",
    "vd": "<answer>A man in a hat closes the door.</answer>",
}


def test_four_groups_of_five_ground_and_the_inverse_tasks_share_the_fifth(recipe):
    stage = recipe.stages["rl"]
    assert {key: task.inverse for key, task in stage.tasks.items()} == {"tvg": None, **INVERSE}
    keys = ["tvg"] * 4000 + [key for key in INVERSE for _ in range(4000)]
    rows = [{"task": key, "video": f"{key}.mp4", "video_start": None, "video_end": None} for key in keys]
    drawn = Counter(keys[row] for row in order_of(stage, rows)(0, np.random.default_rng(0)))
    assert drawn["tvg"] == 4000 and drawn.total() == pytest.approx(5000, abs=10)
    assert [drawn[key] for key in INVERSE] == pytest.approx([333] * 3, abs=55)  # three standard deviations


@pytest.mark.parametrize("key", INVERSE)
def test_each_inverse_task_pays_for_the_right_verb_and_for_no_list_of_verbs(recipe, key):
    texts = [RIGHT[key], "<answer>closes open puts takes sits runs</answer>", "", f"<think>x</think>{RIGHT[key]}"]
    columns = {
        "id": list("abcd"), "task": [key] * 4, "spans": [[[0.0, 6.1]]] * 4, "verb": ["closes"] * 4,
        "query": ["person closes the door"] * 4, "masked_query": ["person the door"] * 4,
    }  # fmt: skip
    bound = bind(recipe.stages["rl"].rewards, COLUMNS, grammar=recipe.grammar)
    values = {each.__name__: each(completions=texts, **columns) for each in bound}
    paid = {name: column for name, column in values.items() if column != [None] * 4}
    assert paid == {INVERSE[key]: [1.0, 0.0, 0.0, 1.0], "inverse_format": [1.0, 1.0, 0.0, 0.0]}
    assert all(each.weight == 1.0 for each in bound)


def test_inverse_rows_are_segments_whose_prompts_do_not_tell_the_verb(recipe):
    prepared = prepare(recipe)
    made = {row["id"]: row for row in map(json.loads, Path("data/tiny_scale/rl.jsonl").read_text().splitlines())}
    found = {key: [row for row in prepared.stage_rows["rl"] if row["task"] == key] for key in recipe.stages["rl"].tasks}
    assert all(len(rows) == len(made) for rows in found.values())
    for key, rows in found.items():
        for row in rows:
            source = made[row["id"].removesuffix(f"/{key}")]
            [said] = [part["text"] for part in row["prompt"][0]["content"] if part["type"] == "text"]
            if key == "tvg":
                assert row["video_start"] is None and source["query"] in said and "<think>" in said
            else:
                [[start, end]] = source["spans"]
                assert (row["video_start"], row["video_end"], row["duration"]) == (start, end, end - start)
                assert source["verb"] not in said and "<think>" not in said
                assert (source["masked_query"] in said) == (key == "vc")


def test_the_recipe_adds_iou_and_format_for_grounding_rows_alone(recipe):
    bound = bind(recipe.stages["rl"].rewards, COLUMNS, grammar=recipe.grammar)
    columns = {name: [value] for name, value in {
        "id": "a", "task": "tvg", "spans": [[24.3, 30.4]], "verb": "closes", "query": "person closes the door",
        "masked_query": "person the door"}.items()}  # fmt: skip
    values = {
        each.__name__: each(completions=["<think>x</think><answer>20 to 30</answer>"], **columns) for each in bound
    }
    paid = {name: value for name, [value] in values.items() if value is not None}
    assert paid == {"tiou": pytest.approx(0.548077, abs=1e-6), "think_format": 1.0}
