"""Which frames of a video the model sees, and at which size. Pure arithmetic, no pixels.

Counts and sizes follow qwen-vl-utils 0.0.14 (what the Qwen2.5-VL checkpoints were trained with), so that the same
settings give the same tokens here and there.
"""

import math

import numpy as np

from rlvtg.recipe import Video

# Qwen2.5-VL merges two consecutive frames into one temporal patch.
FRAMES_PER_PATCH = 2
# The per-frame ceiling of qwen-vl-utils, in tokens of factor x factor pixels.
MAX_FRAME_TOKENS = 768
MAX_ASPECT_RATIO = 200


def frame_count(total_frames: int, video_fps: float, settings: Video) -> int:
    """How many frames are taken from `total_frames` frames recorded at `video_fps`; always even.

    linspace: `duration * fps`, at least `min_frames`, at most `max_frames` and `total_frames`, rounded down to even.
    interval: one frame every 1/fps seconds, k = 0 .. floor(duration * fps) - 1, at least one, made even by one repeated
    frame. When that is more than `max_frames`, the interval becomes the smallest whole multiple of 1/fps that fits.
    `min_frames` is not used: more frames than the interval gives would not lie on round seconds.

    Raises ValueError when no even count of at least two fits.
    """
    count, _ = _count_and_stride(total_frames, video_fps, settings)
    return count


def frame_indices(times: np.ndarray, video_fps: float, settings: Video) -> tuple[np.ndarray, np.ndarray]:
    """The frames to take: indices into `times`, int64 (N,), and the second that each one stands for, float64 (N,).

    `times` (T,) are the presentation times of all frames in seconds, ascending, relative to the clip's start.
    linspace: evenly spaced indices from first to last; each stands for its own presentation time.
    interval: the frame on display at k * step seconds, which is the second it stands for; the frame that makes the
    count even repeats the last index and stands for the next step.

    The indices are rounded in float64. qwen-vl-utils rounds in float32, which moves a frame by one where the exact
    position is within about 1e-3 of a half.
    """
    count, stride = _count_and_stride(len(times), video_fps, settings)
    if settings.sampling == "linspace":
        indices = np.round(np.linspace(0, len(times) - 1, count)).astype(np.int64)
        return indices, np.asarray(times, dtype=np.float64)[indices]
    seconds = np.arange(count) * stride / settings.fps
    # Presentation times are rounded to the file's time base (1 ms in Matroska); a frame that late still counts as on
    # display.
    indices = np.maximum(np.searchsorted(times, seconds + 1e-3, side="right") - 1, 0).astype(np.int64)
    distinct = _interval_count(len(times), video_fps, settings, stride)
    indices[distinct:] = indices[distinct - 1]
    return indices, seconds


def frame_size(height: int, width: int, frames: int, settings: Video, factor: int = 28) -> tuple[int, int]:
    """(height, width) in pixels, multiples of `factor`, that `frames` frames of `height` x `width` are resized to.

    The pixel budget of one frame is
    `min(max_pixels, max(min(768 * factor^2, 2 * total_pixels / frames), int(1.05 * min_pixels)))`.

    Raises ValueError for settings that contradict each other and for a side ratio above 200.
    """
    budget = min(MAX_FRAME_TOKENS * factor**2, settings.total_pixels / frames * FRAMES_PER_PATCH)
    most = min(settings.max_pixels, max(budget, int(settings.min_pixels * 1.05)))
    least = settings.min_pixels
    if most < least:
        raise ValueError(f"max_pixels is {settings.max_pixels}; it must be at least min_pixels, which is {least}")
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise ValueError(f"frames are {width}x{height}; one side may be at most {MAX_ASPECT_RATIO} times the other")
    tall = max(factor, round(height / factor) * factor)
    wide = max(factor, round(width / factor) * factor)
    if tall * wide > most:
        shrink = math.sqrt(height * width / most)
        tall = math.floor(height / shrink / factor) * factor
        wide = math.floor(width / shrink / factor) * factor
    elif tall * wide < least:
        grow = math.sqrt(least / (height * width))
        tall = math.ceil(height * grow / factor) * factor
        wide = math.ceil(width * grow / factor) * factor
    if tall == 0 or wide == 0:
        # qwen-vl-utils returns a zero side here: a very long frame under a very small budget.
        raise ValueError(
            f"frames are {width}x{height}, which do not fit in {most:.0f} pixels with sides of at least {factor}"
        )
    return tall, wide


def _count_and_stride(total_frames: int, video_fps: float, settings: Video) -> tuple[int, int]:
    """(even number of frames, interval in units of 1/fps)."""
    if total_frames < 1 or not video_fps > 0 or not settings.fps > 0:
        raise ValueError(
            f"got {total_frames} frames at {video_fps} fps, sampled at {settings.fps} fps; each must be above zero"
        )
    most = settings.max_frames // FRAMES_PER_PATCH * FRAMES_PER_PATCH
    if most < FRAMES_PER_PATCH:
        raise ValueError(f"max_frames is {settings.max_frames}; it must be at least {FRAMES_PER_PATCH}")
    if settings.sampling == "interval":
        stride = max(1, math.ceil(_interval_count(total_frames, video_fps, settings, 1) / most))
        count = _interval_count(total_frames, video_fps, settings, stride)
        return math.ceil(count / FRAMES_PER_PATCH) * FRAMES_PER_PATCH, stride
    if settings.sampling != "linspace":
        raise ValueError(f"sampling is {settings.sampling!r}; it must be 'linspace' or 'interval'")
    least = math.ceil(settings.min_frames / FRAMES_PER_PATCH) * FRAMES_PER_PATCH
    wanted = min(max(total_frames / video_fps * settings.fps, least), most, total_frames)
    count = math.floor(wanted / FRAMES_PER_PATCH) * FRAMES_PER_PATCH
    if count < FRAMES_PER_PATCH:
        raise ValueError(f"the clip has {total_frames} frame; at least {FRAMES_PER_PATCH} are needed")
    return count, 1


def _interval_count(total_frames: int, video_fps: float, settings: Video, stride: int) -> int:
    """How many whole steps of stride/fps seconds the clip shows before any frame is repeated."""
    # 1e-6 keeps a clip of exactly N intervals at N although total / fps is a rounded quotient.
    units = max(1, math.floor(total_frames / video_fps * settings.fps + 1e-6))
    return math.ceil(units / stride)
