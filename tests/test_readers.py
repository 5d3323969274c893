import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlvtg.data.read import read
from rlvtg.data.sample import DataError, Sample


def source(path: Path, content: object, reader: str, limit: int | None = None) -> SimpleNamespace:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return SimpleNamespace(annotations=str(path), videos="videos", reader=reader, limit=limit)


CHARADES = {
    "3MSZA": {
        "duration": 30.96,
        "timestamps": [[24.3, 30.4], [0, 3]],
        "sentences": ["person turn a light on.", "person sits."],
    },
    "v_x.mkv": {
        "duration": 12,
        "timestamps": [[1.5, 13.0]],
        "sentences": ["a dog {runs}"],
        "completions": ["1.5 to 13"],
    },
}

TIME_R1 = {
    "video": "./dataset/timer1/videos/timerft_data/QtWT8rxUuNk.mp4",
    "duration": 93.2932,
    "timestamp": [1.0, 4.0],
    "sentence": "A purple hanger.",
    "qid": "my|cosmo|QtWT8rxUuNk|A purple hanger.",
    "video_start": None,
    "video_end": None,
    "difficulty": 50.0,
    "pred": [0.0, 3.0],
}

ROW = {"id": "a", "video": "a.mp4", "duration": 9.5, "query": "a dog", "spans": [[1, 2.5], [4.0, 5.0]]}


def test_charades_sta_gives_one_sample_per_sentence(tmp_path: Path) -> None:
    assert read(source(tmp_path / "a.json", CHARADES, "charades_sta")) == [
        Sample("3MSZA#0", "videos/3MSZA.mp4", 30.96, "person turn a light on.", ((24.3, 30.4),)),
        Sample("3MSZA#1", "videos/3MSZA.mp4", 30.96, "person sits.", ((0.0, 3.0),)),
        Sample("v_x.mkv#0", "videos/v_x.mkv", 12.0, "a dog {runs}", ((1.5, 13.0),), completion="1.5 to 13"),
    ]


def test_time_r1_rows_are_read_by_their_file_name(tmp_path: Path) -> None:
    assert read(source(tmp_path / "a.json", [TIME_R1], "time_r1")) == [
        Sample(
            "my|cosmo|QtWT8rxUuNk|A purple hanger.",
            "videos/QtWT8rxUuNk.mp4",
            93.2932,
            "A purple hanger.",
            ((1.0, 4.0),),
        )
    ]


def test_time_r1_windows_are_kept_only_for_files_that_are_not_cut_yet(tmp_path: Path) -> None:
    cut = {**TIME_R1, "video": "x/_0yiT0h_CM_00:06:44:200_00:07:09:100.mp4", "video_start": 404.2, "video_end": 429.1}
    whole = {**TIME_R1, "video": "x/KgO7MJNO3oo.mp4", "video_start": 120.6, "video_end": 131.4}
    samples = read(source(tmp_path / "a.json", [cut, whole], "time_r1"))
    assert [(sample.video_start, sample.video_end) for sample in samples] == [(None, None), (120.6, 131.4)]
    assert samples[0].video == "videos/_0yiT0h_CM_00:06:44:200_00:07:09:100.mp4"


def test_our_own_rows_keep_several_spans_and_optional_fields(tmp_path: Path) -> None:
    full = {
        **ROW,
        "id": "b",
        "video": "/data/b.mp4",
        "task": "counting",
        "completion": "x",
        "video_start": 1,
        "video_end": 10.5,
        "answer": "(B)",
        "options": ["left", "right"],
        "verb": "run",
        "masked_query": "a dog",
    }
    text = f"{json.dumps(ROW)}\n\n{json.dumps(full)}\n"
    assert read(source(tmp_path / "a.jsonl", text, "jsonl")) == [
        Sample("a", "videos/a.mp4", 9.5, "a dog", ((1.0, 2.5), (4.0, 5.0))),
        Sample(
            "b",
            "/data/b.mp4",
            9.5,
            "a dog",
            ((1.0, 2.5), (4.0, 5.0)),
            "counting",
            "x",
            1.0,
            10.5,
            answer="(B)",
            options=("left", "right"),
            verb="run",
            masked_query="a dog",
        ),
    ]


