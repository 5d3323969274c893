"""File -> clip: the only place where a video is decoded.

Every time comes from the presentation times in the file, relative to its first frame; nothing is computed from
frame_index / nominal fps.
"""

import math
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from rlvtg.recipe import Video
from rlvtg.video.sampling import frame_indices, frame_size

# How far, in seconds, a window may run over the end of the video: annotated durations are rounded.
END_SLACK = 0.5


class VideoError(Exception):
    """A video that cannot be shown to the model, with its path and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        # The arguments are kept as they came, so that the error survives pickling on its way out of a worker process.
        super().__init__(os.fspath(path), reason)
        self.path = os.fspath(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


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


@dataclass(frozen=True)
class _Index:
    """What demuxing tells about a video stream without decoding it."""

    pts: list[int]  # presentation times, ascending, in units of time_base
    end: int  # when the last frame stops being shown
    keyframes: list[tuple[int, int]]  # (pts, dts), ascending
    time_base: Fraction


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
    relative to `start` and the duration is that of the window, which ends no later than the video. A window that starts
    after 0 and ends more than 0.5 s after the video is an error.

    Raises VideoError when the file is missing, empty, truncated, has no video or a frame that was asked for cannot be
    decoded.
    """
    if not Path(path).is_file():
        raise VideoError(path, "no such file")
    if Path(path).stat().st_size == 0:
        raise VideoError(path, "the file is empty")
    try:
        index = _index(path)
        wanted, timestamps, duration = _choose(path, index, settings, start, end)
        pictures = _decode(path, index, set(wanted), len(wanted), settings, factor)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(path, f"cannot be decoded ({error.strerror or error})") from error
    lost = [pts for pts in wanted if pts not in pictures]
    if lost:
        second = float((lost[0] - index.pts[0]) * index.time_base)
        raise VideoError(path, f"the frame at {second:.3f} s cannot be decoded; the file is damaged")
    return Clip(np.stack([pictures[pts] for pts in wanted]), timestamps, duration)


def _video_stream(path: str | os.PathLike[str], container: av.container.InputContainer) -> VideoStream:
    for stream in container.streams.video:
        # An audio file may carry its cover as a one-picture video stream.
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise VideoError(path, "the file has no video stream")


def _index(path: str | os.PathLike[str]) -> _Index:
    """Demux the whole file once: the times of all frames that a decoder will show."""
    size = Path(path).stat().st_size
    with av.open(os.fspath(path)) as container:
        stream = _video_stream(path, container)
        # mp4 lists its frames in the header; a file cut short still lists all of them.
        missing = sum(1 for entry in stream.index_entries if entry.pos + entry.size > size)
        if missing:
            raise VideoError(
                path, f"the file is truncated: {missing} of {len(stream.index_entries)} frames are missing"
            )
        read = [packet for packet in container.demux() if packet.size]
        # Matroska has no list of frames, but its header states when the last stream ends. A stream that does not say
        # how long its last packet lasts ends a little early.
        if "matroska" in container.format.name and container.duration is not None:
            stated = container.duration / av.time_base
            found = max(
                (float((p.pts + (p.duration or 0)) * p.time_base) for p in read if p.pts is not None), default=0.0
            )
            if found < stated - 1.0:
                raise VideoError(path, f"the file is truncated: it ends at {found:.1f} s of {stated:.1f} s")
        packets = [packet for packet in read if packet.stream_index == stream.index and not packet.is_discard]
        if not packets or stream.time_base is None:
            raise VideoError(path, "the video stream has no frames")
        if any(packet.is_corrupt for packet in packets):
            raise VideoError(path, "the file is damaged or truncated")
        shown: dict[int, int] = {}  # pts -> duration
        keyframes: list[tuple[int, int]] = []
        for packet in packets:
            if packet.pts is None:
                raise VideoError(path, "the frames carry no presentation times; remux the file to mp4 or mkv")
            shown[packet.pts] = packet.duration or 0
            if packet.is_keyframe:
                keyframes.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
        if not keyframes:
            raise VideoError(path, "the video stream has no keyframe")
        keyframes.sort()
        # Frames before the first keyframe refer to pictures that are not in the file.
        pts = sorted(time for time in shown if time >= keyframes[0][0])
        length = shown[pts[-1]] or (round((pts[-1] - pts[0]) / (len(pts) - 1)) if len(pts) > 1 else 0)
        if length <= 0:
            raise VideoError(path, "the video has one frame without a duration")
        return _Index(pts, pts[-1] + length, keyframes, stream.time_base)


