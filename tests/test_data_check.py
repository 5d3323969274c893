"""Rows held against real files: what a file says decides whether a row is good, and whether its window is applied."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rlvtg.data.sample import DataError, Sample
from rlvtg.data_check import check_recipe, settle, usable_samples
from rlvtg.recipe import Recipe, Source, load
from rlvtg.video.cache import ClipCache
from rlvtg.video.index import VideoError
from rlvtg.video.store import clip_store
from rlvtg.video.worker import Probe
from tests.numbered_video import every_tenth, write_video
from tests.own_rows import RECIPE, row, write

SAMPLE = Sample("row", "a.mp4", 10.0, "a dog", ((1.0, 2.0),))


def lasting(seconds: float) -> Probe:
    return Probe(seconds, 100, 112, 84)


@pytest.mark.parametrize(
    ("window", "length", "outcome"),
    [
        ((None, None), 10.0, "as it is"),
        ((None, None), 11.9, "as it is"),
        ((None, None), 12.1, "duration differs"),
        ((None, None), 7.9, "duration differs"),
        ((100.0, 110.0), 300.0, "as it is"),
        ((100.0, 110.0), 110.0, "as it is"),
        ((100.0, 110.0), 109.6, "as it is"),  # annotated ends are rounded
        ((100.0, 110.0), 10.0, "cut"),
        ((100.0, 110.0), 11.5, "cut"),  # cut at a keyframe
        ((100.0, 110.0), 60.0, "bad clip window"),  # neither whole nor cut
        ((100.0, 110.0), 109.0, "bad clip window"),
        ((100.0, 110.0), 5.0, "bad clip window"),
        ((100.0, 115.0), 300.0, "duration differs"),  # of the window
        ((0.0, 10.0), 10.0, "as it is"),  # whole and cut are the same
        ((0.0, 10.0), 50.0, "as it is"),
        ((None, 10.0), 9.8, "as it is"),
        ((1.5, 11.5), 11.5, "bad clip window"),  # whole, or cut a little late: cannot be told
        ((1.5, 11.5), 10.0, "cut"),
        ((40.0, None), 50.0, "as it is"),
        ((40.0, None), 10.0, "cut"),
    ],
)
def test_a_window_is_applied_to_a_whole_file_and_not_to_one_that_is_cut(
    window: tuple[float | None, float | None], length: float, outcome: str
) -> None:
    sample = replace(SAMPLE, video_start=window[0], video_end=window[1])
    results = {"as it is": sample, "cut": replace(sample, video_start=None, video_end=None)}
    got = settle(sample, lasting(length), slack=2.0)
    assert (got[0] if isinstance(got, tuple) else got) == results.get(outcome, outcome)


def test_what_is_wrong_with_the_file_is_what_is_wrong_with_the_row() -> None:
    error = VideoError("a.mp4", "the frames are 30000x30000", "too large")
    assert settle(SAMPLE, error, slack=2.0) == ("too large", "the frames are 30000x30000")


CHANGES = [
    "data.spare.reader=jsonl",
    "data.spare.annotations=none.jsonl",
    "data.spare.videos=videos",
    "video.max_frames=8",
    "video.min_pixels=784",
    "video.max_pixels=12544",
    "max_bad_fraction=0.8",
    "output_dir=runs/x",
    "cache_dir=clips",
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole video, the part of it from some window, and what can become of a file."""
    folder = tmp_path_factory.mktemp("videos")
    content = write_video(folder / "whole.mp4", every_tenth(100), moving=True, crf="20").read_bytes()
    start = content.index(b"mdat") + len(content) // 3
    (folder / "hole.mp4").write_bytes(content[:start] + b"\xff" * 3000 + content[start + 3000 :])
    (folder / "short.mp4").write_bytes(content[: len(content) // 2])
    (folder / "empty.mp4").touch()
    write_video(folder / "cut.mp4", every_tenth(40))
    return folder


@pytest.fixture
def recipe(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Rows of which two are good, and one for each thing that a file can have wrong."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(RECIPE)
    shutil.copytree(videos, "videos")
    given = {
        "good": {},
        "cut": {"video": "cut.mp4", "duration": 4.0, "video_start": 20.0, "video_end": 24.0},
        "missing": {"video": "none.mp4"},
        "truncated": {"video": "short.mp4"},
        "empty": {"video": "empty.mp4"},
        "longer": {"duration": 60.0},
        "nobody's": {"video": "cut.mp4", "video_start": 20.0, "video_end": 30.0},
        "reversed": {"spans": [[3.0, 1.0]]},
        "hole": {"video": "hole.mp4"},
    }
    write(*[row(name, **({"video": "whole.mp4"} | columns)) for name, columns in given.items()])
    return load(["recipe=mine.yaml", *CHANGES])


def listed(path: str) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in map(json.loads, Path(path).read_text().splitlines())}


def test_the_rows_that_are_left_have_videos_as_annotated_and_the_others_are_listed(recipe: Recipe) -> None:
    probes: dict[str, Probe | VideoError] = {}
    samples = usable_samples(recipe, "own", probes, "bad.jsonl")
    assert [(sample.id, sample.video_start, sample.video_end) for sample in samples] == [
        ("good", None, None),
        ("cut", None, None),
        ("hole", None, None),  # whose header is in order: only decoding tells
    ]
    found = listed("bad.jsonl")
    assert found.pop("truncated") in ("truncated", "unreadable video")  # the header of this mp4 was at its end
    assert found == {
        "missing": "missing video",
        "empty": "unreadable video",
        "longer": "duration differs",
        "nobody's": "bad clip window",
        "reversed": "reversed span",
    }
    assert len(probes) == 5


def test_too_many_bad_files_stop_the_run_with_counts(recipe: Recipe) -> None:
    strict = replace(recipe, max_bad_fraction=0.5)
    with pytest.raises(DataError, match=r"data.own: 6 of 9 rows are bad \(2 unreadable video, 1 missing video, .*0.5"):
        usable_samples(strict, "own", {}, None)


def test_annotations_that_are_bad_stop_the_run_before_a_file_is_read(recipe: Recipe) -> None:
    probes: dict[str, Probe | VideoError] = {}
    with pytest.raises(DataError, match=r"data.own: 2 of 9 rows are bad"):
        usable_samples(replace(recipe, max_bad_fraction=0.0), "own", probes, None)
    assert probes == {}


def test_the_check_prints_reasons_with_counts_and_says_whether_a_run_would_stop(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_recipe(recipe) == 0
    printed = capsys.readouterr().out
    assert "data.own: 9 rows, 6 videos of 0.01 h; 6 bad rows (66.67%)" in printed
    assert "1 rows have a window that their file is already cut to" in printed
    assert "duration differs" in printed and "e.g. longer: the file lasts 10.00 s, its annotation says 60 s" in printed
    assert "a run goes on without them; listed in runs/x/bad_rows.own.jsonl" in printed
    assert "spare" not in printed
    assert len(listed("runs/x/bad_rows.own.jsonl")) == 6
    assert check_recipe(replace(recipe, max_bad_fraction=0.1)) == 1
    assert "a run stops: max_bad_fraction is 0.1" in capsys.readouterr().out
    assert not Path("runs/x/recipe.yaml").exists()


def test_a_run_that_decodes_ahead_leaves_out_what_the_headers_hide(recipe: Recipe) -> None:
    probes: dict[str, Probe | VideoError] = {}
    samples = usable_samples(recipe, "own", probes, "bad.jsonl", decode=True)
    assert [sample.id for sample in samples] == ["good", "cut"]
    assert listed("bad.jsonl")["hole"] == "unreadable video"
    # what was found holds for the other processes, which do not decode
    assert usable_samples(recipe, "own", probes, None) == samples


def test_what_was_decoded_ahead_is_in_the_cache(recipe: Recipe) -> None:
    usable_samples(recipe, "own", {}, None, decode=True)
    cache = ClipCache(recipe.video, 0, store=clip_store(recipe))
    cache.get("videos/whole.mp4")
    assert (cache.decodes, cache.reads) == (0, 1)


def test_what_the_cache_holds_is_not_read_when_clips_are_decoded_ahead(recipe: Recipe) -> None:
    samples = usable_samples(recipe, "own", {}, None, decode=True)
    store = clip_store(recipe)
    assert store is not None
    entries = list(store.folder.rglob("*.npz"))
    assert len(entries) == 2
    for entry in entries:
        entry.write_bytes(b"x")  # whoever reads it decodes it anew
    assert usable_samples(recipe, "own", {}, None, decode=True) == samples
    assert [entry.read_bytes() for entry in entries] == [b"x", b"x"]
    entries[0].unlink()
    usable_samples(recipe, "own", {}, None, decode=True)
    assert entries[0].stat().st_size > 1


def test_a_duration_that_is_not_annotated_is_the_files(recipe: Recipe) -> None:
    Path("txt").mkdir()
    Path("txt/a.txt").write_text("whole 1.0 3.0##a dog jumps\n")
    source = Source("txt/a.txt", "videos", "charades_txt")
    [sample] = usable_samples(replace(recipe, data={"own": source}), "own", {}, None)
    assert sample.duration == pytest.approx(10.0, abs=0.2)


def test_decoding_finds_what_the_headers_hide(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_recipe(recipe, decode=True) == 0
    assert listed("runs/x/bad_rows.own.jsonl")["hole"] == "unreadable video"
    assert "7 bad rows" in capsys.readouterr().out
