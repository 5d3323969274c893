"""MUSEG's two phases as wholes: format + segment_matching, weights 1, on the worked examples of its code."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from rlvtg.reward import bind

ONE, TWO, THREE = [[10.0, 20.0]], [[5.0, 10.0], [30.0, 40.0]], [[0.0, 4.0], [10.0, 14.0], [20.0, 24.0]]


@dataclass
class Spec:
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = None


def total(citation, text, spans, matching="code"):
    specs = {"museg_format": Spec(args={"citation": citation}), "segment_matching": Spec(args={"matching": matching})}
    rewards = bind(specs, ["id", "prompt", "video", "duration", "query", "spans", "task"], grammar="ranges")
    columns = {"completions": [text], "spans": [spans], "id": ["v1"], "duration": [60.0], "task": ["tal"]}
    return sum(reward.weight * reward(**columns)[0] for reward in rewards)


def blocks(think, answer):
    return f"<think>{think}</think><answer>{answer}</answer>"


def cited(answer):
    times = " ".join(str(float(part)) for token in answer.split() for part in token.split("-"))
    return blocks(times, answer)


# completion, annotation, format in the first and in the second phase, both matchings
CASES = [
    (cited("10.0-20.0"), ONE, 1.0, 1.0, 1.999999),
    (blocks("no times", "10.0-20.0"), ONE, 0.6, 1.0, 1.999999),
    (blocks("10 to 20", "10-20"), ONE, 0.6, 1.0, 1.999999),
    (blocks("500 and 1000", "5.0-10.0"), [[5.0, 10.0]], 1.0, 1.0, 1.999999),
    (blocks("10.0 " * 11 + "20.0", "10.0-20.0"), ONE, 0.6, 1.0, 1.999999),
    (blocks("10.0 " * 10 + "20.0", "10.0-20.0"), ONE, 1.0, 1.0, 1.999999),
    (cited("12.30-18.55"), ONE, 1.0, 1.0, 0.76923 + 0.8125),
    (cited("15.0-25.0"), ONE, 1.0, 1.0, 0.499999 + 0.666667),
    (cited("25.0-30.0"), ONE, 1.0, 1.0, 0.375),
    (cited("100.0-104.0"), ONE, 1.0, 1.0, 0.074468),
    (blocks("10.0 20.0", "10.0 - 20.0"), ONE, 0.2, 0.2, 0.0),
    (blocks("10.0 20.0", "10.0 to 20.0"), ONE, 0.2, 0.2, 0.0),
    (blocks("10.0 20.0", "10.0s-20.0s"), ONE, 0.2, 0.2, 0.0),
    (blocks("10.0 20.0", "10.0,20.0"), ONE, 0.2, 0.2, 0.0),
    (blocks("10.0 20.0", "00:10-00:20"), ONE, 0.2, 0.2, 0.0),
    (blocks("10.0 20.0", "10.0–20.0"), ONE, 0.2, 0.2, 0.0),
    (blocks("5.0 20.0", "-5.0-20.0"), ONE, 0.2, 0.2, 0.0),
    (cited("20.0-10.0"), ONE, 1.0, 1.0, 0.0),
    (cited("10.0-10.0"), ONE, 1.0, 1.0, 0.0),
    (blocks("x", ""), ONE, 1.0, 1.0, 0.0),
    ("<answer>10.0-20.0</answer>", ONE, 0.0, 0.0, 1.999999),
    (cited("10.0-20.0") + " more", ONE, 0.0, 0.0, 1.999999),
    ("<answer>10.0-20.0</answer><think>10.0 20.0</think>", ONE, 0.0, 0.0, 1.999999),
    ("<think>10.0 20.0</think>" + cited("10.0-20.0"), ONE, 0.0, 0.0, 1.999999),
    (blocks("x", "1.0-2.0") + "<answer>10.0-20.0</answer>", ONE, 0.0, 0.0, 0.0),
    (blocks("in <answer> 10.0 20.0", "10.0-20.0"), ONE, 0.0, 0.0, 0.0),
    (cited("5-10"), TWO, 1.0, 1.0, 0.5 + 0.5),
    (cited("30-40 5-10"), TWO, 1.0, 1.0, 0.999999 + 0.214286),
    (cited("5-40"), TWO, 1.0, 1.0, 0.6 + 0.285714),
    (cited("6-9 31-45 50-55"), TWO, 1.0, 1.0, 0.648648 + 0.533333),
    (cited("5-8 7-10 30-40"), TWO, 1.0, 1.0, 0.999999 + 0.332323),
    (cited("5-10 5-10"), TWO, 1.0, 1.0, 0.5 + 0.607143),
    (cited("5-10 40-30"), TWO, 1.0, 1.0, 0.0),
    (cited("10-14 20-24"), THREE, 1.0, 1.0, 0.799999 + 0.190476),
    (cited("1-5 11-15 21-25"), THREE, 1.0, 1.0, 0.749999 + 0.8),
    (cited("0-24"), THREE, 1.0, 1.0, 0.666666 + 0.194444),
]


@pytest.mark.parametrize(("text", "spans", "first", "second", "matched"), CASES)
def test_the_two_phases_add_format_and_matching(text, spans, first, second, matched):
    assert total("code", text, spans) == pytest.approx(first + matched, abs=3e-6)
    assert total(None, text, spans) == pytest.approx(second + matched, abs=3e-6)


def test_the_most_that_a_completion_can_get_is_three():
    assert 2.999999 < total("code", cited("5.0-10.0 30.0-40.0"), TWO) < 3
    assert total("code", cited("5.0-10.0 30.0-40.0"), TWO, matching="paper") == 2.0


def test_the_papers_matching_is_exact_and_does_not_depend_on_order():
    assert total(None, cited("30-40 5-10"), TWO, matching="paper") == 2.0
    assert total(None, cited("5-10"), TWO, matching="paper") == pytest.approx(1 + (5 / 15 + 0.5) / 2)
    assert total(None, blocks("x", ""), TWO, matching="paper") == 1.0
