import json
import re
from dataclasses import astuple, replace
from math import nan
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlvtg import recipe
from rlvtg.data import jsonl
from rlvtg.data.duration import filled
from rlvtg.data.read import READERS, read
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

TVGBENCH = {
    "path": "./dataset/timer1/videos/tvgbench_data/Ti9ibi.mp4",
    "question": "Add honey",
    "answer": "24.0-38.25",
    "start": 53.5,
    "end": 143.5,
    "duration": 90.0,
    "question_type": "video temporal grounding",
}

QVHIGHLIGHTS = {
    "qid": 7803,
    "query": "A man walks inside.",
    "vid": "RoripwjYFp8_360.0_510.0",
    "duration": 150,
    "relevant_windows": [[26, 36], [40, 44]],
    "relevant_clip_ids": [13],
    "saliency_scores": [[2, 3, 3]],
}

EVENTS = {
    "video_path": "didemo/a.b.mp4",
    "source": "didemo",
    "duration": 30.5,
    "events": [{"query": "a dog runs.", "span": [[1, 2.5], [7, 8]]}, {"query": "a cat", "span": [[3, 4]]}],
}

MUSEG = {
    "idx": 12,
    "problem": "Find all sections with 'throwing darts'.",
    "solution": [[0.03, 7.07], [17.27, 27.32]],
    "video": "videos/et_instruct_164k/hacs/F54.mp4",
    "duration": 80.0,
    "task": "tal",
}

ET_BENCH = {
    "version": 1.0,
    "idx": 3,
    "task": "tal",
    "source": "thumos14",
    "video": "thumos14/a.mp4",
    "duration": 35,
    "tgt": [[15.0, 31.0], [31.4, 34.9]],
    "q": "Find all events.",
}

VIDEO_R1 = {
    "problem_id": 2,
    "problem": "What is seen?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. a dog", "B. a cat"],
    "solution": "<answer>B</answer>",
    "path": "./LLaVA-Video-178K/a.mp4",
    "data_source": "LLaVA-Video-178K",
}

USER = {"role": "user", "content": "<video>\nWhen does the dog run?"}
ASSISTANT = {"role": "assistant", "content": "<answer>1 to 2.5</answer>"}
MESSAGES = {"messages": [USER, ASSISTANT], "videos": ["v/a.avi"], "solution": [[1, 2.5]]}

ROW = {"id": "a", "video": "a.mp4", "duration": 9.5, "query": "a dog", "spans": [[1, 2.5], [4.0, 5.0]]}


def test_charades_sta_gives_one_sample_per_sentence(tmp_path: Path) -> None:
    assert read(source(tmp_path / "a.json", CHARADES, "charades_sta")) == [
        Sample("3MSZA#0", "videos/3MSZA.mp4", 30.96, "person turn a light on.", ((24.3, 30.4),)),
        Sample("3MSZA#1", "videos/3MSZA.mp4", 30.96, "person sits.", ((0.0, 3.0),)),
        Sample("v_x.mkv#0", "videos/v_x.mkv", 12.0, "a dog {runs}", ((1.5, 13.0),), completion="1.5 to 13"),
    ]


def test_verbs_and_sentences_without_them_are_read_and_copies_of_a_video_are_not(tmp_path: Path) -> None:
    row = {
        "duration": 32.47,
        "timestamps": [[4.0, 17.8], [0.0, 5.2]],
        "sentences": ["the person watches television.", "a person is undressing."],
        "verb": ["watches", ""],
        "Missing": ["the person television.", "a person is undressing."],
    }
    content = {"NEM29": {**row, "action": 0}, "NEM29_c": {**row, "action": 1}}
    samples = read(source(tmp_path / "a.json", content, "charades_sta"))
    assert [(sample.id, sample.verb, sample.masked_query) for sample in samples] == [
        ("NEM29#0", "watches", "the person television."),
        ("NEM29#1", None, None),
    ]
    with pytest.raises(DataError, match="1 verb for 2 sentences"):
        read(source(tmp_path / "a.json", {"NEM29": {**row, "verb": ["watches"]}}, "charades_sta"))


def test_splits_that_call_the_duration_otherwise_are_read_too(tmp_path: Path) -> None:
    row = {"framestamps": [[628, 720]], "decode_fps": 16.0, "video_fps": -1.0, "video_duration": 47.625}
    content = {"N14BK": {**row, "sentences": ["a person"], "timestamps": [[39.3, 45.0]]}}
    assert read(source(tmp_path / "a.json", content, "charades_sta")) == [
        Sample("N14BK#0", "videos/N14BK.mp4", 47.625, "a person", ((39.3, 45.0),))
    ]


