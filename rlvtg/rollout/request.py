"""Row -> the request that makes vLLM see what the policy sees: the same ids, frames and positions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlvtg.model.family import Family
from rlvtg.model.inputs import Encoder, Inputs
from rlvtg.model.positions import time_positions
from rlvtg.recipe import Video
from rlvtg.rollout.engine import Request

NUDGES = (0.0, 1e-7, 2e-7, 4e-7)


def request(row: Mapping[str, Any], prompt: Inputs, encoder: Encoder) -> Request:
    """The request of a row whose inputs are `prompt`: its clip as one video, or one for each temporal patch."""
    clip, count = encoder.shown(row), len(prompt.video.grids)
    videos = []
    for frames, grid, seconds in zip(
        np.split(clip.frames, count), prompt.video.grids.tolist(), prompt.video.seconds_per_grid, strict=True
    ):
        fps = told_fps(encoder.family.temporal_patch_size / seconds, grid[0], encoder.family)
        metadata = {
            "fps": fps,
            "duration": len(frames) / fps,
            "total_num_frames": len(frames),
            "frames_indices": list(range(len(frames))),
            "video_backend": "rlvtg",
        }
        videos.append((frames, metadata))
    return Request(prompt.input_ids.tolist(), videos, str(row.get("id")))


def told_fps(fps: float, steps: int, family: Family) -> float:
    """The frames per second, `fps` but for rounding, of which vLLM makes our positions of `steps` grid steps.

    vLLM keeps the seconds of a grid step in float32 and then rounds positions down, so a moment that falls on a whole
    position may come out one below it.
    """
    if family.tokens_per_second is None:
        return fps
    wanted = time_positions(steps, family.temporal_patch_size / fps, family).numpy()
    for nudge in NUDGES:
        told = fps * (1 - nudge)
        worth = float(np.float32(family.temporal_patch_size / told)) * family.tokens_per_second
        if np.array_equal((np.arange(steps) * worth).astype(np.int64), wanted):
            return told
    return fps


def video_limits(video: Video, family: Family) -> dict[str, Any]:
    """vLLM's `limit_mm_per_prompt`: how many videos a prompt may have, and the largest of them, to make room for."""
    count, frames = 1, family.temporal_patch_size * (video.max_frames // family.temporal_patch_size)
    pixels = min(video.max_pixels, max(video.min_pixels, video.total_pixels // frames))
    if family.has_stamps(video.time):
        count, frames, pixels = frames // family.temporal_patch_size, family.temporal_patch_size, video.max_pixels
    side = max(1, int(pixels**0.5) // family.pixel_unit) * family.pixel_unit
    return {"image": 0, "video": {"count": count, "num_frames": frames, "width": side, "height": side}}
