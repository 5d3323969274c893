"""Load a model and its processor so that every pass of the library is right with them.

What is loaded may come from strangers: weights are read from safetensors files alone, never unpickled, and code that
lies beside a model is never run.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from rlvtg.model.family import family
from rlvtg.model.frequencies import keep_frequencies
from rlvtg.model.pads import forbid_vision_tokens
from rlvtg.model.patch_embedding import multiply_patches
from rlvtg.model.prefix_attention import share_prefix
from rlvtg.model.vision import share_vision
from rlvtg.model.vision_attention import batch_chunks
from rlvtg.recipe import RecipeError

WEIGHTS = ".safetensors"


def load_config(path: str | os.PathLike[str]) -> PreTrainedConfig:
    """The configuration saved at `path` (a folder or a hub id).

    Raises:
        RecipeError: a model type that transformers does not know, perhaps since it comes with code of its own.
    """
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except ValueError as error:
        raise RecipeError(
            f"model: {os.fspath(path)} has no configuration that transformers knows ({str(error).splitlines()[0]}); "
            "code that comes with a model is not run"
        ) from error


def load_processor(path: str | os.PathLike[str]) -> ProcessorMixin:
    """The processor saved at `path` (a folder or a hub id), padding on the left."""
    return AutoProcessor.from_pretrained(path, padding_side="left", trust_remote_code=False)


def load_model(
    path: str | os.PathLike[str], *, dtype: torch.dtype | str = torch.float32, attn_implementation: str = "sdpa"
) -> PreTrainedModel:
    """The model saved at `path` (a folder or a hub id), prepared for this library; `dtype` "auto" is as it was saved.

    Raises:
        RecipeError: a model family that the library does not know, or a folder without safetensors.
    """
    family(load_config(path))
    model = load_plainly(path, dtype=dtype, attn_implementation=attn_implementation)
    prepare(model)
    return model


def load_plainly(
    path: str | os.PathLike[str], *, dtype: torch.dtype | str = torch.float32, attn_implementation: str = "sdpa"
) -> PreTrainedModel:
    """The model saved at `path` (a folder or a hub id) as transformers has it, with nothing of this library in it.

    Raises:
        RecipeError: a folder without safetensors.
    """
    require_safetensors(path)
    return AutoModelForImageTextToText.from_pretrained(
        path, dtype=dtype, attn_implementation=attn_implementation, use_safetensors=True, trust_remote_code=False
    )


def load_checkpoint(
    path: str, *, dtype: torch.dtype | str = torch.float32, attn_implementation: str = "sdpa"
) -> PreTrainedModel | PeftModel:
    """The model saved at `path`, or, if that is the folder of a PEFT adapter, the adapter on its base model.

    Raises:
        RecipeError: a model family that the library does not know, or an adapter whose base model is not there.
    """
    base = plain_model(path)
    model = load_model(base, dtype=dtype, attn_implementation=attn_implementation)
    return model if base == path else load_adapter(model, path)


def load_adapter(model: PreTrainedModel, path: str | os.PathLike[str]) -> PeftModel:
    """The PEFT adapter saved at `path` (a folder) on its base model.

    Raises:
        RecipeError: a folder without safetensors.
    """
    require_safetensors(path)
    return PeftModel.from_pretrained(model, path)


def require_safetensors(path: str | os.PathLike[str]) -> None:
    """Raise RecipeError if `path` is a folder without weights in safetensors files."""
    names = sorted(os.listdir(path)) if os.path.isdir(path) else [WEIGHTS]
    if any(name.endswith(WEIGHTS) for name in names):
        return
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    raise RecipeError(
        f"model: {os.fspath(path)} has no weights in safetensors files"
        + (f", only {pickled[0]}, which is not read: unpickling it could run code" if pickled else "")
        + "; save the model with save_pretrained of transformers or PEFT"
    )


def plain_model(path: str) -> str:
    """`path`, or the base model that it is an adapter of.

    Raises:
        RecipeError: an adapter whose base model is a folder that is not there.
    """
    config = Path(path) / "adapter_config.json"
    if not config.is_file():
        return path
    base = str(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])
    is_folder = base.count("/") > 1 or base.startswith((".", "/"))
    if is_folder and not os.path.isdir(base):
        raise RecipeError(
            f"model: {path} is an adapter of {base}, and there is no such folder (looked in {Path.cwd()}); evaluate it "
            "where its base model is, or a merged model"
        )
    return base


def prepare(model: PreTrainedModel) -> None:
    """Share vision features and prefixes between rows and forbid vision tokens; safe to repeat.

    See `frequencies.py`, `vision.py`, `vision_attention.py`, `patch_embedding.py`, `prefix_attention.py` and `pads.py`.
    """
    keep_frequencies(model)
    share_vision(model)
    batch_chunks(model)
    multiply_patches(model)
    share_prefix(model)
    forbid_vision_tokens(model)


def freeze(model: PreTrainedModel, prefixes: Sequence[str]) -> None:
    """Stop gradients to the named parts, e.g. `visual`, `visual.blocks`, `language_model.embed_tokens`.

    Raises:
        RecipeError: the model has no such part.
    """
    for prefix in prefixes:
        try:
            part = model.base_model.get_submodule(prefix)
        except AttributeError as error:
            parts = [
                f"{name}.{child}"
                for name, module in model.base_model.named_children()
                for child, _ in module.named_children()
            ]
            raise RecipeError(f"freeze: the model has no part {prefix!r}; parts are {', '.join(parts)}") from error
        part.requires_grad_(False)
