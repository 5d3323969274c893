"""Frames by number: three decoders behind one function. The clock is the index's, whichever decoder is used.

pyav is the one that rlvtg needs and trusts. decord and torchcodec are optional: where their list of frames differs from
the index in number or, by more than a millisecond, in time, the video is refused.
"""

import importlib
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rlvtg.recipe import RecipeError
from rlvtg.video.index import MAX_FRAME_PIXELS, Index, VideoError, unreadable, video_stream

Path = str | os.PathLike[str]
Keep = Callable[[np.ndarray], np.ndarray]

# Share of the frames decoded to reach the shown ones that may be lost or damaged; the shown ones never are.
# Recordings with one glitch are common and look right, while a hole of zeros costs a whole group of pictures.
MAX_DAMAGED = 0.01
CLOCK_TOLERANCE = 1e-3  # seconds
# Containers in which FFmpeg takes the time that is sought for a presentation time; by decoding time it would land one
# keyframe early.
SOUGHT_BY_PTS = ("mp4", "matroska")
WORTH_A_SEEK = 16  # frames; fewer than that are decoded faster than jumped over


def pictures(name: str, path: Path, index: Index, numbers: Sequence[int], keep: Keep) -> dict[int, np.ndarray]:
    """What `keep` makes of the frames with these numbers (0 is the first one shown), by number.

    `keep` takes a whole frame, upright, uint8 (H, W, 3) RGB; only what it returns is kept in memory.

    Raises:
        VideoError: a frame that was asked for cannot be decoded, or the file is damaged.
        RecipeError: the decoder `name` is unknown or not installed.
    """
    return decoder(name)(path, index, sorted(set(numbers)), keep)


def decoder(name: str) -> Callable[[Path, Index, Sequence[int], Keep], dict[int, np.ndarray]]:
    """The function behind a value of `video.backend`.

    Raises RecipeError when it is unknown or its package cannot be loaded.
    """
    if name not in _DECODERS:
        raise RecipeError(f"video.backend: got {name!r}, allowed: {', '.join(_DECODERS)}")
    if name in _PACKAGES:
        _package(name)
    return _DECODERS[name]


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(_PACKAGES[name])
    except ImportError:
        raise RecipeError(f"video.backend: got {name}, which is not installed; pip install {name}") from None
    except (OSError, RuntimeError) as error:  # shared libraries that it was built against
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(f"video.backend: got {name}, which is installed but cannot be loaded: {reason}") from error


# pyav


def _pyav(path: Path, index: Index, numbers: Sequence[int], keep: Keep) -> dict[int, np.ndarray]:
    try:
        runs = _runs(index, numbers)
        kept, damage = _decode(path, index, runs, keep)
        # Containers differ in whether they seek by decoding or by presentation time, and not every point that is marked
        # as a keyframe can be started from; from the start nothing can be overshot.
        if damage is not None and runs != [(None, numbers)]:
            kept, damage = _decode(path, index, [(None, numbers)], keep)
    except (av.error.FFmpegError, OSError) as error:
        raise unreadable(path, error) from error
    if damage is not None:
        raise VideoError(path, damage)
    return kept


def _runs(index: Index, numbers: Sequence[int]) -> list[tuple[tuple[int, int] | None, Sequence[int]]]:
    """The numbers, cut where a seek is worth it, each part with its keyframe (pts, dts) to seek to; None: the start."""
    shown = [pts for pts, _ in index.keyframes]
    starts = [bisect_right(shown, index.pts[number]) - 1 for number in numbers]  # the keyframe at or before each
    cuts = [0]
    for place in range(1, len(numbers)):
        skipped = bisect_left(index.pts, shown[starts[place]]) - numbers[place - 1]
        if starts[place] > starts[place - 1] and skipped > WORTH_A_SEEK:
            cuts.append(place)
    return [
        (index.keyframes[starts[cut]] if starts[cut] > 0 else None, numbers[cut:end])
        for cut, end in zip(cuts, [*cuts[1:], len(numbers)], strict=True)
    ]


def _decode(
    path: Path, index: Index, runs: Sequence[tuple[tuple[int, int] | None, Sequence[int]]], keep: Keep
) -> tuple[dict[int, np.ndarray], str | None]:
    """The kept frames of all runs, and what is damaged in the first run that is."""
    kept: dict[int, np.ndarray] = {}
    with av.open(os.fspath(path)) as container:
        stream = video_stream(path, container)
        stream.thread_type = "AUTO"
        # The frames of a stream may be larger than its header says.
        stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
        for origin, numbers in runs:
            some, damage = _pass_over(container, stream, index, numbers, keep, origin)
            kept |= some
            if damage is not None:
                return kept, damage
    return kept, None