def test_a_video_that_is_only_named_is_found_under_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "v_a.mkv").touch()
    (tmp_path / "v_c.webm").touch()
    (tmp_path / "v_c.mkv").touch()
    row = {"duration": 12, "timestamps": [[1.5, 13.0]], "sentences": ["a dog"]}
    content = {"v_a": row, "v_b": row, "v_c": row, "v_d.MP4": row}
    place = source(tmp_path / "a.json", content, "activitynet")
    place.videos = str(tmp_path)
    assert [Path(sample.video).name for sample in read(place)] == ["v_a.mkv", "v_b.mp4", "v_c.mkv", "v_d.MP4"]


def equal(samples: list[Sample], expected: list[Sample]) -> bool:
    """Whether samples are the same, unknown durations included: nan is one object and tuples compare objects first."""
    return [astuple(sample) for sample in samples] == [astuple(sample) for sample in expected]


def test_charades_lines_are_counted_by_video(tmp_path: Path) -> None:
    lines = "3MSZA 24.3 30.4##person turns on.\nAMT7R 4 12.5##a ## b\n\n3MSZA 3.0 1##x \r\n"
    assert equal(
        read(source(tmp_path / "a.txt", lines, "charades_txt")),
        [
            Sample("3MSZA#0", "videos/3MSZA.mp4", nan, "person turns on.", ((24.3, 30.4),)),
            Sample("AMT7R#0", "videos/AMT7R.mp4", nan, "a ## b", ((4.0, 12.5),)),
            Sample("3MSZA#1", "videos/3MSZA.mp4", nan, "x", ((3.0, 1.0),)),
        ],
    )


def test_qvhighlights_keeps_all_windows(tmp_path: Path) -> None:
    content = f"{json.dumps(QVHIGHLIGHTS)}\n"
    assert read(source(tmp_path / "a.jsonl", content, "qvhighlights")) == [
        Sample("7803", "videos/RoripwjYFp8_360.0_510.0.mp4", 150.0, "A man walks inside.", ((26.0, 36.0), (40.0, 44.0)))
    ]


def test_tvgbench_keeps_the_window_that_its_times_are_relative_to(tmp_path: Path) -> None:
    whole = {**TVGBENCH, "start": None, "end": None}
    sample = Sample(
        "Ti9ibi#0", "videos/Ti9ibi.mp4", 90.0, "Add honey", ((24.0, 38.25),), "grounding", None, 53.5, 143.5
    )
    assert read(source(tmp_path / "a.json", [TVGBENCH, whole], "tvgbench")) == [
        sample,
        replace(sample, id="Ti9ibi#1", video_start=None, video_end=None),
    ]


def test_timelens_training_rows_give_one_sample_per_event(tmp_path: Path) -> None:
    content = f"{json.dumps(EVENTS)}\n{json.dumps({**EVENTS, 'events': EVENTS['events'][1:]})}\n"
    assert read(source(tmp_path / "a.jsonl", content, "timelens")) == [
        Sample("didemo/a.b.mp4#0", "videos/didemo/a.b.mp4", 30.5, "a dog runs.", ((1.0, 2.5), (7.0, 8.0))),
        Sample("didemo/a.b.mp4#1", "videos/didemo/a.b.mp4", 30.5, "a cat", ((3.0, 4.0),)),
        Sample("didemo/a.b.mp4#2", "videos/didemo/a.b.mp4", 30.5, "a cat", ((3.0, 4.0),)),
    ]


def test_timelens_benchmarks_give_one_sample_per_query(tmp_path: Path) -> None:
    content = {"3MSZA": {"duration": 30.9, "spans": [[1, 2], [3, 4]], "queries": ["a dog", "a cat"]}}
    assert read(source(tmp_path / "a.json", content, "timelens")) == [
        Sample("3MSZA#0", "videos/3MSZA.mp4", 30.9, "a dog", ((1.0, 2.0),)),
        Sample("3MSZA#1", "videos/3MSZA.mp4", 30.9, "a cat", ((3.0, 4.0),)),
    ]


def test_museg_rows_keep_their_question_and_all_spans(tmp_path: Path) -> None:
    short = {key: value for key, value in MUSEG.items() if key != "duration"} | {"idx": 13, "task": "tvg"}
    content = f"{json.dumps(MUSEG)}\n{json.dumps(short)}\n"
    spans = ((0.03, 7.07), (17.27, 27.32))
    sample = Sample("12", "videos/et_instruct_164k/hacs/F54.mp4", 80.0, str(MUSEG["problem"]), spans)
    expected = [sample, replace(sample, id="13", duration=nan)]
    assert equal(read(source(tmp_path / "a.jsonl", content, "museg")), expected)


