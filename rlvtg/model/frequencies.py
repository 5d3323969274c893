"""Rotary frequencies stay in float32: rounded to bfloat16, tokens stand where they do not belong, more so the later.

transformers keeps them in float32 whatever a model's dtype is. DeepSpeed ZeRO-3 in bf16 does not: while a model is
loaded, it casts every floating-point tensor that is made. The frequencies are then off by up to 0.4 %, which is an
angle of radians at position 1,000; all passes of that run agree with each other, and what it exports is another model.
"""

import torch
from transformers import PreTrainedModel


def keep_frequencies(model: PreTrainedModel) -> None:
    """Give every rotary embedding of `model` (not a PEFT wrapper) the frequencies of its configuration in float32, if
    it has others; safe to repeat.

    Raises:
        ValueError: one cannot be made anew from a configuration.
    """
    for name, part in model.named_modules():
        found = part._buffers.get("inv_freq")
        if found is None or found.dtype == torch.float32:
            continue
        if not hasattr(part, "config"):
            raise ValueError(f"{name} holds its rotary frequencies in {found.dtype}, want float32")
        exact = type(part)(part.config)
        for buffer in ("inv_freq", "original_inv_freq"):
            setattr(part, buffer, getattr(exact, buffer).to(found.device))
