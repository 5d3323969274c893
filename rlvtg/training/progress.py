"""One progress bar per stage: its name, step, time left, and the few numbers that tell whether it learns."""

from typing import Any

from transformers import ProgressCallback, Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

# The first of these that a log holds are shown, in this order.
SHOWN = ("loss", "mean_token_accuracy", "reward", "frac_reward_zero_std", "completions/mean_length", "grad_norm")


class Progress(ProgressCallback):
    """Hugging Face's bar with a title, and with a short line instead of the whole log dictionary."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    @classmethod
    def install(cls, trainer: Trainer, *, title: str) -> None:
        """Put this bar in the place of the trainer's own."""
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(cls(title))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(f"training ({self._title})")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.training_bar is not None and logs is not None:
            shown = {key.split("/")[-1]: f"{logs[key]:.3f}" for key in SHOWN if isinstance(logs.get(key), float)}
            self.training_bar.set_postfix(shown)
