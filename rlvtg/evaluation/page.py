"""A run as one HTML page that stands on its own: pictures are inside it, and nothing is loaded from anywhere.

It is made from what the run folder holds, finished or interrupted, without a model. Filmstrips of single answers need
the videos; where one cannot be read, the page says so.
"""

import base64
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rlvtg.data.sample import DataError
from rlvtg.disk import write_whole
from rlvtg.evaluation.metrics import ious
from rlvtg.evaluation.predictions import Prediction, read_predictions
from rlvtg.evaluation.protocol import Protocol, protocol, restored
from rlvtg.evaluation.report import cells, filmstrip, histogram, learning_curves, spread
from rlvtg.recipe import Video, read_file
from rlvtg.video.index import VideoError
from rlvtg.video.worker import shared_worker

# Twelve frames are drawn of a filmstrip; they need not be the ones that the model saw.
_FRAMES = Video(fps=1.0, min_frames=4, max_frames=12, min_pixels=784, max_pixels=100352)
_LONGEST_TEXT, _BAD_ROWS = 600, 50
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; }
th { text-align: left; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; display: block; } figure { margin: 1.5rem 0; } figcaption, .note { color: #555; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class _Evaluation:
    """A complete evaluation of the run: its label, predictions, the rules of scoring, and an IoU per query."""

    label: str
    predictions: list[Prediction]
    rules: Protocol
    reached: list[float | None]


def write_page(run: str | Path, path: str | Path | None = None, *, worst: int = 6) -> Path:
    """Write the page of the run folder `run` to `path` (default report.html in it); returns where.

    `worst` is the number of answers with the lowest IoU that are shown one by one. Raises DataError for a folder that
    holds no run.
    """
    run = Path(run)
    if not (run / "recipe.yaml").is_file():
        raise DataError(f"{run}: no recipe.yaml here; want the folder of a run, such as runs/NAME")
    target = run / "report.html" if path is None else Path(path)
    write_whole(target, page(run, worst=worst))
    return target


def page(run: Path, *, worst: int = 6) -> str:
    """The HTML of the run folder `run`."""
    tree = read_file(run / "recipe.yaml")
    stages = list(tree.get("stages") or {})
    last = _last_evaluation(run, stages)
    name = escape(str(tree.get("name", run.name)))
    sections = [
        ("Stages", _stages(run, stages)),
        ("Metrics", _metrics(run, stages)),
        ("Learning curves", _curves(run, stages)),
        *(_answers(run, last, worst) if last else [("Answers", _note("No evaluation of this run is complete yet."))]),
        ("Rows left out", _bad_rows(run)),
        ("Recipe", _folded("recipe.yaml", (run / "recipe.yaml").read_text(encoding="utf-8"))),
    ]
    body = "\n".join(f"<section><h2>{escape(title)}</h2>\n{content}\n</section>" for title, content in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{name}</h1>\n<p class='note'>{escape(str(run))}</p>\n"
        f"{body}\n</body>\n</html>\n"
    )


# What the folder holds


def _last_evaluation(run: Path, stages: Sequence[str]) -> _Evaluation | None:
    for label in reversed(["before", *stages]):
        place = run / "evaluation" / label
        if (place / "metrics.json").is_file() and (place / "predictions.jsonl").is_file():
            predictions = read_predictions(place / "predictions.jsonl")
            told = _json(place / "metrics.json").get("protocol")
            rules = restored(told) if told else protocol("rlvtg")
            return _Evaluation(label, predictions, rules, ious(predictions, rules))
    return None


def _stages(run: Path, stages: Sequence[str]) -> str:
    def state(stage: str) -> str:
        place = run / stage
        if (place / "done.json").exists():
            return "done"
        rounds = sorted(place.glob("round_*"), key=lambda folder: int(folder.name.split("_")[1]))
        of_round = f" of round {len(rounds)}" if rounds else ""
        last = rounds[-1] if rounds else place
        steps = sorted(int(folder.name.split("-")[1]) for folder in last.glob("checkpoint-*"))
        if steps:
            return f"interrupted; the last checkpoint{of_round} is of step {steps[-1]}"
        return (
            f"started round {len(rounds)}, without a checkpoint of it so far"
            if rounds
            else "started, without a checkpoint so far"
            if place.is_dir()
            else "not started"
        )

    return _table([["stage", "state"], *([stage, state(stage)] for stage in stages)])


def _metrics(run: Path, stages: Sequence[str]) -> str:
    results = {}
    for label in ["before", *stages]:
        file = run / "evaluation" / label / "metrics.json"
        if file.is_file():
            results[label] = _json(file)
    if (run / "metrics.json").is_file():
        results = results | {label: row for label, row in _json(run / "metrics.json").items() if label not in results}
    parts = []
    if results:
        parts.append(_table(cells(results), numbers=True))
        parts += [
            _folded(f"protocol of {label}", json.dumps(row["protocol"], indent=2, ensure_ascii=False))
            for label, row in results.items()
            if "protocol" in row
        ]
    for label in ["before", *stages]:
        made = sum(_lines(file) for file in (run / "evaluation" / label).glob("predictions.*.jsonl"))
        if made and label not in results:
            parts.append(_note(f"The evaluation of {label} is not complete: {made} predictions so far."))
    return "\n".join(parts) or _note("No evaluation of this run is complete yet.")


def _curves(run: Path, stages: Sequence[str]) -> str:
    histories = {}
    # a stage of several rounds that is not done shows the rounds there are
    shown = [
        place.relative_to(run).as_posix()
        for stage in stages
        for place in (
            [run / stage]
            if (run / stage / "log_history.json").is_file()
            else sorted((run / stage).glob("round_*")) or [run / stage]
        )
    ]
    for stage in shown:
        checkpoints = sorted((run / stage).glob("checkpoint-*/trainer_state.json"), key=_step)
        if (run / stage / "log_history.json").is_file():
            histories[stage] = _json(run / stage / "log_history.json")["log"]
        elif checkpoints:
            histories[stage] = _json(checkpoints[-1])["log_history"]
    if not any(histories.values()):
        return _note("No stage has logged anything yet.")
    try:
        return _drawn(lambda path: learning_curves(histories, path), "Learning curves of the stages")
    except ValueError as error:
        return _note(str(error))


def _answers(run: Path, last: _Evaluation, worst: int) -> list[tuple[str, str]]:
    """The sections that look at single answers."""
    ready = sorted((run / "pictures").glob("filmstrip_*.png"), key=lambda file: (len(file.name), file.name))
    if ready:
        strips = [_picture(file.read_bytes(), file.name) for file in ready]
    else:
        strips = [_strip(last, index) for index in spread(last.reached, worst)]
    lowest = sorted(range(len(last.reached)), key=lambda index: last.reached[index] or 0.0)[:worst]
    caption = f"IoU of the {len(last.predictions)} answers after {last.label}"
    worst_ones = "\n".join(_strip(last, index) + _details(last, index) for index in lowest)
    return [
        ("How well it answers", _drawn(lambda path: histogram(last.reached, path), caption)),
        ("Answers from the best to the worst", "\n".join(strips)),
        ("Worst answers", worst_ones),
    ]


def _details(last: _Evaluation, index: int) -> str:
    prediction, iou = last.predictions[index], last.reached[index]
    text = prediction["completion"] or ""
    shown = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} ... ({len(text)} characters)"
    scored = "dropped" if iou is None else f"{iou:.3f}"
    rows = [
        ["id", prediction["id"]],
        ["query", prediction["query"]],
        ["IoU", scored],
        ["true spans (s)", _spans(prediction["spans"])],
        ["predicted spans (s)", _spans(prediction["predicted"]) or "none could be read"],
    ]
    if "window" in prediction:
        rows.append(["the text speaks of the part (s)", _spans([prediction["window"]])])
    return f"{_table(rows, header=False)}<pre>{escape(shown)}</pre>"


