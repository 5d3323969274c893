"""TempSamp-R1 as a whole, arXiv 2509.18056: rewards with their weights, the off-policy completion, the advantages.

The paper and its release are different systems: 3 + 1 completions, shaped IoU and (in the phase with reasoning) format,
with plain sums; 7 + 1 completions, IoU shaped or not and 0.1 of a looser format.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from rlvtg.data.row import rows
from rlvtg.data.sample import Sample
from rlvtg.recipe import load, tasks_of
from rlvtg.reward import bind
from rlvtg.text.grammar import grammar as grammar_named
from rlvtg.training.advantage import anchored_advantages, group_advantages
from rlvtg.training.experts import are_experts, controlled_reward, expert_completion, expert_text


@dataclass
class Spec:
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = None


ANSWERS = {"shaped_tiou": Spec()}
REASONING = {"shaped_tiou": Spec(), "think_format": Spec()}
RELEASE = {"tiou": Spec(), "span_format": Spec(0.1)}
RELEASE_SHAPED = {"shaped_tiou": Spec(), "span_format": Spec(0.1)}


def totals(specs, completions, spans, *, grammar):
    rewards = bind(specs, ["id", "spans"], grammar=grammar)
    columns = {"completions": completions, "spans": [spans] * len(completions)}
    return [
        sum(reward.weight * value for reward, value in zip(rewards, values, strict=True))
        for values in zip(*(reward(**columns) for reward in rewards), strict=True)
    ]


@pytest.mark.parametrize(
    ("completion", "plain", "shaped"),
    [
        ("<answer> 7.0 to 11.0 </answer>", 1.1, 0.901823),
        ("<think>1 to 2</think><answer>8 to 11</answer>", 0.85, 0.870161),
        ("<answer>8 to 11", 0.75, 0.770161),
        ("7 to 11", 1.0, 0.801823),
        ("<answer>7, 11</answer>", 1.0, 0.801823),
        ("<answer>11 to 7</answer>", 0.1, 0.186764),
        ("<answer>9 to 9</answer>", 0.1, 0.186764),
        ("<answer>from 7s to 11s</answer>", 0.0, 0.086764),
        ("", 0.0, 0.086764),
        ("garbage", 0.0, 0.086764),
        ("<answer>-7 to 11</answer>", 1.1, 0.901823),
        ("<answer>00:07 to 00:11</answer>", 0.1, 0.186764),
        ("<answer>5 to 9</answer><answer>7 to 11</answer>", 0.433333, 0.553916),
        ("<answer>7 to 11, 5 to 9</answer>", 0.433333, 0.553916),
        ("<answer>7 to 1100</answer>", 0.103660, 0.191495),
    ],
)
def test_the_release_gives_these_totals(completion, plain, shaped):
    spans = [[7.0, 11.0]]
    assert totals(RELEASE, [completion], spans, grammar="tempsamp_r1") == pytest.approx([plain], abs=1e-6)
    assert totals(RELEASE_SHAPED, [completion], spans, grammar="tempsamp_r1") == pytest.approx([shaped], abs=1e-6)


def test_the_papers_phases_are_shaped_iou_and_then_format_with_it():
    texts = ["<answer>7.00 to 11.00</answer>", "<think>x</think><answer>8.00 to 11.00</answer>", "7.00 to 11.00"]
    spans = [[7.0, 11.0]]
    assert totals(ANSWERS, texts, spans, grammar="to") == pytest.approx([0.801823, 0.770161, 0.086764], abs=1e-6)
    assert totals(REASONING, texts, spans, grammar="to") == pytest.approx([0.801823, 1.770161, 0.086764], abs=1e-6)


def group(on_policy, expert_template):
    spans = [(0.0, 10.0)]
    return [*on_policy, expert_completion(spans, "to", template=expert_template)], [list(span) for span in spans]


def test_three_answers_and_the_expert_are_normalised_together():
    answers = [f"<answer>0 to {end}</answer>" for end in (6, 7, 5)]
    completions, spans = group(answers, "<answer>{spans}</answer>")
    plain = totals({"tiou": Spec()}, completions, spans, grammar="to")
    assert plain == pytest.approx([0.6, 0.7, 0.5, 1.0])
    assert group_advantages(plain, eps=1e-6) == pytest.approx([-0.463, 0.0, -0.926, 1.389], abs=1e-3)
    shaped = totals(ANSWERS, completions, spans, grammar="to")
    assert group_advantages(shaped, eps=1e-6) == pytest.approx([-0.350, 0.416, -1.196, 1.129], abs=1e-3)


def test_an_anchored_expert_leads_three_answers_by_a_fifth_whatever_it_earns():
    answers = [f"<answer>0 to {end}</answer>" for end in (6, 7, 5)]
    completions, spans = group(answers, "<answer>{spans}</answer>")
    *rewards, _ = totals({"tiou": Spec()}, completions, spans, grammar="to")
    on_policy, expert = anchored_advantages(rewards)
    assert on_policy == pytest.approx([0.0, 0.99999, -0.99999], abs=1e-5)
    assert expert == pytest.approx(1.199988, abs=1e-6)


def test_a_downscaled_expert_earns_four_fifths():
    completions, spans = group([], "<answer>{spans}</answer>")
    [reward] = totals({"tiou": Spec()}, completions, spans, grammar="to")
    assert controlled_reward(reward, scale=0.8) == pytest.approx(0.8)


@pytest.mark.parametrize("specs", [RELEASE, RELEASE_SHAPED])
def test_seven_misses_and_the_releases_expert_are_the_same_group_shaped_or_not(specs):
    completions = ["<answer>30 to 40</answer>"] * 7 + [expert_completion([(7.0, 11.0)], "tempsamp_r1")]
    assert completions[-1] == "<answer> 7.00 to 11.00 </answer>"
    rewards = totals(specs, completions, [[7.0, 11.0]], grammar="tempsamp_r1")
    assert group_advantages(rewards, eps=1e-6) == pytest.approx([-0.354] * 7 + [2.475], abs=1e-3)


# --- what the recipes do


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda name, *words: load([f"recipe={name}", "scale=tiny", *words])


STAGES = [("tempsamp_r1", "answers", 4), ("tempsamp_r1", "reasoning", 4), ("tempsamp_r1_release", "rl", 8)]


@pytest.mark.parametrize(("name", "key", "size"), STAGES)
def test_every_group_has_one_expert_whose_answer_the_recipe_reads_and_rewards_best(name, key, size, shipped):
    recipe = shipped(name)
    stage = recipe.stages[key]
    assert are_experts(3 * size, stage.num_generations).count(True) == 3
    assert are_experts(size, stage.num_generations) == [False] * (size - 1) + [True]
    assert stage.expert.anchor is None and stage.expert.scale == 1 and stage.expert.cap is None
    row = {"id": "a", "spans": [[7.0, 11.25]], "duration": 30.0}
    text = expert_text(row, recipe.grammar, stage.expert)
    assert grammar_named(recipe.grammar).parse(text) == [(7.0, 11.25)]
    best = {"answers": 0.801823, "reasoning": 1.801823, "rl": 0.901823}[key]
    assert totals(stage.rewards, [text], row["spans"], grammar=recipe.grammar) == pytest.approx([best], abs=1e-6)


@pytest.mark.parametrize(
    ("end", "shaped"),
    [(0.5, 0.149932), (1, 0.210020), (3, 0.422459), (5, 0.596390), (8, 0.8), (9, 0.800953), (10, 0.801823)],
)
def test_the_recipes_shape_the_iou_as_tabulated(end, shaped, shipped):
    """An answer from 0 to 10 r seconds about the first ten has the IoU r."""
    recipe = shipped("tempsamp_r1")
    answer = f"<answer>0 to {end}</answer>"
    for key, text, form in (
        ("answers", answer, 0),
        ("reasoning", answer, 0),
        ("reasoning", f"<think>x</think>{answer}", 1),
    ):
        rewards = recipe.stages[key].rewards
        assert totals(rewards, [text], [[0, 10]], grammar=recipe.grammar) == pytest.approx([shaped + form], abs=1e-6)
    release = shipped("tempsamp_r1_release")
    for text in (answer, f"0 to {end}", ""):
        expected = totals(RELEASE_SHAPED, [text], [[0, 10]], grammar="tempsamp_r1")
        assert totals(release.stages["rl"].rewards, [text], [[0, 10]], grammar=release.grammar) == expected


def test_advantages_have_the_recipes_epsilon(shipped):
    stage = shipped("tempsamp_r1").stages["answers"]
    completions, spans = group([f"<answer>0 to {end}</answer>" for end in (6, 7, 5)], stage.expert.template)
    rewards = totals(stage.rewards, completions, spans, grammar="to")
    found = group_advantages(rewards, eps=stage.advantage_eps)
    assert found == pytest.approx([-0.350, 0.416, -1.196, 1.129], abs=1e-3)
    assert stage.advantage_eps == shipped("tempsamp_r1_release").stages["rl"].advantage_eps == 1e-6


def test_the_second_phase_asks_to_think_and_the_first_does_not(shipped):
    recipe = shipped("tempsamp_r1")
    assert list(recipe.stages) == ["answers", "reasoning"]
    asked = {}
    for key, stage in recipe.stages.items():
        [row] = rows([Sample("a", "a.mp4", 30.0, "a dog barks", ((1.0, 2.0),))], tasks_of(recipe, stage)[None].prompt)
        [video, text] = row["prompt"][0]["content"]
        assert video == {"type": "video"} and '"a dog barks"' in text["text"] and "<answer>" in text["text"]
        asked[key] = "<think>" in text["text"]
        assert stage.num_train_epochs == 1
    assert asked == {"answers": False, "reasoning": True}
    assert ["think_format" in stage.rewards for stage in recipe.stages.values()] == [False, True]


def test_the_release_samples_and_clips_as_its_configuration_says(shipped):
    stage = shipped("tempsamp_r1_release").stages["rl"]
    assert (stage.temperature, stage.top_p, stage.epsilon, stage.epsilon_high, stage.beta) == (
        1.0,
        0.85,
        0.2,
        0.28,
        0.0,
    )
    assert (stage.lr_scheduler_type, stage.warmup_steps, stage.weight_decay) == ("constant_with_warmup", 0.05, 0.01)


@pytest.mark.parametrize(("key", "number"), [("scale", 0.8), ("anchor", 1.2)])
def test_the_papers_other_ways_of_holding_an_expert_back_are_overrides(key, number, shipped):
    changes = (f"expert.{key}={number}", "rewards.shaped_tiou=null", "rewards.tiou={weight: 1.0}")
    stages = ("answers", "reasoning")
    recipe = shipped("tempsamp_r1", *(f"stages.{stage}.{change}" for stage in stages for change in changes))
    for stage in stages:
        assert getattr(recipe.stages[stage].expert, key) == number
        assert set(recipe.stages[stage].rewards) - {"think_format"} == {"tiou"}
