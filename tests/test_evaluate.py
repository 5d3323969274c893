"""An evaluation's folder: whole when it is complete, and of use when it was killed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from transformers import PreTrainedModel

from rlvtg.evaluation import evaluate as evaluation
from rlvtg.evaluation.evaluate import evaluate, weights_digest
from rlvtg.evaluation.metrics import score
from rlvtg.evaluation.predictions import read_predictions
from rlvtg.evaluation.protocol import chosen
from rlvtg.recipe import Evaluation, Recipe, RecipeError, Source
from tests import desk as desks
from tests.desk import KilledError
from tests.tiny_qwen import model_and_processor, video_settings

ENDINGS = {"made_from.json", "metrics.json", "predictions.jsonl"}


class Desk(desks.Desk):
    """One that evaluates two rows at a time."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.recipe = Recipe(
            name="mine", model="some/model", data={"test": Source("test.json", "videos")}, prompt="{video}{query}",
            grammar="to", stages={}, evaluation=Evaluation(batch_size=2, max_new_tokens=6), video=video_settings(),
            use_cpu=True,
        )  # fmt: skip

    def evaluate(self, place: Path, model: PreTrainedModel | None = None, **changes: Any) -> dict[str, Any]:
        given = {"rows": self.rows, "replace": False, **changes}
        state = PartialState(cpu=True)
        return evaluate(
            self.recipe, model or self.model, self.encoder, given["rows"], place, state, name="m",
            replace=given["replace"],
        )  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def whole(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole") / "rl"
    desk.evaluate(place)
    return place


def counted(monkeypatch: pytest.MonkeyPatch, last: int | None = None) -> list[int]:
    return desks.counted(monkeypatch, evaluation, "predict_zoomed", last)


def test_a_complete_evaluation_holds_predictions_in_order_and_metrics_with_their_protocol(
    desk: Desk, whole: Path
) -> None:
    assert {file.name for file in whole.iterdir()} == ENDINGS
    predictions = read_predictions(whole / "predictions.jsonl")
    assert [one["id"] for one in predictions] == [one["id"] for one in desk.rows]
    assert len({one["completion"] for one in predictions}) > 1
    metrics = json.loads((whole / "metrics.json").read_text())
    protocol = metrics.pop("protocol")
    assert metrics == score(predictions, chosen(desk.recipe.evaluation))
    expected = {
        "name": "rlvtg", "grammar": "to", "thresholds": [0.3, 0.5, 0.7], "strict": False, "whole_seconds": False,
        "failures": "zero", "true": "best", "model": "m", "data": "test.json", "prompt": "{video}{query}",
        "system": None, "fps": 2.0, "min_frames": 4, "max_frames": 64, "min_pixels": 784, "max_pixels": 3136,
        "sampling": "interval", "time": "positions", "max_new_tokens": 6, "decoding": "greedy", "dtype": "float32",
        "weights": weights_digest(desk.model),
    }  # fmt: skip
    assert {key: protocol[key] for key in expected} == expected


@pytest.mark.parametrize("made", [0, 1, 2])
def test_a_killed_evaluation_goes_on_and_ends_with_the_same_file(
    desk: Desk, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: int
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        counted(patch, last=made)
        desk.evaluate(tmp_path / "rl")
    assert not (tmp_path / "rl/metrics.json").exists() and not (tmp_path / "rl/predictions.jsonl").exists()
    sizes = counted(monkeypatch)
    desk.evaluate(tmp_path / "rl")
    assert sizes == [2, 2, 1][made:]
    assert {file.name for file in (tmp_path / "rl").iterdir()} == ENDINGS
    for name in ENDINGS:
        assert (tmp_path / "rl" / name).read_bytes() == (whole / name).read_bytes()


def unfinished(whole: Path, place: Path, *rows: int, cut: str = "") -> None:
    """What a kill leaves of the evaluation `whole`: these rows, and the piece of a line."""
    place.mkdir(parents=True)
    (place / "made_from.json").write_bytes((whole / "made_from.json").read_bytes())
    lines = [json.loads(line) for line in (whole / "predictions.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({"row": index, **lines[index]}) + "\n" for index in rows)
    (place / "predictions.0.jsonl").write_text(text + cut)


@pytest.mark.parametrize("cut", ["", '{"row": 3, "id": "b a', '{"row": 3}\n', "nonsense\n", "[]\n5\n\n"])
def test_a_line_that_is_not_whole_is_made_again_and_no_other(
    desk: Desk, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    unfinished(whole, tmp_path / "rl", 0, 1, 2, cut=cut)
    sizes = counted(monkeypatch)
    desk.evaluate(tmp_path / "rl")
    assert sizes == [2, 1]  # the batch of row 3, whole, and the last
    assert (tmp_path / "rl/predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()


def test_a_second_kill_behind_a_cut_line_loses_nothing_more(
    desk: Desk, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(whole, tmp_path / "rl", 0, 1, cut='{"row": 2, "id"')
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        counted(patch, last=1)
        desk.evaluate(tmp_path / "rl")
    sizes = counted(monkeypatch)
    desk.evaluate(tmp_path / "rl")
    assert sizes == [1]


def test_what_other_processes_made_is_kept(
    desk: Desk, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(whole, tmp_path / "rl", 4)
    (tmp_path / "rl/predictions.0.jsonl").rename(tmp_path / "rl/predictions.7.jsonl")
    sizes = counted(monkeypatch)
    desk.evaluate(tmp_path / "rl")
    assert sizes == [2, 2]
    assert {file.name for file in (tmp_path / "rl").iterdir()} == ENDINGS


def test_a_complete_evaluation_is_scored_again_without_asking_the_model(
    desk: Desk, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "rl"
    place.mkdir()
    for name in ENDINGS:
        (place / name).write_bytes((whole / name).read_bytes())
    sizes = counted(monkeypatch)
    assert desk.evaluate(place)["n"] == 5
    assert sizes == []


def other_model() -> PreTrainedModel:
    model, _ = model_and_processor()
    with torch.no_grad():
        model.lm_head.weight.mul_(1.01)
    return model


def test_predictions_of_another_model_or_of_other_rows_are_not_mixed_in(
    desk: Desk, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(whole, tmp_path / "rl", 0, 1, 2, 3)
    sizes = counted(monkeypatch)
    desk.evaluate(tmp_path / "rl", model=other_model())
    assert sizes == [2, 2, 1]
    for changes, said in (({}, "weights"), ({"rows": desk.rows[:3], "model": other_model()}, "rows")):
        with pytest.raises(RecipeError, match=f"rl holds an evaluation with another {said}; choose another output"):
            desk.evaluate(tmp_path / "rl", **changes)
    desk.evaluate(tmp_path / "rl", replace=True)
    assert (tmp_path / "rl/predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()


def test_the_digest_of_weights_sees_a_small_step_of_one_weight_and_nothing_else() -> None:
    model, _ = model_and_processor()
    same, _ = model_and_processor()
    assert weights_digest(model) == weights_digest(same)
    before = weights_digest(model)
    with torch.no_grad():
        list(model.parameters())[5].add_(1e-6)
    assert weights_digest(model) != before
