import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlvtg.data.check import check, find_faults
from rlvtg.data.sample import DataError, Sample

NAN = float("nan")


@pytest.fixture
def good(tmp_path: Path) -> Sample:
    (tmp_path / "a.mp4").write_bytes(b"x")
    return Sample("good", str(tmp_path / "a.mp4"), 10.0, "a dog", ((1.0, 2.0),))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"video": "none.mp4"}, "missing video"),
        ({"spans": ((5.0, 4.0),)}, "reversed span"),
        ({"spans": ((1.0, 2.0), (4.0, 4.0))}, "zero-length span"),
        ({"spans": ((-0.1, 4.0),)}, "span outside the video"),
        ({"spans": ((10.0, 11.0),)}, "span outside the video"),
        ({"spans": ((9.0, 12.1),)}, "span outside the video"),
        ({"spans": ((NAN, 4.0),)}, "non-finite span"),
        ({"spans": ((1.0, float("inf")),)}, "non-finite span"),
        ({"spans": ()}, "no span"),
        ({"duration": NAN}, "bad duration"),
        ({"duration": 0.0}, "bad duration"),
        ({"duration": NAN, "video": "none.mp4"}, "missing video"),
        ({"duration": float("inf")}, "bad duration"),
        ({"spans": (), "task": "verb_completion"}, "no span"),
        ({"spans": ((2.0, 1.0),), "task": "qa"}, "reversed span"),
        ({"query": " \n"}, "empty query"),
        ({"video_start": 5.0, "video_end": 5.0}, "bad clip window"),
        ({"video_start": -1.0}, "bad clip window"),
        ({"video_start": NAN}, "bad clip window"),
        ({"id": "good"}, "duplicate id"),
    ],
)
def test_each_fault_is_found_and_written_with_its_reason(
    tmp_path: Path, good: Sample, changes: dict[str, object], reason: str
) -> None:
    bad = replace(good, **{"id": "bad", **changes})
    path = tmp_path / "run" / "bad_rows.jsonl"
    assert check([good, bad], max_bad_fraction=0.5, bad_rows_path=path) == [good]
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert (row["id"], row["video"], row["reason"]) == (bad.id, bad.video, reason)
    assert row["detail"]


def test_good_rows_come_back_unchanged_even_when_a_span_runs_slightly_over_the_end(
    tmp_path: Path, good: Sample
) -> None:
    over = replace(good, id="over", spans=((8.0, 11.5),))
    window = replace(good, id="window", video_start=100.0, video_end=110.0)
    path = tmp_path / "bad_rows.jsonl"
    assert check([good, over, window], max_bad_fraction=0.0, bad_rows_path=path) == [good, over, window]
    assert path.read_text() == ""


def test_too_many_bad_rows_stop_with_counts_examples_and_the_knob(tmp_path: Path, good: Sample) -> None:
    gone = [replace(good, id=f"gone{k}", video="none.mp4") for k in range(3)]
    empty = replace(good, id="empty", query="")
    path = tmp_path / "bad_rows.jsonl"
    with pytest.raises(DataError) as caught:
        check([*gone, empty, good], max_bad_fraction=0.79, bad_rows_path=path)
    message = str(caught.value)
    assert "4 of 5 rows are bad (3 missing video, 1 empty query)" in message
    assert "max_bad_fraction=0.79" in message and str(path) in message
    assert "gone0: no file none.mp4; gone1" in message and "gone2" in message and "empty:" not in message
    assert len(path.read_text().splitlines()) == 4
    assert check([*gone, empty, good], max_bad_fraction=0.8) == [good]


def test_no_rows_and_no_good_rows_are_errors(good: Sample) -> None:
    with pytest.raises(DataError, match="no rows"):
        check([], max_bad_fraction=1.0)
    with pytest.raises(DataError, match="1 of 1 rows are bad.*none is left"):
        check([replace(good, query="")], max_bad_fraction=1.0)


def test_rows_of_tasks_that_are_not_about_spans_need_none(good: Sample) -> None:
    question = replace(good, id="question", spans=(), task="qa", answer="B", options=("A. a dog", "B. a cat"))
    caption = replace(good, id="caption", spans=(), task="captioning", answer="a dog runs")
    assert check([question, caption], max_bad_fraction=0.0) == [question, caption]


def test_rows_without_a_duration_are_held_to_the_rest_until_it_is_filled(good: Sample) -> None:
    unknown = replace(good, id="unknown", duration=NAN, spans=((500.0, 600.0),))
    window = replace(unknown, id="window", video_start=5.0)
    rows = [unknown, window, replace(unknown, id="reversed", spans=((6.0, 5.0),)), replace(window, video_start=-5.0)]
    reasons = [fault and fault[0] for fault in find_faults(rows, filled=False)]
    assert reasons == [None, None, "reversed span", "duplicate id"]
    assert check([good, *rows], max_bad_fraction=0.5, filled=False) == [good, unknown, window]
    assert [fault and fault[0] for fault in find_faults([unknown, window])] == ["bad duration"] * 2


def test_files_need_not_be_looked_for(good: Sample) -> None:
    gone = replace(good, video="none.mp4")
    assert [fault and fault[0] for fault in find_faults([gone])] == ["missing video"]
    assert list(find_faults([gone], files=False)) == [None]
