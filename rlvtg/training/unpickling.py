"""A checkpoint may come from a stranger: while one is read, nothing in it can run code.

Hugging Face reads its part with `weights_only`, which lets a pickle hold tensors and plain values alone. DeepSpeed
unpickles whatever stands in its files; torch is told to restrict that too, to the few classes of which they are made.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import is_deepspeed_available

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch's: it holds against callers that ask for the contrary


@contextmanager
def only_weights() -> Iterator[None]:
    """In the block torch.load restricts what it unpickles, whoever calls it; other pickles raise UnpicklingError."""
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals(_deepspeed_classes()):
            yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


def _deepspeed_classes() -> list[Any]:
    if not is_deepspeed_available():
        return []
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
