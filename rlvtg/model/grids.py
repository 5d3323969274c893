"""What the vision tower works out of the sizes of its videos, worked out once for each size.

In `time: text` a video of 300 patch pairs is 300 videos for the tower, all of one size; transformers goes through them
in Python in every pass.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)


def grid_arguments(grids: torch.Tensor, visual: torch.nn.Module) -> dict[str, Any]:
    """Keyword arguments of the tower for videos of these grids (V, 3): what it would otherwise compute itself.

    Args:
        grids: (t, h, w) of every video, in patches.
        visual: the vision tower; it may attend within windows (Qwen2.5-VL), or resample a grid of learned positions to
            the size of each frame (Qwen3-VL).
    """
    each = [tuple(grid) for grid in grids.tolist()]
    merge_size = visual.config.spatial_merge_size
    found = {"position_ids": torch.cat([_positions(grid, merge_size) for grid in each])}
    if hasattr(visual.config, "window_size"):
        found |= _all_windows(each, merge_size, visual.config.window_size, visual.config.patch_size)
    if hasattr(visual, "num_grid_per_side"):
        kind = (visual.num_grid_per_side, visual.interpolation_mode, visual.interpolation_align_corners, merge_size)
        indices, weights = zip(*[_interpolation(grid, *kind) for grid in each], strict=True)
        found |= {"interp_indices": torch.cat(indices), "interp_weights": torch.cat(weights)}
    return {name: value.to(grids.device) for name, value in found.items()}


def _all_windows(
    grids: Sequence[tuple[int, ...]], merge_size: int, window_size: int, patch_size: int
) -> dict[str, torch.Tensor]:
    """The order of the merged tokens of all videos, and where in it each window's patches end."""
    windows, lengths = [], []
    tokens = 0
    for grid in grids:
        window, length = _windows(grid, merge_size, window_size, patch_size)
        windows.append(window + tokens)
        lengths.append(length)
        tokens += len(window)
    ends = torch.cat([torch.zeros(1, dtype=torch.int32), torch.cat(lengths).cumsum(0, dtype=torch.int32)])
    return {"window_index": torch.cat(windows), "cu_window_seqlens": ends}


@lru_cache(maxsize=256)
def _positions(grid: tuple[int, ...], merge_size: int) -> torch.Tensor:
    """Positions (patches, 2) of one video."""
    return get_vision_position_ids(torch.tensor([grid]), merge_size)


@lru_cache(maxsize=256)
def _windows(
    grid: tuple[int, ...], merge_size: int, window_size: int, patch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The order of the merged tokens, and the patches of each window, of one video."""
    window, ends = get_vision_window_index(torch.tensor([grid]), merge_size, window_size, patch_size)
    return window, ends.diff()


@lru_cache(maxsize=256)
def _interpolation(
    grid: tuple[int, ...], side: int, mode: str, align_corners: bool, merge_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which learned positions each patch of one video is a mean of, and their weights, both (patches, taps)."""
    return get_vision_interpolation_indices_and_weights(
        torch.tensor([grid]),
        num_grid_per_side=side,
        mode=mode,
        align_corners=align_corners,
        spatial_merge_size=merge_size,
    )