def test_museg_evaluation_lists_have_neither_ids_nor_durations(tmp_path: Path) -> None:
    row = {"video": "thumos14/v_51.mp4", "question": "Find 'billiards'.", "groundtruth": [[67.5, 75.9], [85, 90.6]]}
    expected = [
        Sample(f"v_51#{k}", "videos/thumos14/v_51.mp4", nan, "Find 'billiards'.", ((67.5, 75.9), (85.0, 90.6)))
        for k in (0, 1)
    ]
    assert equal(read(source(tmp_path / "a.json", [row, row], "museg")), expected)


def test_et_bench_targets_are_one_span_or_several(tmp_path: Path) -> None:
    one = {**ET_BENCH, "task": "tvg", "source": "qvhighlights", "tgt": [1, 2.5]}
    sample = Sample("tal_thumos14#3", "videos/thumos14/a.mp4", 35.0, "Find all events.", ((15.0, 31.0), (31.4, 34.9)))
    assert read(source(tmp_path / "a.json", [ET_BENCH, one], "et_bench")) == [
        sample,
        replace(sample, id="tvg_qvhighlights#3", spans=((1.0, 2.5),)),
    ]


def test_questions_have_an_answer_and_no_spans(tmp_path: Path) -> None:
    count = {
        **VIDEO_R1,
        "problem_id": 3,
        "problem_type": "numerical",
        "options": [],
        "solution": "<answer> 4 </answer>",
    }
    thought = {**VIDEO_R1, "problem_id": 4, "process": "<think>Hm.</think>"}
    choice = Sample(
        "2",
        "videos/LLaVA-Video-178K/a.mp4",
        nan,
        "What is seen?\nA. a dog\nB. a cat",
        (),
        "qa",
        answer="B",
        options=("A. a dog", "B. a cat"),
    )
    expected = [
        choice,
        replace(choice, id="3", query="What is seen?", task="numerical", answer="4", options=None),
        replace(choice, id="4", completion="<think>Hm.</think>\n<answer>B</answer>"),
    ]
    assert equal(read(source(tmp_path / "a.json", [VIDEO_R1, count, thought], "video_r1")), expected)


@pytest.mark.parametrize(
    ("reader", "content"), [("ms_swift", json.dumps(MESSAGES)), ("llama_factory", json.dumps([MESSAGES]))]
)
def test_messages_give_query_completion_and_stated_spans(tmp_path: Path, reader: str, content: str) -> None:
    expected = Sample(
        "rows#0",
        "videos/v/a.avi",
        nan,
        "When does the dog run?",
        ((1.0, 2.5),),
        completion="<answer>1 to 2.5</answer>",
    )
    assert equal(read(source(tmp_path / "rows.json", content, reader)), [expected])


