"""The pictures tell their own number, so what a timestamp says is compared with what the frame shows.

The left half of frame k has the grey level of k // 10, the right half that of k % 10.
"""

import pickle
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from rlvtg.video.decode import Clip, VideoError, read_clip

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
    }
    return SimpleNamespace(**{**values, **changes})


def write_video(
    path: Path,
    milliseconds: Sequence[int],
    *,
    size: tuple[int, int] = (84, 112),
    noise: bool = False,
    rotation: int = 0,
    container: dict[str, str] | None = None,
    **codec: str,
) -> Path:
    """Frame k shows its number at milliseconds[k]; keyframes every 7 frames, 2 B-frames."""
    height, width = size
    random = np.random.default_rng(0)
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream("libx264", rate=10, options={"g": "7", "bf": "2", "crf": "10", **codec})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.time_base = stream.codec_context.time_base = MS
        if rotation:
            stream.set_display_rotation(rotation)
        for k, time in enumerate(milliseconds):
            picture = numbered(k, height, width)
            if noise:
                picture = random.integers(0, 255, (height, width, 3)).astype(np.uint8)
            if rotation:
                picture[: height // 2, : width // 2] = 255
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = time, MS
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def numbered(k: int, height: int, width: int) -> np.ndarray:
    picture = np.full((height, width, 3), 20 + 20 * (k % 10), np.uint8)
    picture[:, : width // 2] = 20 + 20 * (k // 10)
    return picture


def frame_numbers(clip: Clip) -> list[int]:
    quarter = clip.frames.shape[2] // 4
    tens, ones = clip.frames[:, :, :quarter].mean((1, 2, 3)), clip.frames[:, :, -quarter:].mean((1, 2, 3))
    return [10 * round((ten - 20) / 20) + round((one - 20) / 20) for ten, one in zip(tens, ones, strict=True)]


def every_tenth(frames: int, start: int = 0) -> list[int]:
    return [start + 100 * k for k in range(frames)]


def test_a_constant_rate_video_is_sampled_evenly_and_stamped_truly(tmp_path: Path) -> None:
    clip = read_clip(write_video(tmp_path / "a.mp4", every_tenth(100)), settings())
    numbers = np.linspace(0, 99, 20).round().astype(int).tolist()
    assert frame_numbers(clip) == numbers
    assert clip.timestamps.tolist() == pytest.approx([n / 10 for n in numbers])
    assert clip.duration == pytest.approx(10.0)
    assert clip.fps == pytest.approx(19 / 9.9)
    assert (clip.frames.dtype, clip.frames.shape, clip.timestamps.dtype) == (np.uint8, (20, 84, 112, 3), np.float64)


def test_a_variable_rate_video_is_stamped_with_its_presentation_times(tmp_path: Path) -> None:
    clip = read_clip(write_video(tmp_path / "a.mp4", VFR), settings())
    assert clip.timestamps.tolist() == pytest.approx([VFR[n] / 1000 for n in frame_numbers(clip)])
    assert frame_numbers(clip)[0] == 0 and frame_numbers(clip)[-1] == 12


def test_interval_sampling_of_a_variable_rate_video_shows_what_is_on_display(tmp_path: Path) -> None:
    clip = read_clip(write_video(tmp_path / "a.mp4", VFR), settings(sampling="interval"))
    assert clip.timestamps.tolist()[:8] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert frame_numbers(clip)[:8] == [0, 3, 4, 5, 7, 8, 9, 11]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_times_count_from_the_first_frame_wherever_the_file_starts(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a.{suffix}", every_tenth(40, start=2500))
    clip = read_clip(path, settings())
    assert clip.timestamps.tolist() == pytest.approx([n / 10 for n in frame_numbers(clip)])
    assert (frame_numbers(clip)[0], frame_numbers(clip)[-1]) == (0, 39)
    assert clip.duration == pytest.approx(4.0)


@pytest.mark.parametrize(
    "codec", [{"bf": "0"}, {"bf": "3", "g": "30"}, {"bf": "3", "g": "5", "x264-params": "open-gop=1"}]
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_are_found_in_any_coding_order(tmp_path: Path, suffix: str, codec: dict[str, str]) -> None:
    path = write_video(tmp_path / f"a.{suffix}", every_tenth(60), **codec)
    for start in (None, 0.0, 0.35, 1.4, 2.95, 4.7):
        clip = read_clip(path, settings(), start=start, end=5.7)
        assert (clip.timestamps + (start or 0.0)).tolist() == pytest.approx([n / 10 for n in frame_numbers(clip)])


def test_a_window_has_its_own_clock_and_ends_before_its_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every_tenth(100))
    clip = read_clip(path, settings(max_frames=4), start=5.0, end=8.0)
    assert frame_numbers(clip) == [50, 60, 69, 79]
    assert clip.timestamps.tolist() == pytest.approx([0.0, 1.0, 1.9, 2.9])
    assert clip.duration == pytest.approx(3.0)
    assert read_clip(path, settings(), start=0.0, end=10.3).duration == pytest.approx(10.0)


def test_a_window_outside_the_video_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every_tenth(100))
    for start, end in ((12.0, 15.0), (5.0, 5.0), (6.0, 5.0), (-1.0, 5.0), (float("nan"), 5.0)):
        with pytest.raises(VideoError, match="is empty; the video lasts 10.000 s"):
            read_clip(path, settings(), start=start, end=end)
    with pytest.raises(VideoError, match="already be cut"):
        read_clip(path, settings(), start=2.0, end=12.0)


def test_an_odd_sized_video_is_resized_to_multiples_of_the_factor(tmp_path: Path) -> None:
    clip = read_clip(write_video(tmp_path / "a.mp4", every_tenth(20), size=(75, 131)), settings())
    assert clip.frames.shape == (4, 84, 140, 3)
    assert frame_numbers(clip) == [0, 6, 13, 19]
    assert read_clip(tmp_path / "a.mp4", settings(), factor=32).frames.shape == (4, 64, 128, 3)


def test_a_rotated_video_is_shown_upright(tmp_path: Path) -> None:
    clip = read_clip(write_video(tmp_path / "a.mp4", every_tenth(10), rotation=90), settings())
    assert clip.frames.shape == (4, 112, 84, 3)
    # 90 degrees counterclockwise: what was at the top left is at the bottom left.
    corners = clip.frames[0][[10, 10, -10, -10], [10, -10, 10, -10], 0]
    assert (corners > 200).tolist() == [False, False, True, False]


def test_colours_come_out_as_rgb(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 112, 84, "yuv420p"
        for _ in range(8):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((84, 112, 3), (200, 30, 60), np.uint8), "rgb24")))
        file.mux(stream.encode(None))
    red, green, blue = read_clip(tmp_path / "a.mp4", settings()).frames.mean((0, 1, 2))
    assert (red, green, blue) == pytest.approx((200, 30, 60), abs=6)


