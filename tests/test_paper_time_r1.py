"""Time-R1's composed rewards, arXiv 2503.13377, on worked examples: weights, sums, and terms that are only logged."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rlvtg.data.difficulty import Reached, gaussian_weight
from rlvtg.data.selected import choose_for_round
from rlvtg.recipe import load
from rlvtg.reward import bind
from tests.test_recipe import make_sources

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


# --- what the recipes do


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A recipe as it ships, with empty files in the place of its data."""

    def loaded(name, *words):
        make_sources(name)
        return load([f"recipe={name}", *words])

    monkeypatch.chdir(tmp_path)
    return loaded


def chosen(recipe, number, ious):
    """What a round of the recipe's post-training takes of rows whose greedy answers reach `ious`."""
    row = {"video": "a.mp4", "duration": 30.0, "query": "a dog", "spans": [[10.0, 20.0]]}
    rows = [row | {"id": str(k)} for k in range(len(ious))]
    found = choose_for_round(
        recipe, "rl", number, rows, lambda asked: [Reached(one["id"], (ious[int(one["id"])],)) for one in asked], 8
    )
    return [int(one["id"]) for one in found.rows], found


def test_post_training_picks_2500_answered_rows_around_an_iou_of_three_tenths(shipped):
    recipe = shipped("time_r1")
    ious = [0.0] * 500 + [0.3] * 2400 + [0.7] * 1000 + [1.0] * 1000
    picked, choice = chosen(recipe, 1, ious)
    assert len(picked) == len(set(picked)) == 2500 and min(picked) >= 500
    chance = dict(zip(picked, choice.probabilities, strict=True))
    likely = {ious[row]: value for row, value in chance.items()}
    assert likely[0.7] / likely[0.3] == pytest.approx(0.135335, abs=1e-6)  # w(.3) = 1
    assert gaussian_weight(0.0, recipe.stages["rl"].select[1].mean, recipe.stages["rl"].select[1].std) == pytest.approx(
        0.32465, abs=1e-5
    )
    assert chosen(recipe, 1, [0.0, *[0.3] * 9, 1.0])[0].count(0) == 0  # 10 rows, since no more are answered


def test_every_epoch_is_a_round_that_leaves_out_what_has_become_easy_or_is_not_answered(shipped):
    recipe = shipped("time_r1")
    stage = recipe.stages["rl"]
    assert (stage.rounds, stage.num_train_epochs, stage.difficulty.num_generations) == (5, 1.0, 1)
    ious = [0.7, 0.0, 0.71, 0.01, 1.0, 0.3, 0.4, 0.5, 0.6, 0.2, 0.1, 0.65]
    assert chosen(recipe, 2, ious)[0] == chosen(recipe, 5, ious)[0] == [0, 3, 5, 6, 7, 8, 9, 10, 11]
    many, _ = chosen(recipe, 2, [k / 10_000 for k in range(7001)])
    assert len(many) == 2500 and many[0] == 1 and many[-1] == 7000  # from the hardest to the easiest


def test_the_first_pick_goes_by_the_difficulty_of_the_released_file_or_by_a_pass_of_ones_own(shipped):
    difficulty = shipped("time_r1").stages["rl"].difficulty
    assert (difficulty.file, difficulty.format) == ("data/time_r1/train_2k5.json", "time_r1")
    own = shipped("time_r1", "stages.rl.difficulty.file=null", "stages.rl.difficulty.format=rlvtg").stages["rl"]
    assert (own.difficulty.file, own.difficulty.max_new_tokens) == (None, 1024)
    plain = shipped(
        "time_r1", "stages.rl.rounds=1", "stages.rl.reselect=null", "stages.rl.num_train_epochs=5"
    ).stages["rl"]  # fmt: skip
    assert (plain.rounds, plain.num_train_epochs, plain.reselect) == (1, 5.0, None)


@pytest.mark.parametrize("name", ["time_r1_charades", "time_r1_charades_3b", "time_r1_activitynet"])
def test_fine_tuning_rewards_plain_iou_without_kl_for_two_epochs(name, shipped):
    recipe = shipped(name)
    [stage] = recipe.stages.values()
    completions = [thought("12 to 18"), thought("9 to 21"), thought("none"), "<answer>12 to 18</answer>", ""]
    assert scores(stage.rewards, completions) == scores(FINE_TUNE, completions)
    assert (stage.beta, stage.num_train_epochs, stage.rounds, stage.max_completion_length) == (0.0, 2.0, 1, 1024)
    assert (stage.lora, stage.freeze, stage.learning_rate) == (None, ["visual.patch_embed", "visual.blocks"], 1e-6)
    assert recipe.data["rl"].reader == ("activitynet" if "activitynet" in name else "charades_sta")
    assert ("3B" in recipe.model) == name.endswith("_3b")
