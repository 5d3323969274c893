"""Vision tokens can never be sampled.

A completion with a video pad in it breaks every later forward pass ("features and tokens do not match"). Suppressing
the pads in the sampler alone would leave the policy another distribution than the one that was sampled from, so they
are taken out of the model's output layer: a constant bias makes their probability exactly zero, in generation and in
the log-probabilities alike. The bias is not saved with the model and is not trained.
"""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from rlvtg.model.family import family

# exp of it is zero in float32, and it is finite in float16
NEVER = -1e4


def forbid_vision_tokens(model: PreTrainedModel) -> None:
    """Give every vision token of `model` (not a PEFT wrapper) probability zero; safe to repeat.

    Raises:
        ValueError: the output layer has a bias of its own.
    """
    head = model.get_output_embeddings()
    if "bias" in head._buffers:
        return
    if head.bias is not None:
        raise ValueError("the output layer has a bias; models with one are not supported")
    bias = torch.zeros(head.out_features, dtype=head.weight.dtype, device=head.weight.device)
    bias[list(family(model.config).vision_token_ids)] = NEVER
    del head._parameters["bias"]
    head.register_buffer("bias", bias, persistent=False)

    def declare_whole(backbone: torch.nn.Module, args: tuple[Any, ...]) -> None:
        # TRL's output layer asks weight and bias alike for the state that ZeRO-3 gives to what it has split
        if is_deepspeed_zero3_enabled():
            from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

            head.bias.ds_status = ZeroParamStatus.AVAILABLE

    # every time: a change of dtype or device puts another tensor in the buffer's place
    model.base_model.register_forward_pre_hook(declare_whole)
