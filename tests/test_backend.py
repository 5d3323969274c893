"""Every decoder shows the same frames at the same times, or says that it does not.

Which decoders are installed decides what is compared; decord is one of the test requirements.
"""

import importlib
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from rlvtg.recipe import RecipeError
from rlvtg.video.backend import decoder, pictures
from rlvtg.video.decode import VideoError, read_clip
from rlvtg.video.index import read_index
from tests.numbered_video import VFR, every_tenth, frame_numbers, settings, write_video


def is_installed(name: str) -> bool:
    try:
        importlib.import_module({"torchcodec": "torchcodec.decoders"}.get(name, name))
    except (ImportError, OSError, RuntimeError):
        return False
    return True


OTHERS = [name for name in ("decord", "torchcodec") if is_installed(name)]
OPEN = {"bf": "3", "g": "5", "x264-params": "open-gop=1"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {
        "constant rate": write_video(folder / "constant.mp4", every_tenth(60)),
        "variable rate": write_video(folder / "variable.mp4", VFR),
        "variable rate, mkv": write_video(folder / "variable.mkv", VFR),
        "late start": write_video(folder / "late.mp4", every_tenth(40, start=2500)),
        "late start, mkv": write_video(folder / "late.mkv", every_tenth(40, start=2500)),
        "no B-frames": write_video(folder / "plain.mp4", every_tenth(40), bf="0"),
        "open groups": write_video(folder / "open.mp4", every_tenth(60), **OPEN),
        "open groups, mkv": write_video(folder / "open.mkv", every_tenth(60), **OPEN),
        "one long group": write_video(folder / "long.mp4", every_tenth(120), g="1000", bf="3"),
        "turned by 90": write_video(folder / "turned90.mp4", every_tenth(20), rotation=90),
        "turned by 180": write_video(folder / "turned180.mp4", every_tenth(20), rotation=180),
        "turned by 270": write_video(folder / "turned270.mp4", every_tenth(20), rotation=270),
        "odd size": write_video(folder / "odd.mp4", every_tenth(20), size=(75, 131)),
    }


def whole(picture: np.ndarray) -> np.ndarray:
    return picture


def test_decord_is_there_to_be_compared() -> None:
    assert "decord" in OTHERS


@pytest.mark.parametrize("name", OTHERS)
def test_every_decoder_gives_the_same_pictures_under_the_same_numbers(name: str, videos: dict[str, Path]) -> None:
    for what, path in videos.items():
        index = read_index(path)
        last = len(index.pts) - 1
        for numbers in ([0, 1, 2], [last // 2, last], sorted({round(last * k / 7) for k in range(8)})):
            ours, theirs = (pictures(each, path, index, numbers, whole) for each in ("pyav", name))
            assert list(ours) == list(theirs) == numbers, what
            for number in numbers:
                assert ours[number].shape == theirs[number].shape, what
                assert np.abs(ours[number].astype(int) - theirs[number]).max() <= 2, (what, number)


# Groups of ten frames, of which most are jumped over when every 37th frame is asked for.
CODINGS = {
    "closed": {"g": "10", "bf": "2"},
    "open": {"g": "10", "bf": "3", "x264-params": "open-gop=1:b-pyramid=normal"},
    "plain": {"g": "10", "bf": "0"},
    "all keyframes": {"g": "1", "bf": "0"},
    "refreshed bit by bit": {"g": "10", "bf": "0", "x264-params": "intra-refresh=1"},
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv", "ts"])
@pytest.mark.parametrize("coding", CODINGS)
def test_frames_far_apart_are_those_of_a_reading_without_jumps(tmp_path: Path, suffix: str, coding: str) -> None:
    path = write_video(tmp_path / f"a.{suffix}", every_tenth(200), moving=True, **CODINGS[coding])
    index = read_index(path)
    every = pictures("pyav", path, index, range(200), whole)
    for numbers in (range(0, 200, 37), [3, 4, 60, 61, 62, 199], [100], [0, 199]):
        found = pictures("pyav", path, index, numbers, whole)
        assert list(found) == list(numbers)
        assert all(np.array_equal(found[number], every[number]) for number in numbers)


def test_only_what_leads_to_a_shown_frame_is_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every_tenth(200), moving=True, g="10", bf="0")
    index = read_index(path)
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    start, end = packets[100][0], sum(packets[109])
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    assert list(pictures("pyav", path, index, [0, 60, 150, 199], whole)) == [0, 60, 150, 199]
    for numbers in ([0, 60, 105, 199], [0, 60, 109, 110], [95, 112]):
        with pytest.raises(VideoError, match="damaged|cannot be decoded"):
            pictures("pyav", path, index, numbers, whole)


@pytest.mark.parametrize("name", ["pyav", *OTHERS])
def test_every_decoder_stamps_a_frame_with_the_second_at_which_it_is_shown(name: str, videos: dict[str, Path]) -> None:
    clip = read_clip(videos["variable rate"], settings(backend=name))
    assert clip.timestamps.tolist() == pytest.approx([VFR[number] / 1000 for number in frame_numbers(clip)])
    for what in ("open groups", "late start, mkv", "one long group"):
        clip = read_clip(videos[what], settings(backend=name), start=1.25, end=3.9)
        assert (clip.timestamps + 1.25).tolist() == pytest.approx([number / 10 for number in frame_numbers(clip)])


@pytest.mark.parametrize("name", OTHERS)
def test_a_transport_stream_is_read_rightly_or_refused(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", every_tenth(40, start=2500))
    assert frame_numbers(read_clip(path, settings()))[-1] == 39
    with pytest.raises(VideoError, match="use video.backend pyav|cannot be decoded by"):
        read_clip(path, settings(backend=name))


@pytest.mark.parametrize("name", OTHERS)
def test_a_damaged_file_is_an_error_for_every_decoder(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every_tenth(60), noise=True)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 4] + bytes(len(content) // 4) + content[len(content) // 2 :])
    with pytest.raises(VideoError, match="a.mp4"):
        read_clip(path, settings(backend=name))


def test_a_decoder_that_is_unknown_or_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="video.backend: got 'opencv', allowed: pyav, decord, torchcodec"):
        decoder("opencv")
    monkeypatch.setitem(sys.modules, "decord", None)  # as if it were not installed
    with pytest.raises(RecipeError, match="video.backend: got decord, which is not installed; pip install decord"):
        decoder("decord")
