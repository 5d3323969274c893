"""The reward of TimeLens (arXiv 2512.14698) as a recipe composes it: IoU alone, with a format term in the ablation."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from rlvtg.reward import bind

COLUMNS = ["id", "prompt", "video", "duration", "query", "spans", "task"]


@dataclass
class Spec:
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = None


IOU = {"tiou": Spec(args={"true": "first"})}
THINKING = {**IOU, "think_format": Spec(args={"strip": False})}


def totals(specs, texts, spans, grammar):
    rewards = bind(specs, COLUMNS, grammar=grammar)
    columns = {"spans": [spans] * len(texts), "id": texts, "task": ["grounding"] * len(texts)}
    return [
        sum(r.weight * v for r, v in zip(rewards, row, strict=True))
        for row in zip(*(r(completions=texts, **columns) for r in rewards), strict=True)
    ]


CASES = [
    ("10.0 - 20.0", 1.0),
    ("15.0 - 25.0", 1 / 3),
    ("12.5 - 17.5", 0.5),
    ("0.0 - 60.0", 1 / 6),
    ("9.9 - 20.1", 0.98039215686),
    ("20.0 - 10.0", 0.0),
    ("10.0 - 10.0", 0.0),
    ("30.0 - 40.0", 0.0),
    ("30.0 - 40.0 seconds, 10.0 - 20.0", 0.0),
]


@pytest.mark.parametrize("grammar", ["happens_in", "timelens"])
@pytest.mark.parametrize(("times", "value"), CASES)
def test_the_sentence_scores_its_iou_under_the_strict_and_the_released_reading(grammar, times, value):
    text = f"The event happens in {times} seconds."
    assert totals(IOU, [text], [[10.0, 20.0]], grammar) == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10.0to20.0", 1.0),
        ("10.0s to 20.0s", 1.0),
        ("00:10 - 00:20", 1.0),
        ("[10.0, 20.0]", 1.0),
        ("10, 20", 1.0),
        ("Starting time: 10.0 seconds. Ending time: 20.0 seconds", 1.0),
        ("10.0–20.0", 1.0),
        ("10.0 — 20.0", 1.0),
        ("tomato 10 stop 20", 1.0),
        ("00:00:10.500 - 00:00:20.250", 0.926829268),
        ("30-40, 10-20", 0.0),
        ("10.0", 0.0),
        ("", 0.0),
        ("-5.0 - 20.0", 2 / 3),
        ("10.5.2 - 20", 0.675675676),
        ("100:10 - 100:20", 1 / 9),
        ("1e1 - 2e1", 0.0),
        (" <think>1 - 2</think><answer>10.0 - 20.0</answer>", 0.0),
        ("<think>1 - 2</think><answer>10.0 - 20.0</answer>", 1.0),
    ],
)
def test_the_released_reading_takes_what_the_paper_takes(text, value):
    assert totals(IOU, [text], [[10.0, 20.0]], "timelens") == [pytest.approx(value)]


def test_the_first_annotated_span_counts():
    spans = [[30.0, 40.0], [10.0, 20.0]]
    texts = [f"The event happens in {times} seconds." for times in ("10.0 - 20.0", "30.0 - 40.0")]
    assert totals(IOU, texts, spans, "timelens") == [0.0, 1.0]
    assert totals({"tiou": Spec()}, texts, spans, "timelens") == [1.0, 1.0]


def test_the_thinking_ablation_adds_the_format():
    texts = ["<think>1 - 2</think><answer>10.0 - 15.0</answer>", "10.0 - 15.0", "<think></think><answer></answer>\n"]
    assert totals(THINKING, texts, [[10.0, 20.0]], "timelens") == [1.5, 0.5, 0.0]


def test_rows_of_another_task_get_none():
    (reward,) = bind({"tiou": Spec(args={"true": "first"}, tasks=["grounding"])}, COLUMNS, grammar="timelens")
    columns = {"spans": [[[10.0, 20.0]], None], "id": ["a", "b"], "task": ["grounding", "qa"]}
    assert reward(completions=["10 - 20", "A"], **columns) == [1.0, None]


def test_another_policy_for_several_spans_is_an_error():
    (reward,) = bind({"tiou": Spec(args={"true": "last"})}, COLUMNS, grammar="timelens")
    with pytest.raises(ValueError, match="got true='last'; it must be 'best' or 'first'"):
        reward(completions=["10 - 20"], spans=[[[10.0, 20.0]]])
