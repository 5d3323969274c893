"""The released reward of TimeLens2 (arXiv 2607.17423): `twass1,tiou,parse_penalty`, a plain sum from -1 to 2."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from rlvtg.reward import bind

COLUMNS = ["id", "prompt", "video", "duration", "query", "spans", "task"]
TASKS = ["grounding"]


@dataclass
class Spec:
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = field(default_factory=lambda: TASKS)


RELEASED = {"wasserstein": Spec(args={"beta": 1.0}), "multi_span_tiou": Spec(), "parse_penalty": Spec()}
ONE = [[10.0, 20.0]]
TWO = [[5.0, 10.0], [30.0, 40.0]]


def values(text, spans, task="grounding"):
    """(value, weight) of each reward of the recipe for one row."""
    rewards = bind(RELEASED, COLUMNS, grammar="json_list")
    columns = {"spans": [spans], "id": ["a"], "task": [task]}
    return [(reward(completions=[text], **columns)[0], reward.weight) for reward in rewards]


CASES = [
    ("[[10.0, 20.0]]", ONE, 2.0),
    ("[[15, 25]]", ONE, 0.93986),
    ("[[30, 40]]", ONE, 0.13534),
    ("[[21, 22]]", ONE, 0.52205),
    ("[[0, 60]]", ONE, 0.34935),
    ("[[10, 14], [16, 20]]", ONE, 1.75123),
    ("[[-5, 20]]", ONE, 0.87237),
    ("[[20, 10]]", ONE, 2.0),
    ("[[10, 10]]", ONE, -1.0),
    ("The event happens in 10 - 20 seconds.", ONE, -1.0),
    ("", ONE, -1.0),
    ("[[5, 10]]", TWO, 0.62791),
    ("[[5, 40]]", TWO, 1.11905),
    ("[[5, 10], [30, 40], [50, 55]]", TWO, 1.39118),
    ("[[30, 40], [5, 10]]", TWO, 2.0),
    ("[[5, 10], [10, 10]]", TWO, -1.0),
]


@pytest.mark.parametrize(("text", "spans", "total"), CASES)
def test_the_released_sum(text, spans, total):
    assert sum(value * weight for value, weight in values(text, spans)) == pytest.approx(total, abs=5e-6)


def test_rows_of_another_task_get_none():
    assert [value for value, _ in values("A", None, task="qa")] == [None, None, None]


def test_answers_that_miss_the_event_differ_all_the_same():
    totals = [sum(value for value, _ in values(f"[[{start}, {start + 10}]]", ONE)) for start in (25, 30, 60, 90)]
    assert totals == sorted(totals, reverse=True) and len(set(totals)) == 4
