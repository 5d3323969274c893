from dataclasses import replace
from math import nan

import pytest

from rlvtg.data.oddities import oddities, report
from rlvtg.data.sample import DataError, Sample

GOOD = Sample("a", "a.mp4", 10.0, "a dog", ((1.0, 2.0), (4.0, 5.0)))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"id": "a"}, ["duplicate id"]),
        ({"query": "a dog"}, ["repeated query"]),
        ({"query": "a dog", "video_start": 5.0}, []),
        ({"query": " "}, ["empty query"]),
        ({"duration": nan}, ["no duration"]),
        ({"spans": ()}, ["no span"]),
        ({"spans": (), "task": "qa"}, []),
        ({"spans": ((5.0, 4.0),)}, ["reversed span"]),
        ({"spans": ((5.0, 5.0),)}, ["zero-length span"]),
        ({"spans": ((-1.0, 4.0),)}, ["span starts before the video"]),
        ({"spans": ((10.0, 10.5),)}, ["span starts after the video", "span ends after the video"]),
        ({"spans": ((8.0, 10.5),)}, ["span ends after the video"]),
        ({"spans": ((8.0, 12.5),)}, ["span ends after the video", "span ends more than 2 s after the video"]),
        ({"spans": ((8.0, nan),)}, ["non-finite span"]),
        ({"spans": ((4.0, 8.0), (1.0, 5.0))}, ["spans overlap"]),
    ],
)
def test_each_oddity_is_counted_for_itself(changes: dict[str, object], found: list[str]) -> None:
    row = replace(GOOD, **{"id": "b", "query": "a cat", **changes})
    assert list(oddities([GOOD, row])) == found
    assert all(place.startswith(f"{row.id}: ") for places in oddities([GOOD, row]).values() for place in places)


def test_a_report_has_sizes_counts_examples_and_bad_rows() -> None:
    over = replace(GOOD, id="b", query="a cat", spans=((8.0, 10.5), (9.0, 11.0), (5.0, 4.0)))
    text, bad = report([GOOD, over, replace(GOOD, id="c" * 99, query="x", duration=nan)], files=False)
    assert bad == 1
    assert text.splitlines() == [
        "3 rows (3 grounding), 1 videos, 7 spans",
        "       2  span ends after the video                   b: 8 to 10.5 s of 10 s",
        "       1  reversed span                               b: 5 to 4 s of 10 s",
        "       1  spans overlap                               b: 8 to 10.5 s and 9 to 11 s",
        f"       1  no duration                                 ...{'c' * 44}: it is to be taken from the file",
        "bad rows: 1 (1 reversed span)",
        "No video was looked for.",
    ]


def test_a_file_without_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="no rows"):
        report([], files=False)


def test_videos_are_looked_for_unless_told_otherwise() -> None:
    text, bad = report([replace(GOOD, duration=nan)])
    assert bad == 1 and "bad rows: 1 (1 missing video)" in text
    assert text.endswith("The videos were looked for, but not read: durations that are not stated remain unknown.")
    assert report([GOOD], files=False) == (
        "1 rows (1 grounding), 1 videos, 2 spans\nbad rows: 0\nNo video was looked for.",
        0,
    )
