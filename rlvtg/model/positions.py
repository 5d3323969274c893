"""Seconds become positions: the three-dimensional positions (M-RoPE) of a prompt with videos in it.

Every pass over a prompt (rollout, old, reference and policy log-probabilities, SFT, evaluation) takes its positions
from here and hands them to the model, which then computes none of its own.

Source: Qwen2.5-VL (arXiv 2502.13923, section 2.1.3). Text advances all three axes by one per token. A video of a
(t, h, w) grid, merged `merge_size` by `merge_size`, starts at the next free position p: its tokens lie at
(p + floor(k * seconds_per_grid * tokens_per_second), p + row, p + column) for grid step k, and the text behind it
starts one above the largest of these. Where positions hold no seconds, the first of the three is p + k: in Qwen2-VL
(arXiv 2409.12191, section 2.1), and in Qwen3-VL (arXiv 2511.21631), which moreover takes every temporal patch for a
video of its own behind its stamp.
Differs: transformers 5.3 to 5.23 start that text at p + max(h, w) / merge_size, as if a video took no time.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch

from rlvtg.model.family import Family


def prompt_positions(
    input_ids: torch.Tensor, grids: torch.Tensor, seconds_per_grid: Sequence[float], family: Family
) -> tuple[torch.Tensor, int]:
    """Positions of one prompt without padding.

    Args:
        input_ids: (P,) token ids; a video of grid (t, h, w) is a run of t * h * w / merge_size**2 video pads.
        grids: (V, 3) the grid (t, h, w) of every video, in patches, in the order of the prompt.
        seconds_per_grid: V seconds between two grid steps.
        family: where the pads, the merge size and the clock come from.

    Returns:
        Positions (3, P), integer, rows time, height, width; and the position of the first token behind the prompt.

    Raises:
        ValueError: pads and grids do not agree.
    """
    is_video = (input_ids == family.video_token_id).tolist()
    columns: list[torch.Tensor] = []
    next_position, index, video = 0, 0, 0
    while index < len(is_video):
        if is_video[index]:
            if video == len(grids):
                raise ValueError(f"the prompt has more video pads than its {len(grids)} videos account for")
            block = _video_positions(tuple(grids[video].tolist()), seconds_per_grid[video], family)
            if not all(is_video[index : index + block.shape[1]]) or index + block.shape[1] > len(is_video):
                raise ValueError(f"video {video} needs {block.shape[1]} pads in a row; the prompt has fewer")
            video += 1
        else:
            stop = index
            while stop < len(is_video) and not is_video[stop]:
                stop += 1
            block = torch.arange(stop - index).expand(3, -1)
        columns.append(block + next_position)
        next_position = int(columns[-1].max()) + 1
        index += block.shape[1]
    if video != len(grids):
        raise ValueError(f"the prompt has video pads for {video} videos, but {len(grids)} videos were given")
    return torch.cat(columns, dim=1), next_position


@lru_cache(maxsize=256)
def _video_positions(grid: tuple[int, ...], seconds_per_grid: float, family: Family) -> torch.Tensor:
    """Positions (3, t * h * w / merge_size**2) of a video that starts at 0."""
    height, width = grid[1] // family.merge_size, grid[2] // family.merge_size
    time = time_positions(grid[0], seconds_per_grid, family)
    return torch.stack(torch.meshgrid(time, torch.arange(height), torch.arange(width), indexing="ij")).flatten(1)


def time_positions(steps: int, seconds_per_grid: float, family: Family) -> torch.Tensor:
    """Positions (steps,) on the time axis of the grid steps of a video that starts at 0."""
    time = torch.arange(steps, dtype=torch.float64)
    if family.tokens_per_second is not None:
        # the product is taken before rounding down: an interval below one position must not collapse to zero
        time = time * seconds_per_grid * family.tokens_per_second + 1e-6
    return time.long()
