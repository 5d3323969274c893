"""When a stage has learnt enough: a validation metric gets no better, or a reward and its spread change no more.

Both judge by what a checkpoint holds, so that a run that was killed stops where it would have stopped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import Trainer, TrainerControl

from rlvtg.recipe import EarlyStopping, Plateau
from rlvtg.training.resume import PREFIX, ResumingTrainer

LOWER_IS_BETTER = ("parse_failure_rate",)
REWARDS, SPREAD = ("on_policy/reward", "reward"), "reward_group_std"
"""Names in the log of what a plateau is seen in: the mean reward of what the policy wrote, the first of two that is
there, and the mean of its standard deviation within groups."""


@dataclass(frozen=True)
class Best:
    """What the validations of a stage have shown so far."""

    step: int | None = None  # of the best value
    value: float | None = None  # the best value
    mark: float | None = None  # that the next value must beat by more than min_delta
    waited: int = 0  # validations in a row that did not beat it


def judged(best: Best, step: int, value: float, settings: EarlyStopping) -> Best:
    """What is known after one more validation, at `step`.

    The best step is that of the best value, by however little. Patience is another matter: only a value that beats
    the mark by more than `min_delta` ends the waiting and is the new mark.
    """
    sign = -1.0 if settings.metric in LOWER_IS_BETTER else 1.0
    if best.value is None or sign * (value - best.value) > 0:
        best = replace(best, step=step, value=value)
    if best.mark is None or sign * (value - best.mark) > settings.min_delta:
        return replace(best, mark=value, waited=0)
    return replace(best, waited=best.waited + 1)


@dataclass(frozen=True)
class Flat:
    """How a stage's rewards have moved so far."""

    started: int = 0  # the step before the window that is being filled
    rewards: Sequence[float] = ()  # logged in this window
    spreads: Sequence[float] = ()
    before: Sequence[float] | None = None  # means of both over the window before
    times: int = 0  # comparisons in a row without a change


def watched(flat: Flat, step: int, reward: float, spread: float, settings: Plateau) -> Flat:
    """What is known after the log entry of `step`, with the mean reward and the mean spread within groups.

    Windows follow each other; when one is full, its means are compared with those of the window before.
    """
    flat = replace(flat, rewards=(*flat.rewards, reward), spreads=(*flat.spreads, spread))
    if step - flat.started < settings.window:
        return flat
    means = fmean(flat.rewards), fmean(flat.spreads)
    same = flat.before is not None and all(
        abs(now - then) <= settings.min_delta for now, then in zip(means, flat.before, strict=True)
    )
    return Flat(started=step, before=means, times=flat.times + 1 if same else 0)


def seen(logs: Mapping[str, Any]) -> tuple[float, float] | None:
    """Mean reward and mean spread within groups of what the policy wrote, as a log entry has them; None if it has none.

    An expert earns the same whatever the policy has learnt, and would keep the spread of its group up.
    """
    reward, spread = next((logs[name] for name in REWARDS if name in logs), None), logs.get(SPREAD)
    if reward is None or spread is None or not isfinite(reward + spread):
        return None
    return reward, spread


class StoppingTrainer(ResumingTrainer):
    """A trainer that a validation or a plateau may stop, if it is told to watch for them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._early: EarlyStopping | None = None
        self._plateau: Plateau | None = None
        self._best, self._flat = Best(), Flat()
        super().__init__(*args, **kwargs)

    def watch_validation(self, settings: EarlyStopping, validate: Callable[[int], Mapping[str, float]]) -> None:
        """Validate every `eval_steps` optimizer steps and after the last one.

        Args:
            settings: when to stop.
            validate: the metrics of the model after the step of the given number, the same in every process; called in
                all of them at once.
        """
        self._early, self._validate = settings, validate

    def watch_plateau(self, settings: Plateau) -> None:
        """Stop when the mean reward of what the policy writes, and its spread within groups, do not change any more."""
        self._plateau = settings

    def take_best(self) -> None:
        """Give the model the weights of the step whose validation was best; called in every process, after training."""
        step = self.best_step()
        if step is not None and step != self.state.global_step:
            self.state.best_model_checkpoint = str(Path(self.args.output_dir) / f"{PREFIX}{step}")
            self._load_best_model()

    def best_step(self) -> int | None:
        return self._best.step

    def progress(self) -> dict[str, Any]:
        return super().progress() | {"best": asdict(self._best), "flat": asdict(self._flat)}

    def recall(self, kept: Mapping[str, Any]) -> None:
        super().recall(kept)
        self._best, self._flat = Best(**kept["best"]), Flat(**kept["flat"])

    def step_ended(self, control: TrainerControl) -> None:
        if self._early is not None and (
            self.state.global_step % self._early.eval_steps == 0 or control.should_training_stop
        ):
            control.should_evaluate = True
        super().step_ended(control)

    def logged(self, logs: Mapping[str, Any], control: TrainerControl) -> None:
        super().logged(logs, control)
        numbers = seen(logs)
        if self._plateau is None or numbers is None:
            return
        self._flat = watched(self._flat, self.state.global_step, *numbers, self._plateau)
        if self._flat.times >= self._plateau.patience:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = self._early is not None

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        if self._early is None:
            return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)
        step = self.state.global_step
        metrics = {f"eval_{name}": value for name, value in self._validate(step).items()}
        # Hugging Face's own: TRL's would take what has been gathered for the next training entry with it
        Trainer.log(self, metrics)
        self._best = judged(self._best, step, metrics[f"eval_{self._early.metric}"], self._early)
        if self._best.step == step:
            self.control.should_save = True
        if self._best.waited >= self._early.patience:
            self.control.should_save = self.control.should_training_stop = True
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
