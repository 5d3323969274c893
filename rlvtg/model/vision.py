"""A video is encoded once per model call, however many rows are about it.

transformers wants the pixels of every row, so a group of G completions would run the vision tower G times over the
same frames. With `share_vision` a call may give each video once plus `video_rows`, the indices of the videos of each
row; the features are computed inside the model's own forward (so DDP, ZeRO and checkpointing see an ordinary call)
and repeated.
"""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


def share_vision(model: PreTrainedModel) -> None:
    """Teach `model` (a conditional-generation model, not a PEFT wrapper) the keyword `video_rows`; safe to repeat."""
    backbone = model.base_model
    if _encode_once not in backbone._forward_pre_hooks.values():
        backbone.register_forward_pre_hook(_encode_once, with_kwargs=True)


def _encode_once(
    backbone: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if "video_rows" not in kwargs:
        return None
    kwargs = dict(kwargs)
    rows = kwargs.pop("video_rows")
    pixel_values, grids = kwargs.pop("pixel_values_videos"), kwargs.pop("video_grid_thw")
    features = backbone.get_video_features(pixel_values, grids, return_dict=True).pooler_output
    shared = tuple(features[video] for row in rows for video in row)
    kwargs["mm_encoder_outputs"] = {"video": BaseModelOutputWithPooling(pooler_output=shared)}
    return args, kwargs
