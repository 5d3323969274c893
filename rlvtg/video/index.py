"""File -> index: when each frame of a video is shown, read without decoding a picture. Every clock starts here.

Times are presentation times, relative to the first frame; nothing is computed from frame number / nominal fps. What the
container promises (its list of frames, its length, its size) is compared with what is there.
"""

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

# 8192 x 8192, twice the pixels of 8K UHD. A decoder holds some twenty frames of its video at once, which at this size
# is 2 GB; a header that claims more is broken, or would take the machine down.
MAX_FRAME_PIXELS = 2**26
# Seconds by which the frames of a file may end before its header says that they do.
END_TOLERANCE = 1.0
# Share of a file's bytes that may belong to nothing, and the length up to which a run of them is a container's own.
MAX_LOST_BYTES = 0.01
OVERHEAD = 1024

# What can be wrong with a file, as `VideoError.kind` names it and lists of bad rows count it.
UNREADABLE = "unreadable video"
NO_VIDEO = "no video stream"
NO_FRAMES = "no frames"
TOO_LARGE = "too large"
TRUNCATED = "truncated"
TIMED_OUT = "timed out"
CRASHED = "decoder crashed"
WINDOW = "bad clip window"


class VideoError(Exception):
    """A video that cannot be shown to the model, with its path, the reason in words, and the kind of the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str, kind: str = UNREADABLE) -> None:
        # The arguments are kept as they came, so that the error survives pickling on its way out of a worker process.
        super().__init__(os.fspath(path), reason, kind)
        self.path = os.fspath(path)
        self.reason = reason
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Index:
    """The frames that a decoder will show, in the order in which they are shown."""

    pts: list[int]  # presentation times, ascending, in units of time_base
    end: int  # when the last frame stops being shown
    keyframes: list[tuple[int, int]]  # (pts, dts), ascending
    time_base: Fraction
    width: int  # of the frames as they are stored, before any rotation
    height: int
    container: str  # FFmpeg's name of the format

    @property
    def times(self) -> np.ndarray:
        """When each frame is shown, float64 (T,), seconds from the first one."""
        return np.array([float((pts - self.pts[0]) * self.time_base) for pts in self.pts])

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame's appearance to the last one's end."""
        return (self.end - self.pts[0]) * self.time_base


def read_index(path: str | os.PathLike[str]) -> Index:
    """Read the packets of the whole file once, and decode none of them.

    Raises VideoError for a file that is missing, empty, truncated or no video, has no frames, or has frames of more
    than 8192 x 8192 pixels.
    """
    if not Path(path).is_file():
        raise VideoError(path, "no such file")
    if Path(path).stat().st_size == 0:
        raise VideoError(path, "the file is empty")
    try:
        with av.open(os.fspath(path)) as container:
            return _index(path, container)
    except (av.error.FFmpegError, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str | os.PathLike[str], error: av.error.FFmpegError | OSError) -> VideoError:
    """What FFmpeg or the file system had to say, as a VideoError."""
    return VideoError(path, f"cannot be decoded ({error.strerror or error})")


def video_stream(path: str | os.PathLike[str], container: av.container.InputContainer) -> VideoStream:
    """The first stream of moving pictures."""
    for stream in container.streams.video:
        # An audio file may carry its cover as a one-picture video stream.
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise VideoError(path, "the file has no video stream", NO_VIDEO)


