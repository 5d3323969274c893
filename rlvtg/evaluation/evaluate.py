"""One model on one test set: a folder with its predictions, its metrics, and what they were made from.

    made_from.json             what decides the predictions: weights, rows, prompt, video settings, length limit
    predictions.<rank>.jsonl   what a process has predicted so far; gone when the evaluation is complete
    predictions.jsonl          all predictions, in the order of the rows
    metrics.json               their numbers, with the protocol: the rules of scoring and what was asked of the model

An evaluation that was killed goes on where it stopped if it is made from the same; the batch size and the number of
processes may be others.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import PreTrainedModel

from rlvtg.evaluation.metrics import score
from rlvtg.evaluation.predictions import Prediction, check_prediction, reread, write_metrics, write_predictions
from rlvtg.evaluation.protocol import chosen, described
from rlvtg.evaluation.zoom import MARGIN, predict_zoomed
from rlvtg.model.inputs import Encoder
from rlvtg.recipe import Recipe, RecipeError, evaluation_prompt
from rlvtg.text.grammar import grammar

MADE_FROM, PREDICTIONS, METRICS = "made_from.json", "predictions.jsonl", "metrics.json"
# Names of what was evaluated; what they stand for is in the digests of weights and rows.
_NAMES = ("model", "data", "grammar")
# What the model is shown of a video; the other settings say when a file is given up.
_VIDEO = (
    "fps", "min_frames", "max_frames", "min_pixels", "max_pixels", "total_pixels", "sampling", "time", "time_format",
)  # fmt: skip
# Columns that a prompt's inputs and its prediction come from.
_COLUMNS = ("id", "video", "query", "duration", "spans", "prompt", "video_start", "video_end")
# Values of each weight that go into the digest: a training step moves them all.
_PROBES = 64

Rows = Sequence[Mapping[str, Any]]
Predict = Callable[[list[list[Mapping[str, Any]]]], Iterator[list[Prediction]]]
"""Batches of rows -> the predictions of each batch, one or more for each row, those of a row together."""


def evaluate(
    recipe: Recipe,
    model: PreTrainedModel,
    encoder: Encoder,
    rows: Rows,
    place: Path,
    state: PartialState,
    *,
    name: str,
    replace: bool = False,
) -> dict[str, Any]:
    """Greedy predictions on `rows`, dealt out over the processes, and their metrics, written to `place`.

    Args:
        recipe: prompt, video settings and the `evaluation` section.
        model: the model, on its device.
        encoder: of the model and the recipe's video settings.
        rows: the test rows.
        place: the evaluation's folder.
        state: of this process; all processes share `place`.
        name: what the model is called.
        replace: whether predictions that `place` holds of another model, other rows or settings give way.

    Returns:
        What metrics.json holds, in the main process; {} in the others.

    Raises:
        RecipeError: `place` holds a complete evaluation that was made from something else.
    """
    settings, rules = recipe.evaluation, chosen(recipe.evaluation)
    source = made_from(recipe, model, rows, name)

    def predictions(batches: list[list[Mapping[str, Any]]]) -> Iterator[list[Prediction]]:
        return predict_zoomed(
            model,
            encoder,
            batches,
            passes=settings.zoom,
            prompt=evaluation_prompt(recipe),
            system=recipe.system,
            grammar_name=recipe.grammar,
            max_new_tokens=settings.max_new_tokens,
            title=f"evaluating ({place.name})",
            quiet=not state.is_main_process,
        )

    ordered = gathered(
        predictions, rows, place, state, source, settings.batch_size, grammar_name=recipe.grammar, replace=replace
    )
    if not state.is_main_process:
        return {}
    metrics = score(ordered, rules) | {"protocol": described(rules, source)}
    write_metrics(place / METRICS, metrics)
    return metrics


def gathered(
    predict: Predict,
    rows: Rows,
    place: Path,
    state: PartialState,
    source: Mapping[str, Any],
    batch_size: int,
    *,
    grammar_name: str,
    answers: int = 1,
    replace: bool = False,
) -> list[Prediction]:
    """The predictions of all processes, in the order of the rows, written to `place`; a killed call is gone on with.

    Args:
        predict: makes the predictions of the batches that are this process's.
        rows: R rows.
        place: the folder, which all processes share.
        state: of this process.
        source: what decides the predictions; what `place` holds is used if it was made from the same.
        batch_size: rows per device.
        grammar_name: reads the predictions that are kept.
        answers: A, predictions of each row.
        replace: whether a complete evaluation that was made from something else gives way.

    Returns:
        R * A predictions, in every process.

    Raises:
        RecipeError: `place` holds a complete evaluation that was made from something else.
    """
    same = _is_same(place, source, replace)
    kept = _kept(place, rows, grammar_name, answers) if same else {}
    state.wait_for_everyone()  # every process has read before one writes
    if state.is_main_process:
        if not same:
            _clear(place)
        write_metrics(place / MADE_FROM, source)
    state.wait_for_everyone()
    size = min(batch_size, math.ceil(len(rows) / state.num_processes))
    # Whole batches are made again, so that a row stands in the same company however often the evaluation was killed.
    batches = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
    places = {batch: [row * answers + answer for row in batch for answer in range(answers)] for batch in batches}
    mine = [batch for batch in batches if not kept.keys() >= set(places[batch])]
    mine = mine[state.process_index :: state.num_processes]
    made: dict[int, Prediction] = {}
    path = place / f"predictions.{state.process_index}.jsonl"
    _cut(path)
    with open(path, "a", encoding="utf-8") as part:
        predictions = predict([[rows[row] for row in batch] for batch in mine])
        for batch, several in zip(mine, predictions, strict=True):
            new = {index: one for index, one in zip(places[batch], several, strict=True) if index not in kept}
            part.writelines(json.dumps({"row": index, **one}) + "\n" for index, one in new.items())
            part.flush()
            made |= new
    everything = kept | dict(gather_object(list(made.items())))
    ordered = [everything[index] for index in range(len(rows) * answers)]
    if state.is_main_process:
        write_predictions(place / PREDICTIONS, ordered)
        for part_path in _parts(place):
            part_path.unlink()
    return ordered


def dtype(recipe: Recipe) -> torch.dtype:
    """In which precision a recipe's models are evaluated."""
    return torch.bfloat16 if recipe.bf16 else torch.float32


