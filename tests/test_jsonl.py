import json
from dataclasses import astuple, replace
from math import inf, nan
from pathlib import Path

import pytest

from rlvtg.data.jsonl import read, write
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Source

PLAIN = Sample("a", "videos/x/a.mp4", 9.5, "a dog", ((1.0, 2.5), (4.0, 5.0)))
FULL = Sample(
    id="b",
    video="/elsewhere/b.mp4",
    duration=9.5,
    query="a \u2028 dog {runs}\n",
    spans=(),
    task="qa",
    completion="B",
    video_start=0.0,
    video_end=9.5,
    answer="B",
    options=("A. x", "B. y"),
    verb="run",
    masked_query="a dog",
)
UNKNOWN = replace(PLAIN, id="c", duration=nan)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "out.jsonl")
    write([PLAIN, FULL, UNKNOWN], path, "videos")
    back = read(Source(path, "videos", "jsonl"))
    # nan is one object, and tuples compare objects before values
    assert [astuple(sample) for sample in back] == [astuple(sample) for sample in (PLAIN, FULL, UNKNOWN)]
    assert [sample.video for sample in read(Source(path, "moved", "jsonl"))][:2] == [
        "moved/x/a.mp4",
        "/elsewhere/b.mp4",
    ]


def test_a_line_has_paths_in_the_folder_and_no_defaults(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write([PLAIN, UNKNOWN], str(path), "./videos/")
    plain, unknown = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert plain == {
        "id": "a", "video": "x/a.mp4", "duration": 9.5, "query": "a dog", "spans": [[1.0, 2.5], [4.0, 5.0]],
    }  # fmt: skip
    assert unknown == {**plain, "id": "c", "duration": None}


def test_a_file_that_is_there_stays_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    with pytest.raises(DataError, match=r"out.jsonl is there already; .*force"):
        write([PLAIN], str(path), "videos")
    assert path.read_text() == "mine"
    write([PLAIN], str(path), "videos", force=True)
    assert read(Source(str(path), "videos", "jsonl")) == [PLAIN]


@pytest.mark.parametrize("broken", [replace(PLAIN, id="z", spans=((1.0, inf),)), replace(PLAIN, id="z", duration=inf)])
def test_a_row_that_json_cannot_say_leaves_the_file_as_it_was(tmp_path: Path, broken: Sample) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    with pytest.raises(DataError, match="row 'z' has a time that is not finite"):
        write([PLAIN, broken], str(path), "videos", force=True)
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/out.jsonl: cannot be written"):
        write([PLAIN], str(tmp_path / "file" / "out.jsonl"), "videos")
