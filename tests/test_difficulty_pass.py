"""The pass over a stage's rows before it is trained: what it writes, that it resumes, and that its numbers are true."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from transformers import PreTrainedModel

from rlvtg.data.difficulty import Reached, read_difficulty
from rlvtg.data.sample import DataError
from rlvtg.evaluation import difficulty_pass as module
from rlvtg.evaluation.difficulty_pass import answer_score, difficulty_pass, rows_before, rows_of_round
from rlvtg.evaluation.evaluate import evaluate
from rlvtg.evaluation.metrics import ious
from rlvtg.evaluation.predictions import read_predictions
from rlvtg.evaluation.protocol import protocol
from rlvtg.recipe import Curriculum, Difficulty, Evaluation, GrpoStage, Recipe, RewardSpec, Selection, Source
from rlvtg.text.grammar import grammar
from tests import desk as desks
from tests.desk import KilledError
from tests.tiny_qwen import model_and_processor, video_settings

STATE = PartialState(cpu=True)


def a_stage(**changes: Any) -> GrpoStage:
    stage = GrpoStage(
        kind="grpo", data="rl", learning_rate=1e-3, lr_scheduler_type="constant", per_device_train_batch_size=2,
        rewards={"tiou": RewardSpec()}, num_generations=2, beta=0.0, loss_type="grpo", scale_rewards="group",
        epsilon=0.2, num_iterations=1, temperature=1.0, max_completion_length=6, difficulty=Difficulty(),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(stage, name, value)
    return stage


class Desk(desks.Desk):
    """One with a recipe of one stage."""

    def recipe(self, **stage: Any) -> Recipe:
        sources = {name: Source(f"{name}.json", "videos") for name in ("rl", "test")}
        return Recipe(
            name="mine", model="some/model", data=sources, prompt="{video}{query}", grammar="to",
            stages={"rl": a_stage(**stage)}, evaluation=Evaluation(batch_size=2, max_new_tokens=6),
            video=video_settings(), use_cpu=True,
        )  # fmt: skip

    def answers(self, place: Path, model: PreTrainedModel | None = None, **difficulty: Any) -> list[Reached]:
        return difficulty_pass(
            self.recipe(), Difficulty(**difficulty), 6, self.rows, place, model or self.model, self.encoder, STATE,
            name="rl",
        )  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(autouse=True)
def spans_from_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained model writes no times: let the letters that it writes stand for some."""

    def letters(text: str) -> list[tuple[float, float]]:
        found = sum(map(ord, text)) % 7
        return [] if found == 6 else [(float(found), float(found) + 2.5)]

    changed = grammar("to")
    monkeypatch.setitem(changed.__dict__, "reader", letters)


def counted(monkeypatch: pytest.MonkeyPatch, last: int | None = None) -> list[int]:
    return desks.counted(monkeypatch, module, "predict", last)


def test_greedy_answers_reach_what_an_evaluation_of_the_same_weights_says(desk: Desk, tmp_path: Path) -> None:
    reached = desk.answers(tmp_path / "rl")
    evaluate(desk.recipe(), desk.model, desk.encoder, desk.rows, tmp_path / "evaluation", STATE, name="m")
    answered = read_predictions(tmp_path / "rl/difficulty/predictions.jsonl")
    assert answered == read_predictions(tmp_path / "evaluation/predictions.jsonl")
    assert [one.mean for one in reached] == ious(answered, protocol("rlvtg"))
    assert len({one.mean for one in reached}) > 1
    head, *lines = [json.loads(line) for line in (tmp_path / "rl/difficulty.jsonl").read_text().splitlines()]
    assert head["easier"] == "higher" and head["decoding"] == "greedy" and head["weights"] and head["data"] == "rl.json"
    assert [line["id"] for line in lines] == [one["id"] for one in desk.rows]
    assert all(line["ious"] == [line["mean"]] and line["std"] == 0 for line in lines)
    assert list(read_difficulty(str(tmp_path / "rl/difficulty.jsonl")).values()) == reached


