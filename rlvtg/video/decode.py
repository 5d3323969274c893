"""File -> clip: the frames of a video that the model sees, and when each of them is shown."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from rlvtg.recipe import Video
from rlvtg.video.backend import pictures
from rlvtg.video.index import NO_FRAMES, WINDOW, Index, read_index
from rlvtg.video.index import VideoError as VideoError
from rlvtg.video.sampling import FRAMES_PER_PATCH, frame_indices, frame_size
from rlvtg.video.segment import segment_frames

# How far, in seconds, a window may run over the end of the video: annotated durations are rounded.
END_SLACK = 0.5


@dataclass(frozen=True)
class Clip:
    """The sampled frames of a video and when each one is shown."""

    frames: np.ndarray  # uint8 (N, H, W, 3), RGB
    timestamps: np.ndarray  # float64 (N,), seconds from the clip's start
    duration: float  # seconds

    @property
    def fps(self) -> float:
        """Frames per second of the sampled frames: (N - 1) / (last timestamp - first timestamp)."""
        span = float(self.timestamps[-1] - self.timestamps[0])
        if span > 0:
            return (len(self.timestamps) - 1) / span
        return len(self.timestamps) / self.duration


def read_clip(
    path: str | os.PathLike[str],
    settings: Video,
    *,
    start: float | None = None,
    end: float | None = None,
    factor: int = 28,
) -> Clip:
    """The sampled frames of the video at `path`, resized so that both sides are multiples of `factor`.

    `start` and `end` are seconds from the first frame: only frames with start <= time < end are used, timestamps are
    relative to `start` and the duration is that of the window, which ends no later than the video. A window with one
    frame shows its neighbour too, since frames go in pairs; where that is the one before it, the clock starts there. A
    window that starts after 0 and ends more than 0.5 s after the video is an error.

    This decodes in the calling process, which a broken file may hang or take down; `rlvtg.video.worker` does not.

    Raises VideoError when the file is missing, empty, truncated, too large, has no video or a frame that was asked for
    cannot be decoded.
    """
    index = read_index(path)
    wanted, timestamps, duration = _choose(path, index, settings, start, end)

    def resized(picture: np.ndarray) -> np.ndarray:
        try:
            height, width = frame_size(picture.shape[0], picture.shape[1], len(wanted), settings, factor)
        except ValueError as error:
            raise VideoError(path, str(error)) from error
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))

    shown = pictures(settings.backend, path, index, wanted, resized)
    return Clip(np.stack([shown[number] for number in wanted]), timestamps, duration)


def _choose(
    path: str | os.PathLike[str], index: Index, settings: Video, start: float | None, end: float | None
) -> tuple[Sequence[int], np.ndarray, float]:
    """(numbers of the frames to show, their seconds (N,), duration of the window in seconds)."""
    times, whole = index.times, index.duration
    first = 0.0 if start is None else start
    last = float(whole) if end is None else min(end, float(whole))
    if not (math.isfinite(first) and first >= 0 and first < last):
        lasts = f"the video lasts {float(whole):.3f} s"
        raise VideoError(path, f"the window from {start} to {end} s is empty; {lasts}", WINDOW)
    # Cutting a file that was already cut to this window would show the wrong seconds.
    if first > 0 and end is not None and end > float(whole) + END_SLACK:
        raise VideoError(
            path,
            f"the window ends at {end} s but the video lasts {float(whole):.3f} s; it may already be cut to its window",
            WINDOW,
        )
    # Times are whole multiples of the time base; the margin keeps a frame at exactly `start` despite float rounding.
    inside = np.flatnonzero((times >= first - 1e-6) & (times < last - 1e-6))
    if len(inside) == 0:
        raise VideoError(path, f"no frame starts in the window from {start} to {end} s", WINDOW)
    if len(inside) < FRAMES_PER_PATCH:
        inside = np.arange(*segment_frames(times, float(whole), first, last))
        first = min(first, float(times[inside[0]]))
    duration = float(whole) if start is None and end is None else last - first
    # The rational quotient is exactly 30 for a 30 fps file, where a float quotient may land just below and lose two
    # frames.
    video_fps = float(len(inside) / (whole if start is None and end is None else Fraction(duration)))
    try:
        indices, timestamps = frame_indices(np.maximum(times[inside] - first, 0.0), video_fps, settings)
    except ValueError as error:
        raise VideoError(path, str(error), NO_FRAMES) from error
    return inside[indices].tolist(), timestamps, duration
