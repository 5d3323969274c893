import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rlvtg.video.decode import VideoError, read_clip
from tests.numbered_video import VFR, every_tenth, frame_numbers, numbered, settings, write_video


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


def test_a_window_with_one_frame_shows_its_neighbour_too(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every_tenth(100))
    for start, end, frames, times in (
        (5.0, 5.05, [50, 51], [0.0, 0.1]),
        (4.96, 5.05, [50, 51], [0.04, 0.14]),
        (9.85, 9.95, [98, 99], [0.0, 0.1]),  # nothing comes after it, so the clock starts with the one before
    ):
        clip = read_clip(path, settings(), start=start, end=end)
        assert frame_numbers(clip) == frames
        assert clip.timestamps.tolist() == pytest.approx(times)
    with pytest.raises(VideoError, match="no frame starts in the window"):
        read_clip(path, settings(), start=5.01, end=5.09)


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


CONTAINERS = {
    "mp4, header last": ("mp4", {}),
    "mp4, header first": ("mp4", {"movflags": "faststart"}),
    "mp4, in fragments": ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "mkv": ("mkv", {}),
    "avi": ("avi", {}),
    "flv": ("flv", {}),
    "ts": ("ts", {}),
}


def write_in(folder: Path, container: str) -> Path:
    suffix, options = CONTAINERS[container]
    path, times = folder / f"a.{suffix}", every_tenth(80)
    if suffix == "avi":  # which has neither B-frames nor times between its ticks
        return write_video(path, times, moving=True, tick=Fraction(1, 10), crf="20", bf="0")
    return write_video(path, times, moving=True, container=options, crf="20")


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_truncated_file_is_an_error(tmp_path: Path, container: str) -> None:
    path = write_in(tmp_path, container)
    whole = path.read_bytes()
    assert len(read_clip(path, settings()).frames) == 16
    for share in (0.3, 0.6, 0.85):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(VideoError, match="truncated|cannot be decoded"):
            read_clip(path, settings())


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_a_hole_in_the_middle_of_a_file_is_an_error(tmp_path: Path, container: str, share: float) -> None:
    path = write_in(tmp_path, container)
    content = bytearray(path.read_bytes())
    start, length = int(len(content) * 0.45), int(len(content) * share)
    for hole in (bytes(length), np.random.default_rng(0).integers(0, 255, length).astype(np.uint8).tobytes()):
        content[start : start + length] = hole
        path.write_bytes(bytes(content))
        with pytest.raises(VideoError, match="damaged|cannot be decoded|truncated"):
            read_clip(path, settings())


def test_a_glitch_between_the_frames_shown_is_let_pass_and_one_in_a_frame_shown_is_not(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every_tenth(150), moving=True, crf="20", bf="0", g="150")
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    whole = path.read_bytes()
    sizes = {}
    for number in (148, 149):  # of four frames shown, the last is 149
        start, end = packets[number][0] + 40, sum(packets[number])
        path.write_bytes(whole[:start] + b"\xff" * (end - start) + whole[end:])
        try:
            sizes[number] = len(read_clip(path, settings(max_frames=4)).frames)
        except VideoError as error:
            sizes[number] = error.kind
    assert sizes == {148: 4, 149: "unreadable video"}


@pytest.fixture(scope="module")
def gigantic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of 9000 x 8000."""
    path = tmp_path_factory.mktemp("gigantic") / "a.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=2)
        stream.width, stream.height, stream.pix_fmt = 9000, 8000, "yuvj420p"
        for _ in range(2):
            file.mux(stream.encode(av.VideoFrame(9000, 8000, "yuvj420p")))
        file.mux(stream.encode(None))
    return path


def test_frames_that_claim_to_be_gigantic_are_refused_before_one_is_decoded(gigantic: Path) -> None:
    with pytest.raises(VideoError, match="the frames are 9000x8000, the limit is 67108864 pixels") as caught:
        read_clip(gigantic, settings())
    assert caught.value.kind == "too large"


def test_pictures_that_are_larger_than_the_header_says_are_refused(gigantic: Path, tmp_path: Path) -> None:
    content = gigantic.read_bytes()
    at = content.index(b"\xb0\x82" + (9000).to_bytes(2, "big"))  # PixelWidth, then PixelHeight
    (tmp_path / "a.mkv").write_bytes(content[:at] + b"\xb0\x82\x00\x70\xba\x82\x00\x54" + content[at + 8 :])
    with pytest.raises(VideoError, match="limit is 67108864 pixels|cannot be decoded"):
        read_clip(tmp_path / "a.mkv", settings(min_frames=2))


def test_a_header_without_frames_is_an_error(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 112, 84, "yuv420p"
        file.start_encoding()
    with pytest.raises(VideoError, match="no video stream|no frames|cannot be decoded"):
        read_clip(tmp_path / "a.mp4", settings())


def test_a_rate_of_zero_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every_tenth(20), bf="0")
    content = path.read_bytes()
    ticks = content.index(b"stts") + 16  # after version, count of entries and count of frames
    path.write_bytes(content[:ticks] + bytes(4) + content[ticks + 4 :])
    with pytest.raises(VideoError, match="the frames' times run to 38.0 s, the header says 2.0 s"):
        read_clip(path, settings())


def test_a_wrong_header_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every_tenth(20))
    path.write_bytes(b"RIFF" + path.read_bytes()[4:])
    with pytest.raises(VideoError, match="cannot be decoded"):
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
