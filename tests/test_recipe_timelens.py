"""TimeLens's recipes: text timestamps, no thinking, hard rows chosen by the model's own answers, no deviation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvtg.data.difficulty import Reached
from rlvtg.data.row import COLUMNS, messages
from rlvtg.data.selected import Choice, choose
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.recipe import GrpoStage, Recipe, SftStage, load
from rlvtg.reward import bind
from rlvtg.text.grammar import grammar
from rlvtg.text.span import snapped
from rlvtg.training.advantage import batch_advantages
from rlvtg.training.curriculum import by_difficulty
from rlvtg.training.early_stop import Flat, watched
from tests.test_paper_timelens import CASES
from tests.test_paper_timelens2 import CASES as CASES_2
from tests.test_recipe import make_sources
from tests.test_selected import IOUS, rows_of
from tests.tiny_qwen import model_and_processor, write_video


def whole(name: str, place: Path) -> Recipe:
    """The recipe itself, at its own scale, with empty files for its data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        make_sources(name)
        return load([f"recipe={name}"])


@pytest.fixture(scope="module")
def timelens(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return whole("timelens_7b", tmp_path_factory.mktemp("timelens"))


@pytest.fixture(scope="module")
def timelens2(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return whole("timelens2", tmp_path_factory.mktemp("timelens2"))


def rl(recipe: Recipe) -> GrpoStage:
    stage = recipe.stages["rl"]
    assert isinstance(stage, GrpoStage)
    return stage


def total(recipe: Recipe, text: str, spans: Sequence[Sequence[float]]) -> float:
    rewards = bind(rl(recipe).rewards, COLUMNS, grammar=recipe.grammar)
    columns: dict[str, Any] = {"completions": [text], "spans": [spans], "id": ["a"], "duration": [60.0]}
    return sum(reward.weight * reward(**columns)[0] for reward in rewards)


def chosen(recipe: Recipe, rows: list[dict[str, Any]], ious: Sequence[Sequence[float]]) -> tuple[Choice, list[str]]:
    """What the recipe's selections choose, and the ids of the rows that were asked about."""
    asked: list[str] = []
    known = {row["id"]: Reached(row["id"], tuple(map(float, one))) for row, one in zip(rows, ious, strict=True)}

    def ask(some: Sequence[dict[str, Any]]) -> list[Reached]:
        asked.extend(row["id"] for row in some)
        return [known[row["id"]] for row in some]

    return choose(rows, rl(recipe).select, ask, seed=recipe.seed), asked


# TimeLens


def test_timelens_chooses_with_the_probabilities_of_its_page(timelens: Recipe) -> None:
    choice, _ = chosen(timelens, rows_of(len(IOUS)), [[iou] for iou in IOUS])
    page = [0.0588, 0.0588, 0.0588, 0.0603, 0.2414, 0.2282, 0.1831, 0.0910, 0.0193, 0.00037, 2.9e-5, 3.1e-6]
    assert choice.probabilities == pytest.approx(page, rel=0.02, abs=6e-5)
    assert len(choice.rows) == 12  # a small range of durations is kept whole


def test_timelens_draws_equally_many_rows_of_each_duration_and_mostly_hard_ones(timelens: Recipe) -> None:
    rows = [{**row, "duration": 10.0 if k < 1000 else 35.0} for k, row in enumerate(rows_of(1400))]
    ious = [[(k % 100) / 99] for k in range(1400)]
    choice, _ = chosen(timelens, rows, ious)
    assert [sum(row["duration"] == length for row in choice.rows) for length in (10.0, 35.0)] == [277, 277]
    assert choice.reached is not None
    assert sum(one.mean for one in choice.reached) / 554 < 0.4 < sum(sum(one) for one in ious) / 1400
    again, _ = chosen(timelens, rows, ious)
    assert [row["id"] for row in again.rows] == [row["id"] for row in choice.rows]


def test_timelens_asks_once_and_greedily_and_only_about_rows_that_fit(timelens: Recipe) -> None:
    odd: list[dict[str, Any]] = [
        {"duration": 4.9},
        {"duration": 500.5},
        {"query": "word " * 200 + "word"},
        {"spans": [[1.0, 25.0]]},
        {"query": "a dog can be heard"},
        {"duration": 500.0, "query": "a dog listens"},
    ]
    rows = [{**row, **changes} for row, changes in zip(rows_of(6), odd, strict=True)]
    choice, asked = chosen(timelens, rows, [[0.1]] * 6)
    assert asked == ["r5"] == [row["id"] for row in choice.rows]
    difficulty = rl(timelens).difficulty
    assert difficulty is not None and (difficulty.num_generations, difficulty.file) == (1, None)
    assert list(timelens.stages) == ["rl"]  # no SFT: the model that is asked is the base model


def test_the_advantage_is_the_reward_less_the_mean(timelens: Recipe, timelens2: Recipe) -> None:
    rewards = [0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.5, 0.8]
    for stage in (rl(timelens), rl(timelens2)):
        settings = {"scale_rewards": stage.scale_rewards, "eps": stage.advantage_eps}
        found = batch_advantages(rewards, stage.num_generations, **settings)
        assert found == pytest.approx([reward - 0.2 for reward in rewards])


@pytest.mark.parametrize(("times", "value"), CASES)
def test_timelens_rewards_the_iou_of_the_sentence_alone(timelens: Recipe, times: str, value: float) -> None:
    assert total(timelens, f"The event happens in {times} seconds.", [[10.0, 20.0]]) == pytest.approx(value)


def test_timelens_rewards_no_form_and_the_first_annotated_span(timelens: Recipe) -> None:
    sentence = "The event happens in 10.0 - 20.0 seconds."
    assert total(timelens, f"<think>x</think><answer>{sentence}</answer>", [[10.0, 20.0]]) == 1.0
    assert total(timelens, sentence, [[30.0, 40.0], [10.0, 20.0]]) == 0.0
    assert total(timelens, "<think>x</think><answer>10.0 to 20.0</answer>", [[10.0, 20.0]]) == 0.0


def rendered(recipe: Recipe, tmp_path: Path) -> str:
    """The prompt of a row as the model reads it, each patch of a picture as #."""
    model, processor = model_and_processor()
    video = replace(recipe.video, min_pixels=784, max_pixels=3136)
    row = rows_of(1)[0] | {"video": write_video(tmp_path / "a.mp4", seconds=8, width=56, height=56), "duration": 8.0}
    row["prompt"] = messages(row, recipe.prompt, recipe.system)
    inputs = Encoder(processor, family(model.config), video)(row)
    return str(processor.tokenizer.decode(inputs.input_ids)).replace("<|video_pad|>", "#").replace("####", "#")


def test_timelens_writes_the_second_before_the_frames_and_asks_for_no_thinking(
    timelens: Recipe, tmp_path: Path
) -> None:
    text = rendered(timelens, tmp_path)
    # 16 frames from the first of 8 s at 8 per second to the last: a pair every 1.05 s
    assert "user\n0.0#1.0#2.1#3.1#4.2#5.2#6.2#7.4#The number before" in text
    assert "think" not in timelens.prompt and "<answer>" not in timelens.prompt
    shown = timelens.prompt.partition("one decimal: ")[2]
    assert grammar(timelens.grammar).parse(shown) == [(4.2, 9.8)]


def test_timelens_rewards_against_spans_that_are_widened_to_those_seconds(timelens: Recipe) -> None:
    assert rl(timelens).snap_spans
    widened = snapped((2.3, 4.6), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert widened == (2.0, 5.0)
    assert total(timelens, "The event happens in 2.0 - 5.0 seconds.", [list(widened)]) == 1.0


def steps_until_flat(stage: GrpoStage, rewards: Sequence[float], spreads: Sequence[float]) -> int | None:
    """The step after which the recipe's plateau is reached."""
    flat = Flat()
    assert stage.plateau is not None
    for step, (reward, spread) in enumerate(zip(rewards, spreads, strict=True), start=1):
        flat = watched(flat, step, reward, spread, stage.plateau)
        if flat.times >= stage.plateau.patience:
            return step
    return None


def test_timelens_stops_when_neither_the_iou_nor_its_deviation_moves_any_more(timelens: Recipe) -> None:
    flat, rising = [0.4] * 310, [0.3 + 0.001 * step for step in range(310)]
    assert steps_until_flat(rl(timelens), flat, flat) == 75  # the third of three windows
    assert steps_until_flat(rl(timelens), rising, flat) is None
    assert steps_until_flat(rl(timelens), flat, rising) is None
    assert steps_until_flat(rl(timelens), rising[:200] + [rising[200]] * 110, flat) == 275


# TimeLens2


@pytest.mark.parametrize(("text", "spans", "expected"), CASES_2)
def test_timelens2_has_the_totals_of_its_page(
    timelens2: Recipe, text: str, spans: list[list[float]], expected: float
) -> None:
    assert total(timelens2, text, spans) == pytest.approx(expected, abs=5e-6)


def test_timelens2_draws_all_rows_by_the_square_of_what_their_answers_miss(timelens2: Recipe) -> None:
    ious = [[0.0] * 8, [1.0, 0.0] * 4, [0.5] * 8, [1.0] * 8]  # the spread of the answers does not count
    choice, asked = chosen(timelens2, rows_of(4), ious)
    assert sorted(asked) == sorted(row["id"] for row in choice.rows) == ["r0", "r1", "r2", "r3"]
    chances = dict(zip([row["id"] for row in choice.rows], choice.probabilities or [], strict=True))
    assert [chances[f"r{k}"] for k in range(4)] == pytest.approx([1 / 1.5, 0.25 / 1.5, 0.25 / 1.5, 0], abs=1e-6)
    assert choice.rows[-1]["id"] == "r3"  # what is answered perfectly comes last
    difficulty = rl(timelens2).difficulty
    assert difficulty is not None
    assert (difficulty.num_generations, difficulty.temperature, difficulty.score) == (8, 1.0, "set")


def test_timelens2_takes_the_rows_in_the_order_of_the_draw_until_its_steps_are_done(timelens2: Recipe) -> None:
    rows = rows_of(5000)
    choice, _ = chosen(timelens2, rows, [[k / 5000] * 8 for k in range(5000)])
    stage = rl(timelens2)
    assert stage.curriculum is not None and choice.reached is not None
    order = by_difficulty(stage.curriculum, [one.mean for one in choice.reached])
    assert order(0, np.random.default_rng(0)) == list(range(5000))
    prompts = 8 * stage.max_steps  # 8 devices with a group each
    means = [one.mean for one in choice.reached]
    assert prompts == 2400 and sum(means[:prompts]) / prompts < 0.4 < 0.6 < sum(means[prompts:]) / (5000 - prompts)


def test_timelens2_keeps_long_videos(timelens2: Recipe) -> None:
    rows = [{**row, "duration": length} for row, length in zip(rows_of(4), (2.9, 3.0, 3600.0, 3601.0), strict=True)]
    assert sorted(row["id"] for row in chosen(timelens2, rows, [[0.1] * 8] * 4)[0].rows) == ["r1", "r2"]


def test_timelens2_learns_the_form_that_its_rewards_read(timelens2: Recipe, tmp_path: Path) -> None:
    sft = timelens2.stages["sft"]
    assert isinstance(sft, SftStage) and sft.completion is not None
    taught = sft.completion.format(start=10.0, end=20.0)
    assert taught == "[[10.0, 20.0]]" and total(timelens2, taught, [[10.0, 20.0]]) == pytest.approx(2.0)
    shown = timelens2.prompt.partition("such as ")[2].removesuffix(".")
    assert total(timelens2, shown, [[4.2, 9.8], [12.0, 15.5]]) == pytest.approx(2.0)
    text = rendered(timelens2, tmp_path)
    assert "user\n<0.0 seconds>#<1.0 seconds>#" in text and "think" not in timelens2.prompt
