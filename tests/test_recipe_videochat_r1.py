"""VideoChat-R1's recipes: grounding with and without thinking, and several tasks of which each has its own sum."""

import asyncio
import inspect
import json
from dataclasses import asdict
from functools import cache
from typing import Any

import pytest

from rlvtg.data.row import COLUMNS
from rlvtg.recipe import GrpoStage, Recipe, load, tasks_of
from rlvtg.reward import bind
from tests.local_judge import by_words, serving
from tests.test_paper_videochat_r1 import CASES

URL = "stages.rl.rewards.caption_recall.args.url"
CACHE = "stages.rl.rewards.caption_recall.args.cache"


@cache
def recipe(name: str, *overrides: str) -> Recipe:
    return load([f"recipe={name}", "scale=tiny", *overrides])


def without_captions(*overrides: str) -> Recipe:
    """The joint recipe for tests that have no judge."""
    whole = load(["recipe=videochat_r1_joint", "scale=tiny", *overrides])
    del rl(whole).rewards["caption_recall"]
    return whole


def rl(whole: Recipe) -> GrpoStage:
    stage = whole.stages["rl"]
    assert isinstance(stage, GrpoStage)
    return stage


def scores(whole: Recipe, completions: list[str], **columns: Any) -> tuple[dict[str, list[float | None]], list[float]]:
    """The value of each reward for each completion, and the weighted sum, as TRL forms it."""
    count = len(completions)
    rows: dict[str, Any] = {"spans": [[[10.0, 20.0]]] * count, "duration": [60.0] * count, "id": list(range(count))}
    rows |= {"task": ["grounding"] * count, "answer": [None] * count} | columns
    values, totals = {}, [0.0] * count
    for reward in bind(rl(whole).rewards, COLUMNS, grammar=whole.grammar):
        found = reward(completions=completions, **rows)
        values[reward.__name__] = asyncio.run(found) if inspect.isawaitable(found) else found
        totals = [sum + reward.weight * (v or 0) for sum, v in zip(totals, values[reward.__name__], strict=True)]
    return values, totals


def test_thinking_changes_the_prompt_and_the_form_that_is_rewarded_and_nothing_else() -> None:
    plain, think = recipe("videochat_r1"), recipe("videochat_r1_think")
    first, second = asdict(plain), asdict(think)
    assert {key for key in first if first[key] != second[key]} == {"name", "prompt", "output_dir", "stages"}
    one, other = first["stages"]["rl"], second["stages"]["rl"]
    assert {key for key in one if one[key] != other[key]} == {"rewards"}
    assert set(one["rewards"]) == {"tiou", "answer_format"} and set(other["rewards"]) == {"tiou", "think_format"}
    assert one["rewards"]["tiou"] == other["rewards"]["tiou"]
    assert "think" not in plain.prompt and "<think>" in think.prompt


@pytest.mark.parametrize(("completion", "iou", "form"), CASES)
def test_the_thinking_recipe_has_the_totals_of_the_page(completion: str, iou: float, form: float) -> None:
    assert scores(recipe("videochat_r1_think"), [completion])[1] == pytest.approx([iou + form])


@pytest.mark.parametrize(
    ("completion", "total"),
    [
        ("<answer>10.00 to 20.00</answer>", 2.0),
        ("<answer>15 to 25</answer>", 4 / 3),
        ("<answer>20 to 10</answer>", 1.0),
        ("<answer>10-20</answer>", 1.0),
        ("It is <answer>10 to 20</answer>", 1.0),
        ("<think>t</think><answer>10 to 20</answer>", 1.0),
        ("10 to 20", 0.0),
    ],
)
def test_the_answer_only_recipe_rewards_an_answer_block_alone(completion: str, total: float) -> None:
    assert scores(recipe("videochat_r1"), [completion])[1] == pytest.approx([total])


def test_a_zero_length_span_that_is_met_exactly_scores_one_in_every_recipe() -> None:
    for whole in (recipe("videochat_r1"), recipe("videochat_r1_think"), without_captions()):
        values, _ = scores(whole, ["<answer>5 to 5</answer>"], spans=[[[5.0, 5.0]]])
        assert values["tiou"] == [1.0]