def test_messages_may_state_the_rest(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    rows = [
        {"messages": [system, USER], "videos": ["/a.mp4"], "spans": [[1, 2], [3, 4]], "id": 7, "duration": 9.5},
        {"messages": [USER], "videos": ["a.mp4"], "task": "qa", "solution": "B", "duration": 9.5},
        {"messages": [USER], "videos": ["a.mp4"], "task": "qa", "answer": "C", "duration": 9.5},
    ]
    assert read(source(tmp_path / "rows.json", rows, "ms_swift")) == [
        Sample("7", "/a.mp4", 9.5, "When does the dog run?", ((1.0, 2.0), (3.0, 4.0))),
        Sample("rows#1", "videos/a.mp4", 9.5, "When does the dog run?", (), "qa", answer="B"),
        Sample("rows#2", "videos/a.mp4", 9.5, "When does the dog run?", (), "qa", answer="C"),
    ]


def test_unknown_durations_are_filled_from_the_files(tmp_path: Path) -> None:
    known = Sample("a", "a.mp4", 9.5, "a dog", ((1.0, 2.0),))
    rows = [
        known,
        replace(known, duration=nan),
        replace(known, duration=nan, video_start=4.0),
        replace(known, duration=nan, video_start=4.0, video_end=6.5),
        replace(known, duration=nan, video="b.mp4"),
    ]
    assert [str(sample.duration) for sample in filled(rows, {"a.mp4": 20.0})] == ["9.5", "20.0", "16.0", "2.5", "nan"]


def test_recipes_name_the_readers_that_there_are() -> None:
    assert set(recipe.READERS) == set(READERS)


def test_the_page_about_data_has_an_example_of_every_reader_which_can_be_converted(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    examples = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| `([^|]+)` \|", page, re.MULTILINE))
    assert sorted(examples) == sorted(READERS)
    for reader, content in examples.items():
        (sample,) = read(source(tmp_path / f"{reader}.x", content, reader))
        assert sample.spans or sample.task == "qa", reader
        written = str(tmp_path / f"{reader}.jsonl")
        jsonl.write([sample], written, "videos")
        assert equal(jsonl.read(recipe.Source(written, "videos")), [sample]), reader


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
    with pytest.raises(
        DataError, match=r"'charades'.*charades_sta, charades_txt.*, jsonl; did you mean 'charades_txt'\?"
    ):
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
        ("charades_sta", charades(sentences=["x", None]), r"field 'sentences\[1\]': got null, expected a string"),
        ("time_r1", {}, "got dict, expected a list of rows"),
        ("time_r1", [TIME_R1, {**TIME_R1, "timestamp": [1, None]}], "row 1, field 'timestamp'"),
        ("time_r1", [{**TIME_R1, "sentence": 3}], "row 0, field 'sentence': got 3, expected a string"),
        ("time_r1", [{**TIME_R1, "video_end": "x"}], "row 0, field 'video_end'"),
        ("jsonl", '{"id": "a"}', "line 1: field 'video' is missing; the row has 'id'"),
        ("jsonl", f"{json.dumps(ROW)}\n{{oops}}", r"line 2: not JSON"),
        ("jsonl", json.dumps({**ROW, "span": [1, 2]}), "line 1: unknown field 'span'.*did you mean 'spans'"),
        ("jsonl", json.dumps({**ROW, "spans": [1, 2]}), r"field 'spans\[0\]': got 1"),
        ("time_r1", '[{"video": ', "not JSON .* at line 1"),
        ("charades_sta", '{"a": {}, "b": {}, "a": {}}', "an object has the key 'a' twice"),
        ("charades_txt", "3MSZA 1 2##a\n3MSZA 24.3##a dog", "line 2: got '3MSZA 24.3##a dog', expected 'VIDEO START"),
        ("charades_txt", "3MSZA 1e1 2##a", "line 1: got"),
        ("qvhighlights", json.dumps({**QVHIGHLIGHTS, "qid": True}), "field 'qid': got true, expected a string or a"),
        (
            "qvhighlights",
            json.dumps({"qid": 1, "vid": "v", "duration": 1, "query": "x"}),
            "'relevant_windows' is missing",
        ),
        ("qvhighlights", [QVHIGHLIGHTS], r"line 1: got \[.*expected an object"),
        ("tvgbench", [TVGBENCH, {**TVGBENCH, "answer": "24.0 to 38.0"}], "row 1, field 'answer': got '24.0 to 38.0'"),
        ("tvgbench", [{**TVGBENCH, "answer": "-4.0-8.0"}], "field 'answer': got '-4.0-8.0', expected 'start-end'"),
        ("timelens", {"a": {"duration": 3, "spans": [[1, 2]], "queries": []}}, "'a': 1 spans for 0 queries"),
        (
            "museg",
            json.dumps({**MUSEG, "solution": [10, 20]}),
            r"line 1, field 'solution\[0\]': got 10, expected \[start",
        ),
        ("museg", json.dumps({**MUSEG, "duration": "80"}), "field 'duration': got \"80\", expected a number"),
        ("et_bench", [{**ET_BENCH, "task": "vhd"}], "row 0: got task 'vhd'.*allowed are tvg, epm, tal, evs"),
        ("et_bench", [{**ET_BENCH, "tgt": [[1, 2], 3]}], "field 'tgt': got .*expected .start, end. in seconds"),
        ("video_r1", [VIDEO_R1, {**VIDEO_R1, "data_type": "image"}], "row 1: not about a video, like 1 of 2 rows"),
        ("video_r1", [{**VIDEO_R1, "solution": "B"}], "field 'solution': got 'B', expected '<answer>...</answer>'"),
        ("ms_swift", {**MESSAGES, "solution": "1 to 2.5"}, "no spans; state them .* in 'solution' or 'spans'"),
        ("ms_swift", {**MESSAGES, "videos": ["a.mp4", "b.mp4"]}, "field 'videos': got 2 entries, expected the path of"),
        (
            "ms_swift",
            {**MESSAGES, "messages": [USER, ASSISTANT, USER]},
            "message 2: got a message of 'user', expected one",
        ),
        ("ms_swift", {**MESSAGES, "messages": [ASSISTANT]}, "no user message with <video> once in it"),
        ("jsonl", json.dumps({**ROW, "duration": "9"}), "field 'duration': got \"9\", expected a number"),
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