def test_a_killed_pass_goes_on_and_ends_with_the_same_file(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = {"num_generations": 3, "temperature": 2.0}
    whole = desk.answers(tmp_path / "whole", **sampling)
    before = torch.random.get_rng_state()
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        counted(patch, last=2)
        desk.answers(tmp_path / "rl", **sampling)
    assert not (tmp_path / "rl/difficulty.jsonl").exists()
    torch.manual_seed(7)
    sizes = counted(monkeypatch)
    assert desk.answers(tmp_path / "rl", **sampling) == whole
    assert sizes == [1] * 3  # of five rows, each with its three answers
    for name in ("difficulty.jsonl", "difficulty/predictions.jsonl"):
        assert (tmp_path / "rl" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert desk.answers(tmp_path / "rl", **sampling) == whole and len(sizes) == 3
    torch.random.set_rng_state(before)


def test_several_answers_are_sampled_and_differ(desk: Desk, tmp_path: Path) -> None:
    reached = desk.answers(tmp_path / "rl", num_generations=4, temperature=2.0)
    assert [len(one.ious) for one in reached] == [4] * 5 and max(one.std for one in reached) > 0
    predictions = read_predictions(tmp_path / "rl/difficulty/predictions.jsonl")
    assert [one["id"] for one in predictions] == [one["id"] for one in desk.rows for _ in range(4)]
    assert all(len({one["completion"] for one in predictions[k : k + 4]}) > 1 for k in range(0, 20, 4))
    state = torch.random.get_rng_state()
    desk.answers(tmp_path / "again", num_generations=4, temperature=2.0)
    assert torch.equal(state, torch.random.get_rng_state())  # the training to come draws what it would have drawn


def test_answers_of_other_weights_are_not_taken_over(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.answers(tmp_path / "rl")
    other, _ = model_and_processor(seed=1)
    sizes = counted(monkeypatch)
    desk.answers(tmp_path / "rl", model=other)
    assert sizes == [2, 2, 1]


def test_a_row_without_a_span_has_no_difficulty(desk: Desk, tmp_path: Path) -> None:
    rows = [desk.rows[0], {**desk.rows[1], "spans": []}]
    with pytest.raises(DataError, match="stages.rl.difficulty: row 'b a blue one' has no annotated span"):
        difficulty_pass(
            desk.recipe(), Difficulty(), 6, rows, tmp_path, desk.model, desk.encoder, STATE, name="rl"
        )  # fmt: skip


@pytest.mark.parametrize(
    ("predicted", "first", "all_of_them"),
    [
        ([], 0.0, 0.0),
        ([[10.0, 20.0]], 1.0, 0.5),
        ([[10.0, 20.0], [30.0, 40.0]], 1.0, 1.0),
        ([[50.0, 60.0], [10.0, 20.0]], 0.0, 1 / 3),
        ([[20.0, 10.0]], 0.0, 0.0),
    ],
)
def test_a_row_with_several_spans_is_scored_as_the_recipe_says(
    predicted: list[list[float]], first: float, all_of_them: float
) -> None:
    prediction: Any = {"spans": [[10.0, 20.0], [30.0, 40.0]], "predicted": predicted}
    assert answer_score(prediction, "first") == pytest.approx(first)
    assert answer_score(prediction, "set") == pytest.approx(all_of_them)


# --- the rows of a round


def test_a_round_trains_on_what_is_selected_and_the_next_starts_from_that(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage: dict[str, Any] = {
        "rounds": 2, "select": [Selection("gaussian", size=4)], "reselect": [Selection("gaussian", size=3)],
        "curriculum": Curriculum("easy_first"),
    }  # fmt: skip
    recipe, loads = desk.recipe(**stage), []

    def load() -> PreTrainedModel:
        loads.append(1)
        return desk.model

    first = rows_of_round(recipe, "rl", 1, desk.rows, tmp_path / "round_1", load, desk.encoder, STATE)
    assert len(first.rows) == 4 and capsys.readouterr().out.startswith("rl: trains on 4 of 5 rows (gaussian 4); mean")
    written = [json.loads(line) for line in (tmp_path / "round_1/selected.jsonl").read_text().splitlines()]
    assert [line["id"] for line in written] == [row["id"] for row in first.rows]
    assert [line["order"] for line in written] == [0, 1, 2, 3]
    assert [line["iou"] for line in written] == [one.mean for one in first.reached or []]
    assert all(0 < line["probability"] < 1 for line in written)
    assert rows_before(tmp_path / "round_1", desk.rows) == first.rows

    second = rows_of_round(recipe, "rl", 2, first.rows, tmp_path / "round_2", load, desk.encoder, STATE)
    assert len(second.rows) == 3 and all(row in first.rows for row in second.rows)
    assert "rl: round 2, trains on 3 of 4 rows" in capsys.readouterr().out
    assert len(read_difficulty(str(tmp_path / "round_2/difficulty.jsonl"))) == 4 and len(loads) == 2


def test_a_first_round_that_selects_nothing_asks_nothing(desk: Desk, tmp_path: Path) -> None:
    recipe = desk.recipe(rounds=2, reselect=[Selection("window")])
    choice = rows_of_round(
        recipe, "rl", 1, desk.rows, tmp_path, lambda: pytest.fail("nobody asks"), desk.encoder, STATE
    )
    assert choice.rows == desk.rows and list(tmp_path.iterdir()) == []
    assert rows_before(tmp_path, desk.rows) == desk.rows


def test_a_file_answers_in_place_of_the_model_in_the_first_round_only(desk: Desk, tmp_path: Path) -> None:
    desk.answers(tmp_path / "earlier")
    file = str(tmp_path / "earlier/difficulty.jsonl")
    recipe = desk.recipe(difficulty=Difficulty(file=file), select=[Selection("gaussian", size=2)], rounds=2)
    choice = rows_of_round(
        recipe, "rl", 1, desk.rows, tmp_path / "one", lambda: pytest.fail("nobody asks"), desk.encoder, STATE
    )
    assert len(choice.rows) == 2 and [file.name for file in (tmp_path / "one").iterdir()] == ["selected.jsonl"]
    rows_of_round(recipe, "rl", 2, choice.rows, tmp_path / "two", lambda: desk.model, desk.encoder, STATE)
    assert (tmp_path / "two/difficulty.jsonl").exists()
    more = [*desk.rows, {**desk.rows[0], "id": "new"}]
    with pytest.raises(DataError, match=r"difficulty.jsonl: has no difficulty of 1 of 6 rows \('new'\)"):
        rows_of_round(recipe, "rl", 1, more, tmp_path / "one", lambda: desk.model, desk.encoder, STATE)


def test_fewer_rows_than_a_rollout_takes_are_an_error(desk: Desk, tmp_path: Path) -> None:
    recipe = desk.recipe(select=[Selection("gaussian", size=3)], per_device_train_batch_size=8)
    with pytest.raises(DataError, match=r"stages.rl.select: left 3 of 5 rows .*, but stage rl takes 4 at once"):
        rows_of_round(recipe, "rl", 1, desk.rows, tmp_path, lambda: desk.model, desk.encoder, STATE)