def test_a_missing_and_an_empty_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="none.mp4: no such file"):
        read_clip(tmp_path / "none.mp4", settings())
    (tmp_path / "a.mp4").touch()
    with pytest.raises(VideoError, match="a.mp4: the file is empty") as caught:
        read_clip(tmp_path / "a.mp4", settings())
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert (caught.value.path, caught.value.reason) == (str(tmp_path / "a.mp4"), "the file is empty")


def test_a_file_that_is_not_a_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("404: Not Found" * 50)
    with pytest.raises(VideoError, match="cannot be decoded"):
        read_clip(tmp_path / "a.mp4", settings())


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("mp4", {}), ("mp4", {"movflags": "faststart"}), ("mkv", {})],
    ids=["header last", "header first", "mkv"],
)
def test_a_truncated_file_is_an_error(tmp_path: Path, suffix: str, options: dict[str, str]) -> None:
    path = write_video(tmp_path / f"a.{suffix}", every_tenth(60), noise=True, container=options)
    whole = path.read_bytes()
    assert len(read_clip(path, settings()).frames) == 12
    path.write_bytes(whole[: int(len(whole) * 0.6)])
    with pytest.raises(VideoError, match="truncated|cannot be decoded"):
        read_clip(path, settings())


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every_tenth(60), noise=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    path.write_bytes(bytes(content))
    with pytest.raises(VideoError, match="damaged|cannot be decoded"):
        read_clip(path, settings())


def test_an_audio_only_file_is_an_error(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 16000, 0
        file.mux(stream.encode(sound))
        file.mux(stream.encode(None))
    with pytest.raises(VideoError, match="no video stream"):
        read_clip(tmp_path / "a.mp4", settings())


def test_a_video_beside_sound_is_read(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        audio = file.add_stream("aac", rate=16000, layout="mono")
        video = file.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 112, 84, "yuv420p"
        for k in range(40):
            file.mux(video.encode(av.VideoFrame.from_ndarray(numbered(k, 84, 112), "rgb24")))
        for k in range(60):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 16000, 1024 * k
            file.mux(audio.encode(sound))
        file.mux([*video.encode(None), *audio.encode(None)])
    clip = read_clip(tmp_path / "a.mp4", settings())
    assert clip.timestamps.tolist() == pytest.approx([n / 10 for n in frame_numbers(clip)])


def test_a_video_of_one_frame_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="a.mkv: .*1 frame"):
        read_clip(write_video(tmp_path / "a.mkv", [0]), settings())
