"""VideoChat-R1's and R1.5's composed rewards, arXiv 2504.06958 and 2509.21100, on worked examples."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from rlvtg.reward import bind

COLUMNS = ["id", "prompt", "video", "duration", "query", "spans", "task", "answer", "options"]


@dataclass
class Spec:
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = None


GROUNDING = {"tiou": Spec(args={"point": 1.0}), "think_format": Spec()}
JOINT = {
    "tiou": Spec(args={"point": 1.0}, tasks=["grounding"]),
    "think_format": Spec(tasks=["grounding"]),
    "set_tiou": Spec(args={"grammar": "glue", "empty": 1.0}, tasks=["grounded_qa"]),
    "glue_format": Spec(tasks=["grounded_qa"]),
    "option_accuracy": Spec(args={"letter": "videochat_r1"}, tasks=["grounded_qa"]),
    "box_iou": Spec(tasks=["tracking"]),
    "box_format": Spec(tasks=["tracking"]),
}
LATER = {
    "tiou": Spec(args={"grammar": "tuples_few", "union": "true", "point": 1.0}, tasks=["grounding"]),
    "answer_format": Spec(tasks=["grounding", "detection"]),
    "set_tiou": Spec(args={"grammar": "glue_few", "empty": 1.0}, tasks=["grounded_qa"]),
    "glue_format": Spec(args={"think": False, "most": 3}, tasks=["grounded_qa"]),
    "option_accuracy": Spec(args={"letter": "videochat_r1"}, tasks=["grounded_qa", "image_qa"]),
    "box_iou": Spec(args={"untagged": True}, tasks=["detection"]),
}


def scores(specs, completions, **columns):
    """The value of each reward for each completion, and the weighted sum, as TRL forms it."""
    count = len(completions)
    cells = {"spans": [[[10.0, 20.0]]] * count, "duration": [60.0] * count, "task": ["grounding"] * count} | columns
    bound = bind(specs, COLUMNS, grammar="to_ordered")
    values = {reward.__name__: reward(completions=completions, **cells) for reward in bound}
    weights = {reward.__name__: reward.weight for reward in bound}
    totals = [sum(weights[name] * (values[name][row] or 0.0) for name in values) for row in range(count)]
    return values, totals


CASES = [
    ("<think>t</think><answer>10.00 to 20.00</answer>", 1.0, 1),
    ("<think>t</think><answer>15 to 25</answer>", 1 / 3, 1),
    ("<think>t</think><answer>0 to 60</answer>", 1 / 6, 1),
    ("<think>t</think><answer>between 10 and 20</answer>", 1.0, 1),
    ("<think>t</think><answer>10 TO 20</answer>", 1.0, 1),
    ("<think>t</think><answer>10.0s to 20.0s</answer>", 0.0, 1),
    ("<think>t</think><answer>10-20</answer>", 0.0, 1),
    ("<think>t</think><answer>20.0 to 10.0</answer>", 0.0, 1),
    ("<think>t</think><answer>00:10 to 00:20</answer>", 0.0, 1),
    ("<think>t</think><answer></answer>", 0.0, 1),
    ("<think>t</think><answer>-5.0 to 20.0</answer>", 2 / 3, 1),
    ("<think>t</think><answer>1 to 2, 10 to 20</answer>", 1.0, 1),
    ("<think>t</think><answer>10 to 20, 30 to 40</answer>", 0.0, 1),
    ("<think>t</think><answer>10.5.2 to 20</answer>", 10 / 14.8, 1),
    ("<think>t</think><answer>１０ to ２０</answer>", 1.0, 1),
    ("so: <think>t</think><answer>10 to 20</answer>", 1.0, 0),
    ("<answer>10 to 20</answer>", 1.0, 0),
    ("<think>t</think><ANSWER>10 to 20</ANSWER>", 0.0, 0),
]


@pytest.mark.parametrize(("completion", "iou", "form"), CASES)
def test_grounding_adds_overlap_and_form(completion, iou, form):
    # The paper's page gives the overlap of `10.5.2 to 20`, read as 5.2 to 20, with four digits: .6757.
    values, totals = scores(GROUNDING, [completion])
    assert (values["tiou"], values["think_format"]) == (pytest.approx([iou]), [form])
    assert totals == pytest.approx([iou + form])


def test_a_joint_batch_gives_each_task_its_own_sum_and_none_of_the_others():
    boxes = [[0.1, 0.1, 0.5, 0.5]] * 8
    half = [[0.1, 0.1, 0.3, 0.5]] * 8
    evidence = [[5.0, 10.0], [20.0, 30.0]]
    rows = [
        ("grounding", [[10.0, 20.0]], None, "<think>t</think><answer>15 to 25</answer>"),
        ("grounded_qa", evidence, "(A)", "<think>t</think><answer>(A)</answer><glue>[(5.0, 30.0)]</glue>"),
        ("grounded_qa", evidence, "(A)", "<think>t</think><answer>B</answer><glue>[(5.2, 10.4)]</glue>"),
        ("grounded_qa", evidence, "(A)", "<think>t</think><answer>A</answer><glue>[[5.0, 10.0]]</glue>"),
        ("tracking", [], json.dumps(boxes), f"<think>t</think><answer>{half}</answer>"),
        ("tracking", [], json.dumps(boxes), f"<think>t</think><answer>{boxes[:7]}</answer>"),
    ]
    tasks, spans, answers, completions = map(list, zip(*rows, strict=True))
    values, totals = scores(JOINT, completions, task=tasks, spans=spans, answer=answers)
    assert values == {
        "tiou": [pytest.approx(1 / 3), None, None, None, None, None],
        "think_format": [1.0, None, None, None, None, None],
        "set_tiou": [None, pytest.approx(0.6), pytest.approx(0.3116883116883117), 0.0, None, None],
        "glue_format": [None, 1.0, 1.0, 0.0, None, None],
        "option_accuracy": [None, 1.0, 0.0, 1.0, None, None],
        "box_iou": [None, None, None, None, pytest.approx(0.5), 0.0],
        "box_format": [None, None, None, None, 1.0, 0.0],
    }
    assert totals == pytest.approx([4 / 3, 2.6, 1.3116883116883117, 1.0, 1.5, 0.0])


def test_the_later_version_wants_no_thinking_and_at_most_three_spans():
    evidence = [[5.0, 10.0], [20.0, 30.0]]
    rows = [
        ("grounding", [[10.0, 20.0]], None, "<answer>[(10.0, 14.0), (16.0, 20.0)]</answer>"),
        ("grounding", [[10.0, 20.0]], None, "<answer>[(10.0, 20.0), (30.0, 40.0)]</answer>"),
        ("grounding", [[10.0, 20.0]], None, "<answer>[(1,2),(3,4),(10,20),(30,40)]</answer>"),
        ("grounding", [[10.0, 20.0]], None, "<think>t</think><answer>[(10.0, 20.0)]</answer>"),
        ("grounding", [[10.0, 20.0]], None, "<answer>10.0 to 20.0</answer>"),
        ("grounded_qa", evidence, "A", "<answer>A</answer><glue>[(5.0, 10.0), (20.0, 30.0)]</glue>"),
        ("grounded_qa", evidence, "A", "<answer>A</answer><glue>[(1,2),(3,4),(5,6),(7,8)]</glue>"),
        ("detection", [], "[0, 0, 10, 10]", "<answer>[5,5,15,15]</answer>"),
    ]
    tasks, spans, answers, completions = map(list, zip(*rows, strict=True))
    values, totals = scores(LATER, completions, task=tasks, spans=spans, answer=answers)
    assert values["tiou"] == pytest.approx([0.8, 0.5, 0.0, 1.0, 0.0, None, None, None])
    assert values["answer_format"] == [1.0, 1.0, 1.0, 0.0, 1.0, None, None, 1.0]
    assert totals == pytest.approx([1.8, 1.5, 1.0, 1.0, 1.0, 3.0, 1.0, 1 + 25 / 175])


def test_evidence_in_an_image_weighs_a_fifth():
    specs = {"box_iou": Spec(weight=0.2, args={"block": "glue", "untagged": True}), "box_format": Spec(weight=0.0)}
    text = "<answer>A</answer><glue>[0, 0, 10, 5]</glue>"
    assert scores(specs, [text], answer=["[0, 0, 10, 10]"])[1] == pytest.approx([0.1])
