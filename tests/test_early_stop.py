"""When a stage stops before its last step, and which of its weights it leaves."""

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlvtg.recipe import EarlyStopping, Plateau
from rlvtg.training.early_stop import Best, Flat, judged, seen, watched
from rlvtg.training.resume import checkpoints, last_checkpoint
from tests.test_resume import a_trainer, base, untimed

__all__ = ["base"]  # a fixture


def after(values: list[float], **settings: float | str) -> Best:
    """What is known after validations at steps 10, 20, 30 ..."""
    best = Best()
    for number, value in enumerate(values, start=1):
        best = judged(best, 10 * number, value, EarlyStopping("validation", 10, **settings))
    return best


@pytest.mark.parametrize(
    ("values", "settings", "step", "waited"),
    [
        ([0.1], {}, 10, 0),
        ([0.1, 0.3, 0.2, 0.3], {}, 20, 2),  # an equal value is no better
        ([0.1, 0.3, 0.2, 0.4], {}, 40, 0),
        ([0.1, 0.14, 0.19], {"min_delta": 0.05}, 30, 0),  # 0.09 above the mark; 0.14 alone was not enough
        ([0.1, 0.14, 0.11], {"min_delta": 0.05}, 20, 2),  # the best step is the best value's, patience or not
        ([0.5, 0.2, 0.3], {"metric": "parse_failure_rate"}, 20, 1),
    ],
)
def test_the_best_validation_is_known_and_how_long_ago_one_was_better(
    values: list[float], settings: dict[str, float | str], step: int, waited: int
) -> None:
    best = after(values, **settings)
    assert (best.step, best.waited) == (step, waited)


def after_entries(pairs: list[tuple[float, float]], every: int = 1, window: int = 2) -> Flat:
    """What is known when so many rewards and spreads were logged, one log entry `every` steps."""
    flat = Flat()
    for number, (reward, spread) in enumerate(pairs, start=1):
        flat = watched(flat, number * every, reward, spread, Plateau(window))
    return flat


STILL, RISING = [(0.5, 0.2)] * 6, [(0.1 * k, 0.2) for k in range(6)]


@pytest.mark.parametrize(
    ("pairs", "times"),
    [
        (STILL, 2),  # three windows, two comparisons
        (STILL[:3], 0),
        (RISING, 0),
        ([(0.5, 0.1 * k) for k in range(6)], 0),  # the reward is flat, its spread is not
        ([(0.0, 0.2), (1.0, 0.2)] * 3, 2),  # noise within a window
        ([*STILL, (0.9, 0.2), (0.9, 0.2)], 0),  # in a row
        ([(0.5, 0.2), (0.5, 0.2), (0.505, 0.195), (0.505, 0.195)], 1),
    ],
)
def test_a_plateau_is_neither_reward_nor_spread_changing_from_window_to_window(
    pairs: list[tuple[float, float]], times: int
) -> None:
    assert after_entries(pairs).times == times


def test_a_plateau_is_of_what_the_policy_wrote() -> None:
    assert seen({"reward": 0.7, "reward_std": 0.4, "reward_group_std": 0.2}) == (0.7, 0.2)
    assert seen({"reward": 0.7, "on_policy/reward": 0.6, "reward_group_std": 0.2}) == (0.6, 0.2)
    assert seen({"reward": math.nan, "reward_group_std": 0.2}) is None
    assert seen({"reward": 0.7}) is None and seen({"eval_mIoU": 0.7}) is None


def test_a_window_counts_optimizer_steps_whatever_is_logged_together() -> None:
    assert after_entries(STILL, every=5, window=10).times == 2
    assert after_entries(STILL, every=10, window=10).times == 5


def test_both_states_go_through_json() -> None:
    flat = after_entries(STILL[:5])
    again = Flat(**json.loads(json.dumps(asdict(flat))))
    settings = Plateau(2)
    assert watched(again, 6, 0.5, 0.2, settings) == watched(flat, 6, 0.5, 0.2, settings)
    assert Best(**json.loads(json.dumps(asdict(after([0.1, 0.2]))))) == after([0.1, 0.2])


def saved(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_stage_stops_when_its_validation_gets_no_better_and_leaves_the_best_weights(
    base, tmp_path, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)
    values = {1: 0.1, 2: 0.5, 3: 0.4, 4: 0.5}
    asked = []

    def validate(step: int) -> dict[str, float]:
        asked.append(step)
        return {"mIoU": values[step], "n": 3}

    def watching(out: str):
        trainer = a_trainer(base, tmp_path / out, kind, max_steps=9, lr_scheduler_type="constant")
        trainer.args.save_total_limit, trainer.args.logging_steps = 1, 3
        trainer.watch_validation(EarlyStopping("validation", 1, patience=2), validate)
        return trainer

    trainer = watching("whole")
    trainer.train()
    assert trainer.state.global_step == 4 and asked == [1, 2, 3, 4]
    found = [(entry["step"], entry["eval_mIoU"]) for entry in trainer.state.log_history if "eval_mIoU" in entry]
    assert found == list(values.items())
    assert [path.name for path in checkpoints(tmp_path / "whole")] == ["checkpoint-2", "checkpoint-4"]
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.take_best()
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())
    best = saved(tmp_path / "whole/checkpoint-2")
    trainer.model.save_pretrained(tmp_path / "left")
    left = saved(tmp_path / "left")
    assert left.keys() == best.keys() and all(torch.equal(left[name], best[name]) for name in best)

    # killed after the best checkpoint, and killed when all was done
    for number, step in enumerate((2, 4)):
        again = watching(f"again{number}")
        shutil.copytree(tmp_path / "whole/checkpoint-2", tmp_path / f"again{number}/checkpoint-2")
        again.train(tmp_path / f"whole/checkpoint-{step}")
        assert again.state.global_step == 4
        assert untimed(again) == untimed(trainer)
        again.take_best()
        assert all(torch.equal(value, trainer.model.get_parameter(n)) for n, value in again.model.named_parameters())
    assert asked == [1, 2, 3, 4, 3, 4]


def test_a_grpo_stage_stops_when_reward_and_spread_are_flat(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = a_trainer(base, tmp_path / "out", "grpo", max_steps=9)
    trainer.watch_plateau(Plateau(window=1, patience=2, min_delta=100.0))
    trainer.train()
    assert trainer.state.global_step == 3
    spreads = [entry["reward_group_std"] for entry in trainer.state.log_history if "reward" in entry]
    # one group a step, so that TRL's spread of all rewards is the spread within groups
    assert spreads == pytest.approx([entry["reward_std"] for entry in trainer.state.log_history if "reward" in entry])
    assert last_checkpoint(tmp_path / "out") == tmp_path / "out/checkpoint-3"
    again = a_trainer(base, tmp_path / "again", "grpo", max_steps=9)
    again.watch_plateau(Plateau(window=1, patience=2, min_delta=100.0))
    again.train(tmp_path / "out/checkpoint-2")
    assert again.state.global_step == 3 and untimed(again) == untimed(trainer)
