"""A stage that was stopped goes on from its last checkpoint and ends as one that was not: weights, numbers and log.

Hugging Face's checkpoint has weights, optimizer, schedule, random state and log. What it lacks, and what TRL begins
anew after a resume, is in `progress_<process>.json` beside them: what was gathered since the last log entry, TRL's
counters, whether the stage was over, and the time that it took so far. A checkpoint is whole: it is written under
another name and renamed when every process has written its part.
"""

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlvtg.disk import put, remove, unfinished, writing
from rlvtg.model.load import require_safetensors
from rlvtg.recipe import RecipeError
from rlvtg.training.unpickling import only_weights

PREFIX = "checkpoint-"  # Hugging Face's


def checkpoints(stage: Path) -> list[Path]:
    """The checkpoints of a stage's folder, the oldest first."""
    found = [folder for folder in stage.glob(f"{PREFIX}*") if folder.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer steps after which a checkpoint was made."""
    return int(checkpoint.name.removeprefix(PREFIX))


def last_checkpoint(stage: Path) -> Path | None:
    """The newest checkpoint of a stage's folder; None if there is none."""
    found = checkpoints(stage)
    return found[-1] if found else None


def rotate(stage: Path, keep: int, best: int | None = None) -> None:
    """Remove checkpoints until the newest `keep` are left, and the one of step `best`."""
    for checkpoint in checkpoints(stage)[:-keep]:
        if step_of(checkpoint) != best:
            remove(checkpoint)


class ResumingTrainer(Trainer):
    """For both stages' trainers.

    A checkpoint that falls due while completions wait to be used again (TRL's `num_iterations` and
    `steps_per_generation`) is made as soon as none do, so that none has to be kept; so is a validation.
    """

    control: TrainerControl
    _metrics: dict[str, dict[str, list[float]]]  # TRL's, since the last log entry

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._checkpoint: Path | None = None  # that the run goes on from
        self._saving: Path | None = None
        self._due: set[str] = set()
        self._began = (time.time(), time.process_time())
        self._over = False
        self.add_callback(_Events(self))

    @property
    def cpu_seconds(self) -> float:
        """What the stage's training has used so far, without what a kill undid; of this process."""
        return time.process_time() - self._began[1]

    # What a subclass adds

    def between_batches(self) -> bool:
        """Whether no completions wait to be used again."""
        return True

    def best_step(self) -> int | None:
        """The step whose checkpoint is kept, whatever comes after; None if there is none."""
        return None

    def progress(self) -> dict[str, Any]:
        """What a checkpoint holds besides Hugging Face's own, as JSON; the same in every run."""
        return {
            "over": self.control.should_training_stop,
            "metrics": self._metrics["train"],
            "tokens": getattr(self, "_total_train_tokens", 0),
            "micro_steps": getattr(self, "_step", 0),
            "loss": self._tr_loss.item(),
            "total_loss": self._total_loss_scalar,
            "logged": self._globalstep_last_logged,
        }

    def recall(self, kept: Mapping[str, Any]) -> None:
        """Take up what `progress` returned."""
        self._over = kept["over"]
        for name, values in kept["metrics"].items():
            self._metrics["train"][name] = values
        self._total_train_tokens = kept["tokens"]
        self._step = kept["micro_steps"]
        self._tr_loss.fill_(kept["loss"])
        self._total_loss_scalar = kept["total_loss"]
        self._globalstep_last_logged = kept["logged"]
        self._initial_global_step = 0  # the whole stage's average loss and speed are reported at the end

    # Events

    def train(self, resume_from_checkpoint: str | Path | None = None, **kwargs: Any) -> Any:
        """As in Hugging Face; a stage that was over at its checkpoint trains no further.

        Raises:
            RecipeError: the checkpoint is of a run with another number of processes.
            DiskError: a checkpoint could not be written.
        """
        self._checkpoint = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        return super().train(
            resume_from_checkpoint=None if self._checkpoint is None else str(self._checkpoint), **kwargs
        )

    def begin(self) -> None:
        """Called when the trainer has made itself ready, before the first step."""
        self._began = (time.time(), time.process_time())
        if self._checkpoint is None:
            return
        count, rank = self.accelerator.num_processes, self.accelerator.process_index
        file = self._checkpoint / f"progress_{rank}.json"
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if kept.get("processes") != count:
            raise RecipeError(
                f"{self._checkpoint} was not written by {count} process{'es' if count > 1 else ''}; resume with as "
                "many as it was written by"
            )
        self._began = (self._began[0] - kept["seconds"], self._began[1] - kept["cpu_seconds"])
        self.recall(kept["progress"])
        self.model.train()  # TRL tells by it what a log entry is about, and a stage that was over trains no step

    def step_ended(self, control: TrainerControl) -> None:
        """Called after an optimizer step, before it is logged, validated and saved as `control` says."""
        for flag in ("should_evaluate", "should_save"):
            if getattr(control, flag):
                self._due.add(flag)
            setattr(control, flag, False)
        if self.between_batches() or control.should_training_stop:
            for flag in self._due:
                setattr(control, flag, True)
            self._due.clear()

    def logged(self, logs: Mapping[str, Any], control: TrainerControl) -> None:
        """Called after a log entry was made."""

    # Hugging Face's methods, wrapped

    def _run_epoch(self, *, epoch: int, train_dataloader: DataLoader, **kwargs: Any) -> None:
        # Hugging Face would train a step beyond the last one
        if self._over:
            self.control.should_training_stop = True
            return
        _set_epoch(train_dataloader, epoch)
        super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        return super()._finalize_training(trial, num_train_samples, self._began[0])

    def _prepare_for_training(self, *args: Any) -> Any:
        with only_weights() if self._checkpoint is not None else nullcontext():
            return super()._prepare_for_training(*args)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._saving is None else str(self._saving)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        stage, accelerator = Path(self.args.output_dir), self.accelerator
        target = stage / f"{PREFIX}{self.state.global_step}"
        self._saving = unfinished(target, "all")
        try:
            with writing(target):
                if accelerator.is_main_process:
                    shutil.rmtree(self._saving, ignore_errors=True)
                accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)
                kept = {
                    "processes": accelerator.num_processes,
                    "seconds": time.time() - self._began[0],
                    "cpu_seconds": self.cpu_seconds,
                    "progress": self.progress(),
                }
                file = self._saving / target.name / f"progress_{accelerator.process_index}.json"
                file.write_text(json.dumps(kept), encoding="utf-8")
                accelerator.wait_for_everyone()
                if accelerator.is_main_process:
                    put(self._saving / target.name, target)
                    rotate(stage, self.args.save_total_limit, self.best_step())
        finally:
            if accelerator.is_main_process:
                shutil.rmtree(self._saving, ignore_errors=True)
            self._saving = None
        accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        # transformers 5.19 looks the names of a checkpoint up in the model as they are on disk. Qwen2.5-VL is saved
        # under other names than it has in memory, so none is found: it would warn and go on with the weights that the
        # stage began with. LoRA adapters, DeepSpeed and FSDP have ways of their own, which are right.
        target = self.model if model is None else model
        if not self.is_fsdp_enabled:
            require_safetensors(resume_from_checkpoint)
        if self.is_fsdp_enabled or isinstance(target, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(target).from_pretrained(resume_from_checkpoint, dtype=target.dtype, use_safetensors=True)
        target.load_state_dict(saved.state_dict())

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled or isinstance(self.model, PeftModel):
            with only_weights():
                super()._load_best_model()
        else:
            self._load_from_checkpoint(self.state.best_model_checkpoint)


class _Events(TrainerCallback):
    """Tells a trainer what happens in it."""

    def __init__(self, trainer: ResumingTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.begin()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._trainer.step_ended(control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._trainer.logged(logs or {}, control)


def _set_epoch(dataloader: DataLoader, epoch: int) -> None:
    """Tell the sampler at the bottom, which accelerate loses sight of when several processes skip what was trained."""
    sampler = dataloader.batch_sampler
    while hasattr(sampler, "batch_sampler"):
        sampler = sampler.batch_sampler
    if hasattr(getattr(sampler, "sampler", None), "set_epoch"):
        sampler.sampler.set_epoch(epoch)
