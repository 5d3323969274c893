"""Videos whose pictures tell their own number, so that what a timestamp says is compared with what the frame shows.

The left half of frame k has the grey level of k // 10, the right half that of k % 10.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np

from rlvtg.video.decode import Clip

MS = Fraction(1, 1000)
VFR = [0, 100, 150, 400, 1000, 1100, 1900, 2000, 2500, 2600, 3300, 3350, 4000]


def settings(**changes: object) -> SimpleNamespace:
    values = {
        "fps": 2.0,
        "min_frames": 4,
        "max_frames": 768,
        "min_pixels": 784,
        "max_pixels": 12544,
        "total_pixels": 19267584,
        "sampling": "linspace",
        "backend": "pyav",
        "decode_timeout": 60.0,
    }
    return SimpleNamespace(**{**values, **changes})


def write_video(
    path: Path,
    milliseconds: Sequence[int],
    *,
    size: tuple[int, int] = (84, 112),
    moving: bool = False,
    tick: Fraction = MS,
    rate: int = 10,
    noise: bool = False,
    rotation: int = 0,
    container: dict[str, str] | None = None,
    **codec: str,
) -> Path:
    """Frame k shows its number at milliseconds[k]; keyframes every 7 frames, 2 B-frames."""
    height, width = size
    random = np.random.default_rng(0)
    with av.open(str(path), "w", options=container or {}) as file:
        options = {"g": "7", "bf": "2", "crf": "10", **codec}
        stream = file.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.time_base = stream.codec_context.time_base = tick
        if rotation:
            stream.set_display_rotation(rotation)
        for k, time in enumerate(milliseconds):
            if noise:
                picture = random.integers(0, 255, (height, width, 3)).astype(np.uint8)
            else:
                picture = (slanted if moving else numbered)(k, height, width)
            if rotation:
                picture[: height // 2, : width // 2] = 255
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = time, MS
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def write_grey(path: Path, grey: int, frames: int = 20) -> Path:
    """Ten frames of one grey level in a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 112, 84, "yuv420p"
        for _ in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((84, 112, 3), grey, np.uint8), "rgb24")))
        file.mux(stream.encode(None))
    return path


def write_still(path: Path, frames: int, *, size: tuple[int, int], rate: int) -> Path:
    """A Matroska file of one picture that is encoded once: made quickly, whatever its length and size."""
    height, width = size
    with av.open(str(path), "w", format="matroska") as file:
        stream = file.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        picture = bytes(stream.encode(av.VideoFrame(width, height, "yuvj420p"))[0])
        for k in range(frames):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, k, k, Fraction(1, rate)
            file.mux(packet)
    return path


def numbered(k: int, height: int, width: int) -> np.ndarray:
    picture = np.full((height, width, 3), 20 + 20 * (k % 10), np.uint8)
    picture[:, : width // 2] = 20 + 20 * (k // 10)
    return picture


def slanted(k: int, height: int, width: int) -> np.ndarray:
    """Colours that move on with k, so that every frame takes some bytes."""
    down, across = np.mgrid[:height, :width]
    return np.stack([3 * across + 5 * k, 3 * down + 7 * k, 2 * (down + across) + 3 * k], axis=-1).astype(np.uint8)


def frame_numbers(clip: Clip) -> list[int]:
    quarter = clip.frames.shape[2] // 4
    tens, ones = clip.frames[:, :, :quarter].mean((1, 2, 3)), clip.frames[:, :, -quarter:].mean((1, 2, 3))
    return [10 * round((ten - 20) / 20) + round((one - 20) / 20) for ten, one in zip(tens, ones, strict=True)]


def every_tenth(frames: int, start: int = 0) -> list[int]:
    return [start + 100 * k for k in range(frames)]