def _strip(last: _Evaluation, index: int) -> str:
    """The filmstrip of one answer, or why there is none."""
    each, iou = last.predictions[index], last.reached[index]
    title = f"{each['query']} (IoU {iou or 0.0:.2f})"
    try:
        clip = shared_worker().clip(each["video"], _FRAMES, start=each.get("video_start"), end=each.get("video_end"))
    except VideoError as error:
        return _note(f"No filmstrip of {each['query']!r}: {error}")
    spans = each["spans"], each["predicted"]
    return _drawn(
        lambda path: filmstrip(clip.frames, clip.timestamps, each["duration"], *spans, title, path),
        title,
        caption=False,
    )


def _bad_rows(run: Path) -> str:
    parts = []
    for file in sorted(run.glob("bad_rows.*.jsonl")):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        parts.append(_note(f"{file.name}: {len(rows)} rows"))
        if rows:
            columns = ["id", "video", "reason", "detail"]
            parts.append(_table([columns, *([str(row.get(key, "")) for key in columns] for row in rows[:_BAD_ROWS])]))
        if len(rows) > _BAD_ROWS:
            parts.append(_note(f"... and {len(rows) - _BAD_ROWS} more."))
    return "\n".join(parts) or _note("The run has no list of rows that were left out.")


# HTML


def _table(rows: Sequence[Sequence[str]], *, header: bool = True, numbers: bool = False) -> str:
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if header and number == 0 else "td"
        kind = ' class="number"' if numbers and tag == "td" else ""
        first, *others = (escape(text) for text in row)
        lines.append(f"<tr><{tag}>{first}</{tag}>{''.join(f'<{tag}{kind}>{text}</{tag}>' for text in others)}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _drawn(draw: Callable[[Path], None], title: str, *, caption: bool = True) -> str:
    """What `draw` draws to a path, inside the page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        return _picture(path.read_bytes(), title, caption=caption)


def _picture(png: bytes, title: str, *, caption: bool = False) -> str:
    data = base64.b64encode(png).decode()
    below = f"<figcaption>{escape(title)}</figcaption>" if caption else ""
    return f'<figure><img src="data:image/png;base64,{data}" alt="{escape(title)}">{below}</figure>'


def _spans(spans: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"{start:g} to {end:g}" for start, end in spans)


def _json(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def _step(path: Path) -> int:
    return int(path.parent.name.split("-")[1])