def test_each_task_of_the_joint_recipe_has_its_own_sum_and_none_of_the_others() -> None:
    boxes = [[0.1, 0.1, 0.5, 0.5]] * 8
    half = [[0.1, 0.1, 0.3, 0.5]] * 8
    evidence = [[5.0, 10.0], [20.0, 30.0]]
    told = "A man sits. A man stands."
    # task, spans, annotated answer, completion
    rows: list[tuple[str, list[list[float]], str | None, str]] = [
        ("grounding", [[10.0, 20.0]], None, "<think>t</think><answer>15 to 25</answer>"),
        ("grounded_qa", evidence, "(A)", "<think>t</think><answer>(A)</answer><glue>[(5.0, 30.0)]</glue>"),
        ("grounded_qa", evidence, "(A)", "<think>t</think><answer>B</answer><glue>[(5.2, 10.4)]</glue>"),
        ("grounded_qa", evidence, "(D)", "<think>t</think><answer>I think it is DOG</answer><glue>[]</glue>"),
        ("tracking", [], json.dumps(boxes), f"<think>t</think><answer>{half}</answer>"),
        ("tracking", [], json.dumps(boxes), f"<think>t</think><answer>{boxes[:7]}</answer>"),
        ("caption", [], told, "<think>t</think><answer>A man stands</answer>"),
        ("caption", [], told, "<answer>A man sits and then: A man stands</answer>"),
    ]
    tasks, spans, answers, completions = map(list, zip(*rows, strict=True))
    with serving(by_words) as served:
        whole = recipe("videochat_r1_joint", f"{URL}={served.url}", f"{CACHE}=null")
        values, totals = scores(whole, completions, task=tasks, spans=spans, answer=answers)
        assert {body["model"] for _, _, body in served.requests} == {"Qwen/Qwen2.5-72B-Instruct"}
    assert values == {
        "tiou": [pytest.approx(1 / 3), *[None] * 7],
        "think_format": [1.0, *[None] * 5, 1.0, 0.0],
        "set_tiou": [None, pytest.approx(0.6), pytest.approx(0.3116883116883117), 0.0, *[None] * 4],
        "glue_format": [None, 1.0, 1.0, 1.0, *[None] * 4],
        "option_accuracy": [None, 1.0, 0.0, 0.0, *[None] * 4],
        "box_iou": [*[None] * 4, pytest.approx(0.5), 0.0, None, None],
        "box_format": [*[None] * 4, 1.0, 0.0, None, None],
        "caption_recall": [*[None] * 6, 0.5, 1.0],
    }
    assert totals == pytest.approx([4 / 3, 2.6, 1.3116883116883117, 1.0, 1.5, 0.0, 1.5, 1.0])


def test_the_released_reading_of_options_is_one_override_away() -> None:
    whole = without_captions("stages.rl.rewards.option_accuracy.args.letter=videochat_r1")
    text = "<think>t</think><answer>I think it is DOG</answer><glue>[]</glue>"
    assert scores(whole, [text], task=["grounded_qa"], answer=["(D)"])[0]["option_accuracy"] == [1.0]


def test_the_prompts_of_the_joint_recipe_ask_for_the_form_that_their_rewards_read() -> None:
    whole = without_captions()
    prompts = {key: str(task.prompt) for key, task in tasks_of(whole, rl(whole)).items()}
    assert prompts["grounding"] == recipe("videochat_r1_think").prompt == whole.prompt
    assert all("<think>" in prompt for prompt in prompts.values())
    assert {key for key, prompt in prompts.items() if "<glue>" in prompt} == {"grounded_qa"}
    shown = prompts["grounded_qa"].partition("as in ")[2].split(".{video}")[0]
    row = {"task": ["grounded_qa"], "spans": [[[4.25, 9.8], [12.0, 15.5]]], "answer": ["A"]}
    assert scores(whole, [f"<think>t</think>{shown}"], **row)[1] == pytest.approx([3.0])
    shown = whole.prompt.partition("as in ")[2].split(".\n{video}")[0]
    assert scores(whole, [f"<think>t</think>{shown}"], spans=[[[4.25, 9.8]]])[1] == pytest.approx([2.0])


def test_every_row_of_every_task_comes_once_an_epoch() -> None:
    stage = rl(recipe("videochat_r1_joint"))
    assert {key: task.share for key, task in stage.tasks.items()} == dict.fromkeys(
        ["grounding", "grounded_qa", "tracking", "caption"]
    )
