"""A stage that was stopped goes on from its last checkpoint, with that checkpoint's weights."""

import torch
from peft import PeftModel
from transformers import Trainer


class ResumingTrainer(Trainer):
    """For both stages' trainers: makes sure that a resumed model holds the checkpoint's weights.

    transformers 5.19 looks the names of a checkpoint up in the model as they are on disk. Qwen2.5-VL is saved under
    other names than it has in memory, so none is found: it would warn and go on with the weights that the stage began
    with. LoRA adapters, DeepSpeed and FSDP have ways of their own, which are right.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        target = self.model if model is None else model
        if self.is_fsdp_enabled or isinstance(target, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(target).from_pretrained(resume_from_checkpoint, dtype=target.dtype)
        target.load_state_dict(saved.state_dict())
