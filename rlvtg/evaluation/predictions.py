"""Predictions as they are kept: one JSON object per line, ours or another system's, joined to annotations if need be.

A row is scored by its `completion`, which the rules' grammar reads, or by its `predicted` spans; `spans` are the true
ones, as in an annotation.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from rlvtg.data.sample import Sample
from rlvtg.disk import write_whole
from rlvtg.text.grammar import Grammar
from rlvtg.text.span import Span, moved


class PredictionError(ValueError):
    """A prediction that cannot be scored, with its place and the reason."""


class Answer(TypedDict):
    """What was answered when a part of a video was shown."""

    window: list[float]  # the part [start, end], in seconds of the prediction's video
    completion: str | None  # speaks of the part: its second 0 is the part's start
    predicted: list[list[float]]  # [start, end], in seconds of the prediction's video


class Prediction(TypedDict):
    """One line of predictions.jsonl: a query, its annotation and what the model answered."""

    id: str
    video: str
    query: str
    duration: float  # of the video, seconds; NaN if nobody said
    spans: list[list[float]]  # true [start, end], seconds; at least one
    completion: str | None  # None if a system gave spans and no text
    predicted: list[list[float]]  # [start, end], seconds; empty when nothing could be parsed
    missing: NotRequired[bool]  # annotated, but not in the file of predictions
    unread: NotRequired[bool]  # nobody has read the completion yet: `predicted` says nothing
    video_start: NotRequired[float]  # of the window of the file, seconds
    video_end: NotRequired[float]
    window: NotRequired[list[float]]  # the part that the completion speaks of, as in Answer; all of the video if absent
    passes: NotRequired[list[Answer]]  # every answer to the query, if the video was looked at again


FIELDS = tuple(name for name in Prediction.__annotations__ if name not in Prediction.__optional_keys__)


def check_prediction(row: object, where: str) -> Prediction:
    """`row` as a Prediction, or a PredictionError that says what it lacks and `where` it stands."""
    missing = [field for field in FIELDS if not isinstance(row, dict) or field not in row]
    if missing:
        raise PredictionError(f"{where} lacks {', '.join(missing)}; a prediction has {', '.join(FIELDS)}")
    return cast(Prediction, row)


def reread(prediction: Prediction, read: Grammar) -> list[Span]:
    """The spans of a prediction's completion, in seconds of its video, as `read` reads them."""
    start, end = prediction.get("window") or (0.0, prediction["duration"])
    return moved(read.parse(prediction["completion"] or "", end - start), start)


def write_predictions(path: str | Path, predictions: Iterable[Mapping[str, Any]]) -> None:
    """Writes predictions as JSON lines. The file appears whole or not at all: an older one stays until the new one is
    complete."""
    write_whole(path, "".join(json.dumps(prediction) + "\n" for prediction in predictions))


def write_metrics(path: str | Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics as indented JSON, whole or not at all; ValueError for a number that is not finite, which JSON
    cannot hold."""
    write_whole(path, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def read_predictions(path: str | Path) -> list[Prediction]:
    """Reads what write_predictions wrote; PredictionError with file and line for a line that is not a whole
    prediction."""
    return [check_prediction(row, where) for where, row in _lines(path)]


def read_answers(path: str | Path, samples: Sequence[Sample] | None = None) -> list[Prediction]:
    """Another system's predictions, or ours: rows with an `id`, and a `completion` or `predicted` spans or both.

    Without `samples` a row brings its true `spans` itself, and perhaps `video` (queries of one video are resampled
    together; a row without one stands for itself), `query` and `duration`. With `samples` the annotation is theirs, by
    id and in their order; a row that has neither `completion` nor `predicted` answers with its `spans`; a sample
    without a row is `missing`.

    Raises PredictionError naming file and line for a row that cannot be read, an id that comes twice and an id that no
    sample has.
    """
    found: dict[str, Prediction] = {}
    places: dict[str, str] = {}
    annotated = None if samples is None else {sample.id: sample for sample in samples}
    for where, row in _lines(path):
        prediction = _answer(row, where, annotated)
        name = prediction["id"]
        if name in found:
            raise PredictionError(f"{where}: id {name!r} stands in {places[name]} already; a query has one answer")
        found[name], places[name] = prediction, where
    if samples is None:
        return list(found.values())
    return [found[sample.id] if sample.id in found else _unanswered(sample) for sample in samples]


def _lines(path: str | Path) -> Iterable[tuple[str, Any]]:
    """(file and line in words, row) of each line that is not empty."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PredictionError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    # split("\n"), not splitlines(): a completion may hold other line separators.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError as error:
                raise PredictionError(
                    f"{where} is not JSON ({error}); a file of predictions has one JSON object per line"
                ) from error


def _answer(row: Any, where: str, annotated: Mapping[str, Sample] | None) -> Prediction:
    if not isinstance(row, dict) or isinstance(row.get("id"), bool) or not isinstance(row.get("id"), str | int):
        raise PredictionError(f"{where} has no id; a row needs an id, and a completion or predicted spans")
    name = str(row["id"])
    completion = row.get("completion")
    if completion is not None and not isinstance(completion, str):
        raise PredictionError(f"{where}: completion is {_shown(completion)}, want text")
    field = "predicted" if "predicted" in row or annotated is None else "spans"
    if completion is None and field not in row:
        raise PredictionError(f"{where} (id {name!r}) has neither a completion nor predicted spans; it needs one")
    unread = completion is not None and "predicted" not in row
    predicted = [] if unread else _spans(row, field, where)
    window = {"window": _spans({"window": [row["window"]]}, "window", where)[0]} if row.get("window") else {}
    if annotated is not None:
        if name not in annotated:
            near = get_close_matches(name, annotated, n=1, cutoff=0.0)
            raise PredictionError(
                f"{where}: none of the {len(annotated)} annotations has the id {name!r}"
                + (f"; the nearest is {near[0]!r}" if near else "")
            )
        answer: dict[str, Any] = {"completion": completion, "predicted": predicted, "missing": False, "unread": unread}
        return cast(Prediction, {**_unanswered(annotated[name]), **answer, **window})
    if row.get("spans") is None:
        raise PredictionError(f"{where} (id {name!r}) has no true spans; give them as spans, or an annotation file")
    duration = row.get("duration")
    if duration is not None and (isinstance(duration, bool) or not isinstance(duration, int | float)):
        raise PredictionError(f"{where}: duration is {_shown(duration)}, want seconds")
    answered = {
        "id": name,
        "video": str(row.get("video", name)),
        "query": str(row.get("query", "")),
        "duration": math.nan if duration is None else float(duration),
        "spans": _spans(row, "spans", where),
        "completion": completion,
        "predicted": predicted,
        "unread": unread,
        **window,
    }
    return cast(Prediction, answered)


def _unanswered(sample: Sample) -> Prediction:
    return {
        "id": sample.id,
        "video": sample.video,
        "query": sample.query,
        "duration": sample.duration,
        "spans": [list(span) for span in sample.spans],
        "completion": None,
        "predicted": [],
        "missing": True,
    }


def _spans(row: Mapping[str, Any], field: str, where: str) -> list[list[float]]:
    value = row[field] if row[field] is not None else []
    pairs = value if isinstance(value, list) else [value]
    for pair in pairs:
        whole = isinstance(pair, list) and len(pair) == 2
        if not whole or any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in pair):
            raise PredictionError(f"{where}: {field} is {_shown(value)}, want [[start, end], ...] in seconds")
    return [[float(start), float(end)] for start, end in pairs]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