def _index(path: str | os.PathLike[str], container: av.container.InputContainer) -> Index:
    stream = video_stream(path, container)
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_FRAME_PIXELS:
        raise VideoError(path, f"the frames are {width}x{height}, the limit is {MAX_FRAME_PIXELS} pixels", TOO_LARGE)
    # mp4 lists its frames in the header, which a file cut short still does; avi lists them at its end.
    size = Path(path).stat().st_size
    listed = [entry.pos + entry.size for entry in stream.index_entries if entry.size]
    missing = sum(1 for end in listed if end > size)
    if missing:
        raise VideoError(path, f"the file is truncated: {missing} of {len(listed)} frames are missing", TRUNCATED)
    read = [packet for packet in container.demux() if packet.size]
    packets = [packet for packet in read if packet.stream_index == stream.index]
    if len(packets) < len(listed):
        lost = len(listed) - len(packets)
        raise VideoError(path, f"the file is damaged: {lost} of {len(listed)} frames are missing", TRUNCATED)
    _check_promises(path, container, stream, read)
    packets = [packet for packet in packets if not packet.is_discard]
    if not packets or stream.time_base is None:
        raise VideoError(path, "the video stream has no frames", NO_FRAMES)
    if any(packet.is_corrupt for packet in packets):
        raise VideoError(path, "the file is damaged or truncated", TRUNCATED)
    shown: dict[int, int] = {}  # pts -> duration
    keyframes: list[tuple[int, int]] = []
    for packet in packets:
        if packet.pts is None:
            raise VideoError(path, "the frames carry no presentation times; remux the file to mp4 or mkv")
        shown[packet.pts] = packet.duration or 0
        if packet.is_keyframe:
            keyframes.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
    if not keyframes:
        raise VideoError(path, "the video stream has no keyframe", NO_FRAMES)
    if len(packets) > 1 and len(shown) == 1:
        raise VideoError(path, f"all {len(packets)} frames have the same presentation time", NO_FRAMES)
    keyframes.sort()
    # Frames before the first keyframe refer to pictures that are not in the file.
    pts = sorted(time for time in shown if time >= keyframes[0][0])
    length = shown[pts[-1]] or (round((pts[-1] - pts[0]) / (len(pts) - 1)) if len(pts) > 1 else 0)
    if length <= 0:
        raise VideoError(path, "the video has one frame without a duration", NO_FRAMES)
    index = Index(pts, pts[-1] + length, keyframes, stream.time_base, width, height, container.format.name)
    # An mp4 whose table of times is void (a rate of zero) is given times by the demuxer that are not the video's.
    if "mp4" in container.format.name and stream.duration and index.duration > 2 * stream.duration * stream.time_base:
        stated = float(stream.duration * stream.time_base)
        raise VideoError(
            path, f"the frames' times run to {float(index.duration):.1f} s, the header says {stated:.1f} s"
        )
    return index


def _check_promises(
    path: str | os.PathLike[str], container: av.container.InputContainer, stream: VideoStream, read: list[Packet]
) -> None:
    """Refuse a file that holds less than it says; `read` are its packets."""
    formats = container.format.name.split(",")
    # These have no list of frames, or have it at the end, but their headers state when the last stream ends. A stream
    # that does not say how long its last packet lasts ends a little early.
    states_end = {"matroska", "flv", "avi"} & set(formats) or ("mp4" in formats and stream.frames == 0)
    if states_end and container.duration is not None:
        stated = container.duration / av.time_base
        start = 0.0 if container.start_time is None else min(0.0, container.start_time / av.time_base)
        found = max((float((p.pts + (p.duration or 0)) * p.time_base) for p in read if p.pts is not None), default=0.0)
        if found - start < stated - END_TOLERANCE:
            raise VideoError(path, f"the file is truncated: it ends at {found:.1f} s of {stated:.1f} s", TRUNCATED)
    # Where bytes are destroyed, these demuxers go on at the next place that looks like a packet and say nothing.
    lost_bytes = 0
    if {"matroska", "flv"} & set(formats):
        lost_bytes = _unclaimed(read)
    elif "mpegts" in formats:
        lost_bytes = _out_of_step(Path(path))
    size = Path(path).stat().st_size
    if lost_bytes > MAX_LOST_BYTES * size:
        raise VideoError(path, f"the file is damaged: {lost_bytes} of {size} bytes are no part of any stream")
    if "mpegts" in formats and _is_whole_step(Path(path)) is False:
        raise VideoError(path, "the file is truncated: its last transport packet is not whole", TRUNCATED)


def _unclaimed(read: list[Packet]) -> int:
    """Bytes between the first and the last packet that are neither in a packet nor short enough for overhead."""
    sizes: dict[int, int] = {}  # several packets may come from one block of the file
    for packet in read:
        if packet.pos is not None:
            sizes[packet.pos] = sizes.get(packet.pos, 0) + packet.size
    end, lost = min(sizes, default=0), 0
    for pos, size in sorted(sizes.items()):
        lost += pos - end if pos - end > OVERHEAD else 0
        end = max(end, pos + size)
    return lost


# A transport stream is a row of packets of 188 bytes which each start with 0x47. Packets of another length (192 with a
# time code in front, 204 with error correction) are left to the decoder.
_STEP, _SYNC = 188, 0x47


def _out_of_step(path: Path) -> int:
    """Bytes of a transport stream in packets that do not start as they must."""
    if _is_whole_step(path) is None:
        return 0
    starts = np.memmap(path, np.uint8, "r")[::_STEP]
    return int((starts != _SYNC).sum()) * _STEP


def _is_whole_step(path: Path) -> bool | None:
    """Whether a file of 188-byte packets ends with a whole one; None for packets of another length."""
    with path.open("rb") as file:
        head = file.read(_STEP + 1)
    if len(head) <= _STEP or head[0] != _SYNC or head[_STEP] != _SYNC:
        return None
    return path.stat().st_size % _STEP == 0
