"""Which frames of a video a segment of it has. Half-open: the frames that start at or after its start, before its end.

A segment is never shown with less than one temporal patch, which is two frames, as long as the video has them.
"""

import numpy as np

from rlvtg.text.span import window
from rlvtg.video.sampling import FRAMES_PER_PATCH


def segment_frames(times: np.ndarray, duration: float, start: float, end: float) -> tuple[int, int]:
    """[first, last) of the frames of the segment from `start` to `end` seconds, in `times` (T,) seconds, ascending.

    The segment is limited to the video, which lasts `duration` seconds. ValueError for one that is reversed, empty or
    outside it.
    """
    start, end = window((start, end), duration)
    # Times are whole multiples of a time base; the margin keeps a frame at exactly `start` despite float rounding.
    first, last = np.searchsorted(times, [start - 1e-6, end - 1e-6])
    return _patch(int(first), int(last), len(times))


def released_segment_frames(total_frames: int, fps: float, start: float, end: float) -> tuple[int, int]:
    """[first, last) of the segment as the release of Invert4TVG cuts it, from `total_frames` frames at nominal `fps`.

    Both ends are rounded to a frame and the video's last frame is never shown. A segment that is reversed or starts
    after the video is its first frame. Where the release takes no frame at all, this takes one temporal patch.

    Source: `calculate_frame_range` of nian1125/Invert4TVG@3597015
    qwen-vl-finetune/qwenvl/train/qwenvl_grpo_trainer.py.
    """
    start, end = max(0.0, start), min(end, total_frames / fps)
    if start > end:
        return 0, 1
    first, last = round(start * fps), min(total_frames - 1, round(end * fps))
    return (first, last) if first < last else _patch(first, last, total_frames)


def _patch(first: int, last: int, total: int) -> tuple[int, int]:
    """A range of frames moved and widened until it has a temporal patch, or all frames if there are fewer."""
    if last - first >= FRAMES_PER_PATCH:
        return first, last
    first = max(0, min(first, total - FRAMES_PER_PATCH))
    return first, min(first + FRAMES_PER_PATCH, total)
