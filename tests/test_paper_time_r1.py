"""Time-R1's composed rewards, arXiv 2503.13377, on worked examples: weights, sums, and terms that are only logged."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from rlvtg.recipe import load
from rlvtg.reward import bind

COLUMNS = ["id", "prompt", "video", "duration", "query", "spans", "task", "answer"]
LOGGED = ("timestep_pair", "think_length", "keyword_usage", "paragraph_structure")


@dataclass
class Spec:
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = None


FINE_TUNE = {"tiou": Spec(), "think_format": Spec()}
POST_TRAIN = {"timestamp_tiou": Spec(), "think_format": Spec()}


def scores(specs, completions, **columns):
    """The value of each reward for each completion, and the weighted sum, as TRL forms it."""
    count = len(completions)
    cells = {"spans": [[[10.0, 20.0]]] * count, "duration": [30.0] * count, "task": ["grounding"] * count} | columns
    bound = bind(specs, COLUMNS, grammar="to")
    values = {reward.__name__: reward(completions=completions, **cells) for reward in bound}
    weights = {reward.__name__: reward.weight for reward in bound}
    totals = [sum(weights[name] * (values[name][row] or 0.0) for name in values) for row in range(count)]
    return values, totals


def thought(answer):
    return f"<think>x</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("answer", "plain", "timestamp"),
    [
        ("10 to 20", 1.0, 1.0),
        ("12.54 to 17.83", 0.529, 0.449187),
        ("0 to 30", 0.333333, 0.148148),
        ("10 to 15", 0.5, 0.416667),
        ("12 to 18", 0.6, 0.522667),
        ("9 to 21", 0.833333, 0.778704),
        ("10 and 19.5", 0.95, 0.934167),
        ("20 to 10", 0.0, 0.0),
        ("15 to 15", 0.0, 0.0),
        ("21 to 25", 0.0, 0.0),
    ],
)
def test_both_stages_add_one_for_the_form(answer, plain, timestamp):
    assert scores(FINE_TUNE, [thought(answer)])[1] == pytest.approx([1 + plain], abs=1e-6)
    assert scores(POST_TRAIN, [thought(answer)])[1] == pytest.approx([1 + timestamp], abs=1e-6)


def test_totals_reach_from_nothing_to_two():
    completions = [thought("10 to 20"), thought("from ten to twenty"), "<answer>10 to 20</answer>", ""]
    assert scores(POST_TRAIN, completions)[1] == [2.0, 1.0, 1.0, 0.0]


def test_an_end_far_beyond_the_video_makes_the_total_less_than_the_form_alone():
    far = {"spans": [[[0.0, 10.0]]], "duration": [10.0]}
    assert scores(POST_TRAIN, [thought("0 to 1000")], **far)[1] == pytest.approx([1 - 0.98])
    clamped = POST_TRAIN | {"timestamp_tiou": Spec(args={"clamp": True})}
    assert scores(clamped, [thought("0 to 1000")], **far)[1] == [1.0]


def test_the_recipe_states_the_post_training_reward(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    rewards = load(["recipe=time_r1", "scale=tiny"]).stages["rl"].rewards
    completions = [thought("12 to 18"), thought("none"), ""]
    assert scores(rewards, completions) == scores(POST_TRAIN, completions)


def test_logged_terms_have_values_and_no_weight():
    thinking = (
        "<think>However, I notice it.\n<timestep>10.0 to 20.0</timestep></think>\n<answer>10.00 to 20.00</answer>"
    )
    values, totals = scores(POST_TRAIN | {name: Spec(weight=0.0) for name in LOGGED}, [thinking, "10 to 20"])
    assert totals == [2.0, 0.0]
    assert values["timestep_pair"] == [0.2, 0.0]
    assert values["think_length"] == pytest.approx([0.055, 0.0])
    assert values["keyword_usage"] == pytest.approx([0.2, 0.0])
    assert values["paragraph_structure"] == pytest.approx([0.1, 0.0])


def test_multiple_choice_rows_get_their_own_term_and_none_of_the_others():
    specs = {
        "timestamp_tiou": Spec(tasks=["grounding"]),
        "think_format": Spec(),
        "option_accuracy": Spec(args={"letter": "videochat_r1"}, tasks=["mqa"]),
    }
    columns = {
        "task": ["grounding", "mqa", "mqa"],
        "spans": [[[10.0, 20.0]], [], []],
        "answer": [None, "(B)", "(B)"],
        "duration": [30.0] * 3,
    }
    completions = [thought("12 to 18"), thought("The best answer is B."), thought("A")]
    values, totals = scores(specs, completions, **columns)
    assert values["timestamp_tiou"] == pytest.approx([0.522667, None, None], abs=1e-6)
    assert values["option_accuracy"] == [None, 1.0, 0.0]
    assert totals == pytest.approx([1.522667, 2.0, 1.0], abs=1e-6)
