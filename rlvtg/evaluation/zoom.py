"""Coarse to fine: the part of a video that an answer names is shown again, denser, and the query is asked again.

A pass over a part costs what the first pass cost: it has no more frames than the whole video had, and the same
`total_pixels`. Nothing is trained for it. The part is a clip of its own: its clock starts at 0, a prompt that states a
duration states the part's, and what is answered is moved back to the seconds of the whole video.

Source: coarse-to-fine inference of HawkEye (arXiv 2403.10228), UniTime (arXiv 2506.18883) and VideoChat-R1.5 (arXiv
2509.21100).
Differs: HawkEye narrows down by thirds, UniTime retrieves segments first and was trained for both scales,
VideoChat-R1.5 keeps the rest of the video in view and samples the found part 1.5 times denser. Here the rest is out of
view, with a margin left around the found part.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from transformers import PreTrainedModel

from rlvtg.data.row import messages
from rlvtg.data.sample import DataError
from rlvtg.evaluation.predict import greedy, predict
from rlvtg.evaluation.predictions import Answer, Prediction
from rlvtg.model.inputs import Encoder, Inputs
from rlvtg.recipe import Video
from rlvtg.rollout.hf import rollout
from rlvtg.text.grammar import grammar
from rlvtg.text.span import Span, moved
from rlvtg.video.index import read_index

# Of the found span's length, on each side: an answer with an IoU above a half lies within it.
MARGIN = 0.5


def zoom_window(spans: Sequence[Span], edges: Sequence[float], margin: float = MARGIN) -> Span | None:
    """The part of a video to look at again, (start, end) in its seconds; None if no span names any part of it.

    The hull of the spans, widened on each side by `margin` of its length and by no less than one patch, then to the
    nearest edges. So it is never shorter than one patch, and longer unless the hull lies at an end of the video.

    Args:
        spans: what was answered; spans that are reversed, not finite or outside the video are passed over.
        edges: ascending seconds between which the temporal patches of the whole video lie; the last one is its end.
        margin: a share, 0 or more.
    """
    readable = [
        (start, end)
        for start, end in spans
        if isfinite(start) and isfinite(end) and start <= end and start < edges[-1] and end >= edges[0]
    ]
    if not readable:
        return None
    start, end = min(span[0] for span in readable), max(span[1] for span in readable)
    reach = max(margin * (end - start), (edges[-1] - edges[0]) / (len(edges) - 1))
    first = max(0, bisect_right(edges, start - reach) - 1)
    last = min(max(first + 1, bisect_left(edges, end + reach)), len(edges) - 1)
    return edges[first], edges[last]


def zoom_settings(settings: Video, frames: int, seconds: float, frame_rate: float) -> Video:
    """How a part of `seconds` is sampled, so that it gets the `frames` that the whole video got.

    Its fps is frames / seconds, but no more than the `frame_rate` of the file: no frame is shown twice.
    """
    return replace(settings, fps=min(frames / seconds, frame_rate), min_frames=frames, max_frames=frames)


def predict_zoomed(
    model: PreTrainedModel,
    encoder: Encoder,
    batches: Sequence[Sequence[Mapping[str, Any]]],
    *,
    passes: int,
    prompt: str,
    system: str | None = None,
    grammar_name: str,
    max_new_tokens: int,
    margin: float = MARGIN,
    title: str = "evaluating",
    quiet: bool = False,
) -> Iterator[list[Prediction]]:
    """What `predict` yields, after `passes` passes; 0 or 1 are `predict` itself.

    See `zoom` for what later passes add. `prompt` and `system` are the templates that the rows were made with.
    """
    settings: dict[str, Any] = {"grammar_name": grammar_name, "max_new_tokens": max_new_tokens}
    predictions = predict(model, encoder, batches, title=title, quiet=quiet, **settings)
    for some, first in zip(batches, predictions, strict=True):
        if passes > 1:
            settings |= {"passes": passes, "prompt": prompt, "system": system, "margin": margin}
            yield zoom(model, encoder, some, first, **settings)
        else:
            yield first


def zoom(
    model: PreTrainedModel,
    encoder: Encoder,
    rows: Sequence[Mapping[str, Any]],
    predictions: Sequence[Prediction],
    *,
    passes: int,
    prompt: str,
    system: str | None = None,
    grammar_name: str,
    max_new_tokens: int,
    margin: float = MARGIN,
) -> list[Prediction]:
    """Predictions of one batch of rows, each refined by up to `passes` - 1 looks at the part that was found last.

    A row whose first answer names no part of the video keeps it, as the failure that it is. A later answer that names
    none ends the row's passes, and the answer before it stands. They also end where the next part would be the whole
    video or the part just seen, which would give the same answer again.

    Args:
        model: a model from `load_model`, or a PEFT wrapper of one.
        encoder: the run's encoder.
        rows: B rows with the columns that `predict` needs.
        predictions: B first answers to them, from `predict`.
        passes: how often a video is looked at, the first pass included.
        prompt: the template of the rows' prompts; one that states {duration} is filled in anew for each part.
        system: the system message of the rows' prompts.
        grammar_name: the answer grammar that spans are read with.
        max_new_tokens: limit of a completion.
        margin: see `zoom_window`.

    Returns:
        The predictions with `completion` and `predicted` of the answer that stands; with its `window` if it speaks of a
        part, whose clock the completion is on (`rlvtg.evaluation.predictions.reread`); and with `passes`, all answers
        in order, the first one and those that could not be used among them.

    Raises:
        DataError: the duration is stated by a prompt that was not made with `prompt` and `system`.
        VideoError: as decoding does.
    """
    config, parse = greedy(encoder, max_new_tokens), grammar(grammar_name).parse
    edges = [_edges(encoder, row) for row in rows]
    result = [_with_first_answer(prediction) for prediction in predictions]
    found = [zoom_window(_spans(one["predicted"]), bounds, margin) for one, bounds in zip(result, edges, strict=True)]
    shown = [(bounds[0], bounds[-1]) for bounds in edges]
    for _ in range(passes - 1):
        parts = {
            index: part
            for index, part in enumerate(found)
            if part is not None and part not in (shown[index], (edges[index][0], edges[index][-1]))
        }
        if not parts:
            break
        asked = {index: _part_row(rows[index], part, prompt, system) for index, part in parts.items()}
        inputs = [_part_inputs(encoder, rows[index], row) for index, row in asked.items()]
        texts = encoder.processor.batch_decode(rollout(model, inputs, config), skip_special_tokens=True)
        for (index, part), text in zip(parts.items(), texts, strict=True):
            spans = moved(parse(text, asked[index]["duration"]), part[0])
            answer: Answer = {"window": list(part), "completion": text, "predicted": [list(span) for span in spans]}
            one, shown[index], found[index] = result[index], part, zoom_window(spans, edges[index], margin)
            one["passes"].append(answer)
            if found[index] is not None:
                one["window"], one["completion"], one["predicted"] = list(part), text, answer["predicted"]
    return result


def _with_first_answer(prediction: Prediction) -> Prediction:
    first: Answer = {
        "window": [0.0, prediction["duration"]],
        "completion": prediction["completion"],
        "predicted": prediction["predicted"],
    }
    return {**prediction, "passes": [first]}


def _spans(pairs: Sequence[Sequence[float]]) -> list[Span]:
    return [(start, end) for start, end in pairs]


def _edges(encoder: Encoder, row: Mapping[str, Any]) -> list[float]:
    """The seconds at which the temporal patches of a row's video start, and its end."""
    return [0.0, *encoder.stamps(row)[1:], encoder.clip(row).duration]


def _part_row(row: Mapping[str, Any], part: Span, prompt: str, system: str | None) -> dict[str, Any]:
    """The row about a part of its video alone."""
    offset, duration = row.get("video_start") or 0.0, part[1] - part[0]
    whole, shorter = (messages({**row, "duration": seconds}, prompt, system) for seconds in (row["duration"], duration))
    states_duration = whole != shorter
    if states_duration and whole != row["prompt"]:
        raise DataError(
            f"row {row['id']!r} has a prompt of its own, and the recipe's states {{duration}}: it cannot be filled in "
            "for a part of the video; set evaluation.zoom to 0, or use a prompt without {duration}"
        )
    window = {"video_start": offset + part[0], "video_end": offset + part[1]}
    return {**row, **window, "duration": duration, "prompt": shorter if states_duration else row["prompt"]}


def _part_inputs(encoder: Encoder, row: Mapping[str, Any], part: Mapping[str, Any]) -> Inputs:
    """The inputs of a part of a row's video, for what the whole costs."""
    index = read_index(row["video"])
    frame_rate = float(len(index.pts) / index.duration)
    frames = len(encoder.clip(row).frames)
    return encoder(part, zoom_settings(encoder.settings, frames, part["duration"], frame_rate))