def _pass_over(
    container: InputContainer,
    stream: VideoStream,
    index: Index,
    numbers: Sequence[int],
    keep: Keep,
    origin: tuple[int, int] | None,
) -> tuple[dict[int, np.ndarray], str | None]:
    """The kept frames, and what is damaged; decodes from the keyframe `origin` (pts, dts) to the last number."""
    wanted = {index.pts[number]: number for number in numbers}
    first = 0 if origin is None else bisect_left(index.pts, origin[0])
    expected = set(index.pts[first : numbers[-1] + 1])
    whole: set[int] = set()
    kept: dict[int, np.ndarray] = {}
    if origin is not None:
        by_pts = any(name in index.container for name in SOUGHT_BY_PTS)
        container.seek(origin[0] if by_pts else origin[1], backward=True, stream=stream)
    for frame in container.decode(stream):
        if frame.pts in expected and not frame.is_corrupt:
            whole.add(frame.pts)
            if frame.pts in wanted and wanted[frame.pts] not in kept:
                kept[wanted[frame.pts]] = keep(_upright(frame))
        if frame.pts is not None and frame.pts >= index.pts[numbers[-1]]:
            break
    lost = [number for number in numbers if number not in kept]
    if lost:
        return kept, f"the frame at {index.times[lost[0]]:.3f} s cannot be decoded; the file is damaged"
    damaged = len(expected) - len(whole)
    if damaged > MAX_DAMAGED * len(expected):
        return kept, f"the file is damaged: {damaged} of {len(expected)} frames cannot be decoded"
    return kept, None


def _upright(frame: VideoFrame) -> np.ndarray:
    picture = frame.to_ndarray(format="rgb24")
    # FFmpeg's display matrix turns counterclockwise, and so does numpy; angles off the right ones are not shown.
    return np.rot90(picture, round(frame.rotation / 90) % 4)


# decord


def _decord(path: Path, index: Index, numbers: Sequence[int], keep: Keep) -> dict[int, np.ndarray]:
    package = _package("decord")
    if "mpegts" in index.container:
        # It drops the frames before the second keyframe and shows the others under wrong numbers.
        raise VideoError(path, "decord shows wrong frames of MPEG transport streams; use video.backend pyav")
    try:
        reader = package.VideoReader(os.fspath(path))
        stamps = np.asarray(reader.get_frame_timestamp(np.arange(len(reader))), dtype=np.float64)
        _require_same_clock("decord", path, index.times, stamps[:, 0] - stamps[0, 0])
        wanted, kept = set(numbers), {}
        # Its ways to seek and to skip land on wrong frames where groups of pictures are open; reading on does not.
        for number in range(numbers[-1] + 1):
            picture = reader.next()
            if number in wanted:
                kept[number] = keep(picture.asnumpy())
        return kept
    except (package.DECORDError, StopIteration) as error:
        raise VideoError(path, f"cannot be decoded by decord ({_first_line(error)})") from error


# torchcodec


def _torchcodec(path: Path, index: Index, numbers: Sequence[int], keep: Keep) -> dict[int, np.ndarray]:
    package = _package("torchcodec")
    try:
        reader = package.VideoDecoder(os.fspath(path), dimension_order="NHWC", seek_mode="exact")
        if len(reader) != len(index.pts):
            _require_same_clock("torchcodec", path, index.times, np.zeros(len(reader)))
        kept: dict[int, np.ndarray] = {}
        times = []
        for number in numbers:
            frame = reader.get_frame_at(number)
            times.append(frame.pts_seconds - reader.metadata.begin_stream_seconds)
            kept[number] = keep(frame.data.numpy())
        _require_same_clock("torchcodec", path, index.times[list(numbers)], np.array(times))
        return kept
    except (RuntimeError, IndexError, ValueError) as error:
        raise VideoError(path, f"cannot be decoded by torchcodec ({_first_line(error)})") from error


def _require_same_clock(name: str, path: Path, ours: np.ndarray, theirs: np.ndarray) -> None:
    if len(ours) != len(theirs):
        raise VideoError(path, f"{name} finds {len(theirs)} frames where the file lists {len(ours)}; use pyav")
    worst = int(np.abs(ours - theirs).argmax())
    if abs(ours[worst] - theirs[worst]) > CLOCK_TOLERANCE:
        got = f"{name} shows frame {worst} at {theirs[worst]:.3f} s, the file at {ours[worst]:.3f} s"
        raise VideoError(path, f"{got}; use video.backend pyav")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_DECODERS: dict[str, Any] = {"pyav": _pyav, "decord": _decord, "torchcodec": _torchcodec}
_PACKAGES = {"decord": "decord", "torchcodec": "torchcodec.decoders"}
