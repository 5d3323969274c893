"""What the vision tower works out of the sizes of its videos, worked out once for each size.

In `time: text` a video of 300 patch pairs is 300 videos for the tower, all of one size; transformers goes through them
in Python in every pass.
"""

from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index


def grid_arguments(grids: torch.Tensor, config: PreTrainedConfig) -> dict[str, Any]:
    """Keyword arguments of the tower for videos of these grids (V, 3): what it would otherwise compute itself.

    Args:
        grids: (t, h, w) of every video, in patches.
        config: of the vision tower.
    """
    sizes = (config.spatial_merge_size, config.window_size, config.patch_size)
    positions, windows, lengths = [], [], []
    tokens = 0
    for grid in grids.tolist():
        position, window, length = _of_one(tuple(grid), *sizes)
        positions.append(position)
        windows.append(window + tokens)
        lengths.append(length)
        tokens += len(window)
    ends = torch.cat([torch.zeros(1, dtype=torch.int32), torch.cat(lengths).cumsum(0, dtype=torch.int32)])
    return {
        "position_ids": torch.cat(positions).to(grids.device),
        "window_index": torch.cat(windows).to(grids.device),
        "cu_window_seqlens": ends.to(grids.device),
    }


@lru_cache(maxsize=256)
def _of_one(
    grid: tuple[int, ...], merge_size: int, window_size: int, patch_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions (patches, 2), the order of the merged tokens, and the patches of each window, of one video."""
    grids = torch.tensor([grid])
    window, ends = get_vision_window_index(grids, merge_size, window_size, patch_size)
    return get_vision_position_ids(grids, merge_size), window, ends.diff()
