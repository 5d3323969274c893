"""Which rows a stage trains on: the model that is about to be trained answers them first, and some are selected.

In the folder of the stage, or of a round of it:

    difficulty/         what the model answered: predictions.jsonl, and what it was made from (see evaluate.py)
    difficulty.jsonl    the IoUs of its answers to each row, and a first line that says that a higher one is easier
    selected.jsonl      the rows that are trained on, in order, with the chance of each to be drawn first

A pass that was killed goes on where it stopped. The IoU is that of the recipe's own grammar, unrounded and over all
rows, whatever protocol the evaluation goes by: a published protocol may read answers in another way than training does.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel

from rlvtg.data.annotation import label, lined_rows
from rlvtg.data.difficulty import EASIER, Reached, of_rows, read_difficulty
from rlvtg.data.sample import DataError
from rlvtg.data.selected import Choice, choose_for_round
from rlvtg.disk import write_whole
from rlvtg.evaluation.evaluate import gathered, made_from
from rlvtg.evaluation.predict import predict
from rlvtg.evaluation.predictions import Prediction
from rlvtg.evaluation.protocol import answer_iou, protocol
from rlvtg.model.inputs import Encoder
from rlvtg.recipe import Difficulty, GrpoStage, Recipe, tasks_of
from rlvtg.text.span_set import is_usable, set_iou

DIFFICULTY, SELECTED = "difficulty.jsonl", "selected.jsonl"

Rows = list[dict[str, Any]]


def rows_of_round(
    recipe: Recipe,
    name: str,
    number: int,
    rows: Rows,
    place: Path,
    load: Callable[[], PreTrainedModel],
    encoder: Encoder,
    state: PartialState,
) -> Choice:
    """The rows that round `number` of a stage trains on (see `choose_for_round`); `place` gets what they come from.

    Args:
        recipe: the recipe.
        name: the stage's.
        number: of the round, from 1. In the first one, a `difficulty.file` answers in place of the model.
        rows: what the round may choose from: the stage's rows, or those of the round before.
        place: the folder of the round.
        load: the model that the round starts from, on its device; called if it is asked anything.
        encoder: of the model and the recipe's video settings.
        state: of this process; all processes share `place`.

    Raises:
        DataError: as `choose_for_round` says; a file that lacks rows; a row to be asked about without annotated spans.
    """
    stage = recipe.stages[name]
    difficulty = stage.difficulty if isinstance(stage, GrpoStage) else None

    def ask(asked: Sequence[dict[str, Any]]) -> list[Reached]:
        if difficulty is None or not isinstance(stage, GrpoStage):
            raise DataError(f"stages.{name}: got rows to be selected by IoUs, want stages.{name}.difficulty")
        if difficulty.file is not None and number == 1:
            return of_rows(read_difficulty(difficulty.file, difficulty.format), asked, difficulty.file)
        limit = difficulty.max_new_tokens or stage.max_completion_length
        return difficulty_pass(recipe, difficulty, limit, asked, place, load(), encoder, state, name=name)

    choice = choose_for_round(recipe, name, number, rows, ask, state.num_processes)
    if state.is_main_process and (choice.reached is not None or len(choice.rows) < len(rows)):
        _write_selected(place / SELECTED, choice)
        print(f"{name}: {'' if number == 1 else f'round {number}, '}trains on {choice.said}", flush=True)
    state.wait_for_everyone()
    return choice


def difficulty_pass(
    recipe: Recipe,
    difficulty: Difficulty,
    max_new_tokens: int,
    rows: Sequence[Mapping[str, Any]],
    place: Path,
    model: PreTrainedModel,
    encoder: Encoder,
    state: PartialState,
    *,
    name: str,
) -> list[Reached]:
    """What the answers of `model` to each of `rows` reach, in every process; written to `place`.

    Rows are dealt out over the processes. Greedy answers are those of an evaluation of the same weights with the same
    `evaluation.batch_size`, which is here the number of answers that a device writes at once. Sampled answers are the
    same for the same seed, batches and weights, however often the pass was killed.

    Raises:
        DataError: a row has no annotated span.
    """
    bare = next((row["id"] for row in rows if not row["spans"]), None)
    if bare is not None:
        raise DataError(f"stages.{name}.difficulty: row {bare!r} has no annotated span, so that no answer has an IoU")
    answers = difficulty.num_generations
    source = made_from(recipe, model, rows, model.name_or_path) | {
        "data": recipe.data[recipe.stages[name].data].annotations,
        "prompt": tasks_of(recipe, recipe.stages[name])[None].prompt,
        "decoding": "greedy" if answers == 1 else "sampled",
        "num_generations": answers,
        "temperature": None if answers == 1 else difficulty.temperature,
        "seed": None if answers == 1 else recipe.seed,
        "zoom": None,
        "max_new_tokens": max_new_tokens,
    }

    def predictions(batches: list[list[Mapping[str, Any]]]) -> Iterator[list[Prediction]]:
        return predict(
            model,
            encoder,
            batches,
            grammar_name=recipe.grammar,
            max_new_tokens=max_new_tokens,
            num_generations=answers,
            temperature=source["temperature"],
            seed=recipe.seed,
            title=f"how hard are the rows ({name})",
            quiet=not state.is_main_process,
        )

    size = max(1, recipe.evaluation.batch_size // answers)
    made = gathered(
        predictions, rows, place / "difficulty", state, source, size,
        grammar_name=recipe.grammar, answers=answers, replace=True,
    )  # fmt: skip
    ious = [answer_score(prediction, difficulty.score) for prediction in made]
    reached = [Reached(row["id"], tuple(ious[k * answers : (k + 1) * answers])) for k, row in enumerate(rows)]
    if state.is_main_process:
        write_difficulty(place / DIFFICULTY, reached, {"score": difficulty.score, **source})
    return reached


def answer_score(prediction: Prediction, score: str) -> float:
    """The IoU in [0, 1] of one answer; 0.0 if no span was read.

    With `score` first, of the first predicted span with the best of the true ones, as the protocol `rlvtg` has it; with
    set, of all predicted with all true spans, as the reward `multi_span_tiou` has it.
    """
    predicted = [(start, end) for start, end in prediction["predicted"]]
    true = [(start, end) for start, end in prediction["spans"]]
    if score == "set":
        return set_iou(predicted, true) if is_usable(predicted) else 0.0
    return answer_iou(predicted, true, protocol("rlvtg")) or 0.0


def write_difficulty(path: Path, reached: Sequence[Reached], source: Mapping[str, Any]) -> None:
    """Write a difficulty.jsonl, whole or not at all; `source` is what the numbers stand on, for its first line."""
    head = {"easier": EASIER, "about": "IoUs in [0, 1] of a model's answers; a higher one is an easier row", **source}
    lines = [head, *({"id": one.id, "ious": one.ious, "mean": one.mean, "std": one.std} for one in reached)]
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))


def _write_selected(path: Path, choice: Choice) -> None:
    lines = [
        {
            "id": row["id"],
            "order": k,
            "iou": choice.reached[k].mean if choice.reached else None,
            "std": choice.reached[k].std if choice.reached else None,
            "probability": choice.probabilities[k] if choice.probabilities else None,
        }
        for k, row in enumerate(choice.rows)
    ]
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))


def rows_before(place: Path, rows: Rows) -> Rows:
    """Those of `rows` that a round that is done, in `place`, was trained on; all if it selected none."""
    if not (place / SELECTED).exists():
        return rows
    known = {row["id"]: row for row in rows}
    ids = [label(line, "id", where) for where, line in lined_rows(str(place / SELECTED))]
    gone = [one for one in ids if one not in known]
    if gone:
        raise DataError(f"{place / SELECTED}: {len(gone)} of {len(ids)} rows are not in the data, such as {gone[0]!r}")
    return [known[one] for one in ids]