def test_unusual_line_separators_inside_a_query_do_not_end_a_row(tmp_path: Path) -> None:
    text = json.dumps({**ROW, "query": "a\u2028b"}, ensure_ascii=False)
    assert [sample.query for sample in read(source(tmp_path / "a.jsonl", text, "jsonl"))] == ["a\u2028b"]


def test_a_limit_keeps_the_first_rows(tmp_path: Path) -> None:
    samples = read(source(tmp_path / "a.json", CHARADES, "charades_sta", limit=2))
    assert [sample.id for sample in samples] == ["3MSZA#0", "3MSZA#1"]


def test_an_unknown_reader_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'charades'.*charades_sta, time_r1, jsonl; did you mean 'charades_sta'\?"):
        read(source(tmp_path / "a.json", CHARADES, "charades"))


def charades(**changes: object) -> dict[str, object]:
    return {"ok": CHARADES["3MSZA"], "bad": {**CHARADES["3MSZA"], **changes}}


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        ("charades_sta", [1], r"a\.x: got \[1\], expected an object"),
        ("charades_sta", {"bad": {"duration": 3}}, "video 'bad': field 'sentences' is missing; the row has 'duration'"),
        ("charades_sta", charades(duration="9"), "video 'bad', field 'duration': got \"9\", expected a number"),
        ("charades_sta", charades(duration=True), "video 'bad', field 'duration': got true, expected a number"),
        ("charades_sta", charades(timestamps=[[1, 2]]), "video 'bad': 1 timestamps for 2 sentences"),
        ("charades_sta", charades(completions=["x"]), "video 'bad': 1 completions for 2 sentences"),
        (
            "charades_sta",
            charades(timestamps=[[1, 2], [3]]),
            r"field 'timestamps\[1\]': got \[3\], expected \[start, end\]",
        ),
        ("charades_sta", charades(sentences=["x", None]), r"field 'sentences\[1\]': got None, expected a string"),
        ("time_r1", {}, "got dict, expected a list of rows"),
        ("time_r1", [TIME_R1, {**TIME_R1, "timestamp": [1, None]}], "row 1, field 'timestamp'"),
        ("time_r1", [{**TIME_R1, "sentence": 3}], "row 0, field 'sentence': got 3, expected a string"),
        ("time_r1", [{**TIME_R1, "video_end": "x"}], "row 0, field 'video_end'"),
        ("jsonl", '{"id": "a"}', "line 1: field 'video' is missing; the row has 'id'"),
        ("jsonl", f"{json.dumps(ROW)}\n{{oops}}", r"line 2: not JSON"),
        ("jsonl", json.dumps({**ROW, "span": [1, 2]}), "line 1: unknown field 'span'.*did you mean 'spans'"),
        ("jsonl", json.dumps({**ROW, "spans": [1, 2]}), r"field 'spans\[0\]': got 1"),
        ("time_r1", '[{"video": ', "not JSON .* at line 1"),
    ],
)
def test_a_malformed_file_names_file_row_and_field(tmp_path: Path, reader: str, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(source(tmp_path / "a.x", content, reader))
    assert str(tmp_path / "a.x") in str(caught.value)


def test_a_missing_or_binary_annotation_file_is_an_error(tmp_path: Path) -> None:
    missing = SimpleNamespace(annotations=str(tmp_path / "none.json"), videos="v", reader="time_r1", limit=None)
    with pytest.raises(DataError, match="none.json: no such annotation file"):
        read(missing)
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="b.json: not UTF-8"):
        read(SimpleNamespace(annotations=str(tmp_path / "b.json"), videos="v", reader="time_r1", limit=None))
