"""Adapters that were trained one after the other, as one for the model that the first of them was trained on.

A stage or a round with LoRA starts from the merged weights of the one before it, W + s1 B1 A1, and trains s2 B2 A2 on
top. That sum is one adapter of rank r1 + r2 for W: A = [A1; A2], B = [s1 B1, s2 B2] and a scale of 1. So what a run
exports needs the model that everybody has, and none that only the run had.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file


def join(earlier: Path, folder: Path) -> None:
    """Let the adapter in `folder`, trained on the merged model of `earlier`, do what both do to the base of `earlier`.

    Exact but for rounding: the merged model had the precision of its weights.

    Args:
        earlier: an adapter's folder.
        folder: an adapter's folder, in which configuration and weights are replaced.
    """
    configs = [LoraConfig.from_pretrained(str(each)) for each in (earlier, folder)]
    held = [load_file(each / SAFETENSORS_WEIGHTS_NAME) for each in (earlier, folder)]
    weights = _joined(held, [config.r for config in configs], [config.lora_alpha / config.r for config in configs])
    first, last = configs
    last.base_model_name_or_path = first.base_model_name_or_path
    last.r = last.lora_alpha = first.r + last.r
    if (first.target_modules, first.exclude_modules) != (last.target_modules, last.exclude_modules):
        last.target_modules = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in weights}
        last.exclude_modules = None
    save_file(weights, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    last.save_pretrained(str(folder))


def _joined(
    held: Sequence[Mapping[str, torch.Tensor]], ranks: Sequence[int], scales: Sequence[float]
) -> dict[str, torch.Tensor]:
    """A side by side with A, and B times its scale with B; zeros for a layer that one of the adapters leaves alone."""
    found = {}
    for name in sorted({name for each in held for name in each}):
        rank_first = name.removesuffix(".weight").endswith("_A")  # (r, in); B is (out, r)
        some = next(each[name] for each in held if name in each)
        parts = []
        for each, rank, scale in zip(held, ranks, scales, strict=True):
            shape = list(some.shape)
            shape[0 if rank_first else 1] = rank
            part = each.get(name, some.new_zeros(shape))
            parts.append(part if rank_first else part * scale)
        found[name] = torch.cat(parts, dim=0 if rank_first else 1).contiguous()
    return found