def weights_digest(model: torch.nn.Module) -> str:
    """A digest of the names, shapes and evenly spaced values of a model's weights, the same on every device."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        probes = flat[:: max(1, flat.numel() // _PROBES)][:_PROBES].float().cpu()
        digest.update(f"{name} {tuple(weight.shape)} ".encode())
        digest.update(probes.numpy().tobytes())
    return digest.hexdigest()


def made_from(recipe: Recipe, model: PreTrainedModel, rows: Rows, name: str) -> dict[str, Any]:
    """What decides the evaluation of a model, which is called `name`, on `rows`."""
    columns = [[row.get(column) for column in _COLUMNS] for row in rows]
    return {
        "model": name,
        "weights": weights_digest(model),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "data": recipe.data[recipe.evaluation.data].annotations,
        "rows": hashlib.blake2b(json.dumps(columns).encode(), digest_size=16).hexdigest(),
        "prompt": evaluation_prompt(recipe),
        "system": recipe.system,
        "grammar": recipe.grammar,
        **{name: getattr(recipe.video, name) for name in _VIDEO},
        "decoding": "greedy",
        "zoom": _zoom(recipe),
        "max_new_tokens": recipe.evaluation.max_new_tokens,
    }


def _zoom(recipe: Recipe) -> dict[str, Any] | None:
    """How often a video is looked at, if more than once, and what decides where: the margin, and the grammar."""
    passes = recipe.evaluation.zoom
    return {"passes": passes, "margin": MARGIN, "grammar": recipe.grammar} if passes > 1 else None


def _is_same(place: Path, source: Mapping[str, Any], replace: bool) -> bool:
    """Whether what `place` holds can be used; RecipeError if it may not be replaced either."""
    written = place / MADE_FROM
    before = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    other = [key for key in source if key not in _NAMES and before.get(key) != source[key]]
    if other and (place / METRICS).exists() and not replace:
        raise RecipeError(
            f"{place} holds an evaluation with another {', '.join(other)}; choose another output, or remove that one"
        )
    return not other


def _kept(place: Path, rows: Rows, grammar_name: str, answers: int) -> dict[int, Prediction]:
    """The predictions that `place` holds by their number, `answers` for each row, their completions read anew.

    A line that is not whole was cut by the kill; its row is predicted again.
    """
    found: dict[int, Prediction] = {}
    read = grammar(grammar_name)
    for path in [place / PREDICTIONS, *_parts(place)]:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        for number, line in enumerate(lines):
            try:
                kept = json.loads(line)
                index = kept.pop("row", number)
                prediction = check_prediction(kept, str(path))
                spans = reread(prediction, read)
            except (ValueError, TypeError, AttributeError):
                continue
            if 0 <= index < len(rows) * answers and rows[index // answers]["id"] == prediction["id"]:
                found[index] = {**prediction, "predicted": [list(span) for span in spans]}
    return found


def _cut(path: Path) -> None:
    """Drop what stands behind the last whole line, so that the next one starts on its own."""
    if path.exists():
        whole = path.read_bytes()
        with open(path, "r+b") as file:
            file.truncate(whole.rfind(b"\n") + 1)


def _clear(place: Path) -> None:
    for path in (place / METRICS, place / PREDICTIONS, *_parts(place)):
        path.unlink(missing_ok=True)


def _parts(place: Path) -> list[Path]:
    return sorted(place.glob("predictions.*.jsonl"))