def _choose(
    path: str | os.PathLike[str], index: _Index, settings: Video, start: float | None, end: float | None
) -> tuple[list[int], np.ndarray, float]:
    """(pts of the frames to show, their seconds (N,), duration of the window in seconds)."""
    times = np.array([float((pts - index.pts[0]) * index.time_base) for pts in index.pts])
    whole = (index.end - index.pts[0]) * index.time_base
    first = 0.0 if start is None else start
    last = float(whole) if end is None else min(end, float(whole))
    if not (math.isfinite(first) and first >= 0 and first < last):
        raise VideoError(path, f"the window from {start} to {end} s is empty; the video lasts {float(whole):.3f} s")
    # Cutting a file that was already cut to this window would show the wrong seconds.
    if first > 0 and end is not None and end > float(whole) + END_SLACK:
        raise VideoError(
            path,
            f"the window ends at {end} s but the video lasts {float(whole):.3f} s; it may already be cut to its window",
        )
    # Times are whole multiples of the time base; the margin keeps a frame at exactly `start` despite float rounding.
    inside = np.flatnonzero((times >= first - 1e-6) & (times < last - 1e-6))
    if len(inside) == 0:
        raise VideoError(path, f"no frame starts in the window from {start} to {end} s")
    duration = float(whole) if start is None and end is None else last - first
    # The rational quotient is exactly 30 for a 30 fps file, where a float quotient may land just below and lose two
    # frames.
    video_fps = float(len(inside) / (whole if start is None and end is None else Fraction(duration)))
    try:
        indices, timestamps = frame_indices(np.maximum(times[inside] - first, 0.0), video_fps, settings)
    except ValueError as error:
        raise VideoError(path, str(error)) from error
    return [index.pts[inside[i]] for i in indices], timestamps, duration


def _decode(
    path: str | os.PathLike[str], index: _Index, wanted: set[int], count: int, settings: Video, factor: int
) -> dict[int, np.ndarray]:
    """The wanted frames by pts, each uint8 (H, W, 3)."""
    before = [dts for pts, dts in index.keyframes if pts <= min(wanted)]
    with av.open(os.fspath(path)) as container:
        stream = _video_stream(path, container)
        stream.thread_type = "AUTO"
        if len(before) > 1:
            container.seek(before[-1], backward=True, stream=stream)
        frames = container.decode(stream)
        frame = next(frames, None)
        if len(before) > 1 and (frame is None or frame.pts is None or frame.pts > min(wanted)):
            # Containers differ in whether they seek by decoding or by presentation time; from the start nothing can be
            # overshot.
            container.seek(index.keyframes[0][1], backward=True, stream=stream)
            frames = container.decode(stream)
            frame = next(frames, None)
        pictures: dict[int, np.ndarray] = {}
        while frame is not None and len(pictures) < len(wanted):
            if frame.pts in wanted and frame.pts not in pictures:
                pictures[frame.pts] = _picture(path, frame, count, settings, factor)
            frame = next(frames, None)
        return pictures


def _picture(path: str | os.PathLike[str], frame: VideoFrame, count: int, settings: Video, factor: int) -> np.ndarray:
    """The frame upright and resized, uint8 (H, W, 3) RGB."""
    if frame.is_corrupt:
        raise VideoError(path, f"the frame at {frame.time:.3f} s is damaged")
    picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
    if frame.rotation % 360:
        picture = picture.rotate(frame.rotation, expand=True)
    try:
        height, width = frame_size(picture.height, picture.width, count, settings, factor)
    except ValueError as error:
        raise VideoError(path, str(error)) from error
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
