"""Adapters that were trained one after the other, as one for the model that the first of them was trained on.

A stage or a round with LoRA starts from the merged weights of the one before it, W + s1 B1 A1, and trains s2 B2 A2 on
top. That sum is one adapter of rank r1 + r2 for W: A = [A1; A2], B = [s1 B1, s2 B2] and a scale of 1. So what a run
exports needs the model that everybody has, and none that only the run had.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""What PEFT calls them."""


def join(earlier: Path, folder: Path) -> None:
    """Let the adapter in `folder`, trained on the merged model of `earlier`, do what both do to the base of `earlier`.

    Exact but for rounding: the merged model had the precision of its weights.

    Args:
        earlier: an adapter's folder.
        folder: an adapter's folder, in which configuration and weights are replaced.
    """
    configs = [json.loads((each / CONFIG).read_text(encoding="utf-8")) for each in (earlier, folder)]
    held = [load_file(each / WEIGHTS) for each in (earlier, folder)]
    ranks = [int(config["r"]) for config in configs]
    weights = _joined(held, ranks, [config["lora_alpha"] / rank for config, rank in zip(configs, ranks, strict=True)])
    first, last = configs
    joined = {**last, "base_model_name_or_path": first["base_model_name_or_path"]}
    joined |= {"r": sum(ranks), "lora_alpha": sum(ranks)}
    if any(_layers(first[key]) != _layers(last[key]) for key in ("target_modules", "exclude_modules")):
        names = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in weights}
        joined |= {"target_modules": sorted(names), "exclude_modules": None}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(joined, indent=2, sort_keys=True), encoding="utf-8")


def _layers(named: str | list[str] | None) -> str | set[str]:
    """Which layers are meant: one expression, or names in any order."""
    return named if isinstance(named, str) else set(named or ())


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
