"""Every decoder shows the same frames at the same times, or says that it does not.

Which decoders are installed decides what is compared; decord is one of the test requirements.
"""

import importlib
import sys
from pathlib import Path

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
