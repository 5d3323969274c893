"""What a stage leaves for the world: a LoRA adapter for PEFT, and a merged model directory for transformers.

Both hold the processor and the chat template. The merged directory holds plain Qwen2.5-VL weights: no wrapper prefixes
in its keys, and nothing of this library is needed to load it.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, ProcessorMixin

from rlvtg.disk import whole_folder, writing

ADAPTER, MERGED = "adapter", "merged"


def export(
    model: PreTrainedModel | PeftModel, processor: ProcessorMixin, folder: str | os.PathLike[str], kinds: Sequence[str]
) -> dict[str, Path]:
    """Write `adapter/` and/or `merged/` below `folder`; each appears whole, in the place of an older one.

    The merge happens in place: export the adapter and use the adapted model before.

    Args:
        model: the trained model, unwrapped from accelerate.
        processor: saved beside the weights.
        folder: the stage's folder.
        kinds: `adapter`, `merged` or both.

    Returns:
        The folders written, by kind.

    Raises:
        ValueError: an adapter is asked for, but the stage trained none.
        DiskError: the disk does not take them.
    """
    written = {}
    if ADAPTER in kinds:
        if not isinstance(model, PeftModel):
            raise ValueError("export: adapter was asked for, but the stage trained no LoRA adapter; allowed: merged")
        written[ADAPTER] = Path(folder) / ADAPTER
        with writing(written[ADAPTER]), whole_folder(written[ADAPTER]) as made:
            model.save_pretrained(made)
            processor.save_pretrained(made)
    if MERGED in kinds:
        merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
        written[MERGED] = Path(folder) / MERGED
        with writing(written[MERGED]), whole_folder(written[MERGED]) as made:
            merged.save_pretrained(made)
            processor.save_pretrained(made)
    return written
