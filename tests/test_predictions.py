"""Files of predictions: ours as they were written, and another system's joined to annotations by id."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvtg.data.sample import Sample
from rlvtg.evaluation.metrics import score
from rlvtg.evaluation.predictions import (
    Prediction,
    check_prediction,
    read_answers,
    read_predictions,
    reread,
    write_metrics,
    write_predictions,
)
from rlvtg.evaluation.protocol import Protocol
from rlvtg.text.grammar import grammar

RULES = Protocol("rlvtg", thresholds=(0.5,))


def prediction(name: str) -> Prediction:
    return {
        "id": name, "video": "v.mp4", "query": "das Öl läuft 跑\u2028", "duration": 30.0, "spans": [[10.0, 20.0]],
        "completion": "<think>a\r\nb\ud83d</think><answer>10 to 15</answer>", "predicted": [[10.0, 15.0]],
    }  # fmt: skip


def test_predictions_come_back_as_they_were_written_and_score_the_same(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a" / "predictions.jsonl"
    write_predictions(path, (prediction(name) for name in "ab"))
    assert read_predictions(path) == [prediction("a"), prediction("b")]
    assert score(read_predictions(path), RULES)["mIoU"] == 0.5
    assert len(path.read_bytes().splitlines()) == 2


def test_a_completion_about_a_part_of_the_video_is_read_on_the_clock_of_that_part(tmp_path: Path) -> None:
    whole = prediction("a")
    part: Prediction = {**whole, "window": [8.0, 28.0], "predicted": [[18.0, 23.0]]}
    assert reread(whole, grammar("to")) == [(10.0, 15.0)]
    assert reread(part, grammar("to")) == [(18.0, 23.0)]
    percent: Prediction = {**part, "completion": "<answer>10.00% to 50.00%</answer>"}
    assert reread(percent, grammar("percent")) == [(10.0, 18.0)]
    assert reread({**percent, "window": [0.0, 30.0]}, grammar("percent")) == [(3.0, 15.0)]
    own = Protocol("own", grammar="to", thresholds=(0.5,))
    assert score([part], own)["mIoU"] == score([part], RULES)["mIoU"] == 2 / 13
    write_predictions(tmp_path / "predictions.jsonl", [part])
    sample = Sample("a", "v.mp4", 30.0, "x", ((10.0, 20.0),))
    for read in (read_answers(tmp_path / "predictions.jsonl"), read_answers(tmp_path / "predictions.jsonl", [sample])):
        assert reread(read[0], grammar("to")) == [(18.0, 23.0)] and score(read, own)["mIoU"] == 2 / 13


def test_a_write_that_fails_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.jsonl", [prediction("a")])

    def breaks() -> Iterator[Prediction]:
        yield prediction("b")
        raise RuntimeError("the model died")

    with pytest.raises(RuntimeError):
        write_predictions(tmp_path / "predictions.jsonl", breaks())
    assert read_predictions(tmp_path / "predictions.jsonl") == [prediction("a")]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(prediction("a")) + "\n" + '{"id": "b"')
    with pytest.raises(ValueError, match=r"predictions.jsonl, line 2 is not JSON"):
        read_predictions(path)
    path.write_text(json.dumps(prediction("a")) + "\n" + '{"id": "b"}\n')
    with pytest.raises(ValueError, match=r"line 2 lacks video, query"):
        read_predictions(path)
    path.write_text("5\n")
    with pytest.raises(ValueError, match="line 1 lacks id, video"):
        read_predictions(path)


def test_metrics_are_json_and_never_nan(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", {"mIoU": 0.5, "n": 2})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"mIoU": 0.5, "n": 2}
    with pytest.raises(ValueError):
        write_metrics(tmp_path / "metrics.json", {"mIoU": math.nan})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"mIoU": 0.5, "n": 2}


def test_a_row_that_is_no_prediction_is_named_with_what_it_lacks() -> None:
    with pytest.raises(
        ValueError, match="line 3 lacks video, query, duration, completion, predicted; a prediction has id, "
    ):
        check_prediction({"id": "q", "spans": [[0, 1]]}, "line 3")


# --- another system's


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sample(name: str, *spans: tuple[float, float]) -> Sample:
    return Sample(id=name, video="v.mp4", duration=30.0, query="a dog", spans=spans or ((10.0, 20.0),))


def test_rows_may_bring_their_own_true_spans(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "theirs.jsonl",
        {"id": 1, "spans": [[0, 10]], "predicted": [[0, 5]]},
        {"id": "b", "video": "v", "duration": 9, "spans": [[0, 10]], "completion": "0 to 5", "score": 0.3},
        {"id": "c", "spans": [[0, 10]], "predicted": None},
    )
    first, second, third = read_answers(file)
    assert first["id"] == first["video"] == "1" and first["predicted"] == [[0.0, 5.0]] and first["completion"] is None
    assert math.isnan(first["duration"]) and not first["unread"]
    assert (second["video"], second["duration"], second["completion"], second["unread"]) == ("v", 9.0, "0 to 5", True)
    assert third["predicted"] == []
    assert score([first, third], RULES)["mIoU"] == 0.25


def test_rows_are_joined_to_annotations_by_id_and_counted_where_they_are_missing(tmp_path: Path) -> None:
    file = lines(tmp_path / "theirs.jsonl", {"id": "c", "predicted": [[10, 20]]}, {"id": "a", "spans": [[10, 15]]})
    found = read_answers(file, [sample("a"), sample("b"), sample("c")])
    assert [one["id"] for one in found] == ["a", "b", "c"]
    assert [one["spans"] for one in found] == [[[10.0, 20.0]]] * 3
    assert [one["predicted"] for one in found] == [[[10.0, 15.0]], [], [[10.0, 20.0]]]
    got = score(found, RULES)
    assert (got["n"], got["mIoU"], got["missing"], got["parse_failure_rate"]) == (3, 0.5, 1, 0.0)


def test_with_annotations_our_own_predictions_keep_their_answers_and_take_the_annotated_spans(tmp_path: Path) -> None:
    ours = prediction("a")
    write_predictions(tmp_path / "predictions.jsonl", [ours])
    [found] = read_answers(tmp_path / "predictions.jsonl", [sample("a", (0.0, 1.0))])
    assert (found["spans"], found["predicted"]) == ([[0.0, 1.0]], [[10.0, 15.0]])
    assert found["completion"] == ours["completion"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"predicted": []}, "line 2 has no id"),
        ([1], "line 2 has no id"),
        ({"id": True, "predicted": []}, "line 2 has no id"),
        ({"id": "b"}, r"line 2 \(id 'b'\) has neither a completion nor predicted spans"),
        ({"id": "b", "predicted": [[1, 2]]}, r"line 2 \(id 'b'\) has no true spans; give them as spans, or an annot"),
        ({"id": "b", "spans": [[0, 1]], "completion": 5}, "line 2: completion is 5, want text"),
        ({"id": "b", "spans": [[0, 1]], "predicted": [1, 2]}, r"line 2: predicted is \[1, 2\], want \[\[start, end\]"),
        ({"id": "b", "spans": "0 to 1", "predicted": []}, 'line 2: spans is "0 to 1", want'),
        ({"id": "b", "spans": [[0, 1]], "predicted": [], "duration": "9"}, 'line 2: duration is "9", want seconds'),
        ({"id": "a", "spans": [[0, 1]], "predicted": []}, "line 2: id 'a' stands in .*line 1 already"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named_with_its_line(tmp_path: Path, row: Any, said: str) -> None:
    file = lines(tmp_path / "theirs.jsonl", {"id": "a", "spans": [[0, 1]], "predicted": []}, row)
    with pytest.raises(ValueError, match=f"theirs.jsonl, {said}"):
        read_answers(file)


def test_an_id_that_no_annotation_has_is_named_with_the_nearest(tmp_path: Path) -> None:
    file = lines(tmp_path / "theirs.jsonl", {"id": "AB#1", "predicted": []})
    with pytest.raises(ValueError, match="line 1: none of the 2 annotations has the id 'AB#1'; the nearest is 'AB#0'"):
        read_answers(file, [sample("AB#0"), sample("xyz")])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.jsonl: cannot be read \(No such file"):
        read_answers(tmp_path / "none.jsonl")
