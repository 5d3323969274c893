import os
import time
from pathlib import Path

import pytest

from rlvtg.video.decode import VideoError
from rlvtg.video.scan import read_probes, scan, write_probes
from rlvtg.video.worker import Probe
from tests.numbered_video import every_tenth, write_still, write_video


@pytest.fixture
def videos(tmp_path: Path) -> dict[str, str]:
    paths = {name: str(write_video(tmp_path / f"{name}.mp4", every_tenth(20 + 10 * k))) for k, name in enumerate("abc")}
    (tmp_path / "text.mp4").write_text("404: Not Found" * 50)
    return paths | {"text": str(tmp_path / "text.mp4"), "none": str(tmp_path / "none.mp4")}


def test_every_distinct_video_is_probed_once_and_what_is_wrong_is_said(videos: dict[str, str]) -> None:
    found = scan([*videos.values(), videos["a"]], timeout=60)
    assert list(found) == list(videos.values())
    lengths = {name: found[path].duration for name, path in videos.items() if isinstance(found[path], Probe)}
    assert lengths == pytest.approx({"a": 2.0, "b": 3.0, "c": 4.0})
    assert [found[videos[name]].reason for name in ("text", "none")] == [
        "cannot be decoded (Invalid data found when processing input)",
        "no such file",
    ]


def test_what_is_known_is_not_read_again(videos: dict[str, str]) -> None:
    known = {videos["a"]: Probe(99.0, 1, 2, 3)}
    assert scan([videos["a"], videos["b"]], timeout=60, known=known)[videos["a"]] is known[videos["a"]]


def test_a_video_that_takes_too_long_does_not_keep_the_others(videos: dict[str, str], tmp_path: Path) -> None:
    long = write_still(tmp_path / "long.mkv", 50000, size=(16, 16), rate=100)
    found = scan([str(long), videos["a"]], timeout=0.02, workers=2)
    assert isinstance(found[str(long)], VideoError) and found[str(long)].kind == "timed out"


def test_what_was_found_is_kept_until_the_file_changes(videos: dict[str, str], tmp_path: Path) -> None:
    found = scan(videos.values(), timeout=60)
    found[videos["c"]] = VideoError(videos["c"], "decoding took longer than 1 s", "timed out")
    write_probes(tmp_path / "videos.jsonl", found)
    read = read_probes(tmp_path / "videos.jsonl")
    assert list(read) == list(found)
    assert read[videos["a"]] == found[videos["a"]]
    assert [(read[videos[name]].reason, read[videos[name]].kind) for name in ("text", "c")] == [
        ("cannot be decoded (Invalid data found when processing input)", "unreadable video"),
        ("decoding took longer than 1 s", "timed out"),
    ]
    os.utime(videos["b"], (time.time() + 60, time.time() + 60))
    assert set(read_probes(tmp_path / "videos.jsonl", again=True)) == {videos[name] for name in ("a", "text", "none")}
    assert read_probes(tmp_path / "nothing.jsonl") == {}
