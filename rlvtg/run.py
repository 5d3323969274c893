"""A recipe's run: data, then the stages in order with an evaluation after each, then pictures and a table.

Everything lands in one folder:

    recipe.yaml             the resolved recipe
    bad_rows.<data>.jsonl   rows that were left out, with reasons
    <stage>/                checkpoints, logs, log_history.json, adapter/ and/or merged/, completions/ (GRPO);
                            difficulty.jsonl and selected.jsonl if rows are chosen (see evaluation/difficulty_pass.py)
    <stage>/round_<k>/      the same of each round, if the stage has several; its own log_history.json then holds all
                            rounds one after the other, and its adapter/ and merged/ are the last round's. The weights
                            of earlier rounds are gone: checkpoints once a round is done, merged/ once the next one is
    <stage>/validation/<step>/  with early_stopping, as below evaluation/; of a round: <stage>/round_<k>/validation/
    evaluation/<label>/     predictions.jsonl, metrics.json and what they were made from (see evaluation/evaluate.py);
                            labels are `before` and the stages' names
    metrics.json            the evaluations side by side
    pictures/               learning curves, filmstrips

Whatever is written appears whole or not at all, so that a run that was killed at any moment, or found the disk full,
goes on with `resume=true` and ends with the weights and numbers of one that was not.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from rlvtg import plan
from rlvtg.cost.shapes import shape_of
from rlvtg.data.row import first_of_each_task
from rlvtg.data.selected import Choice
from rlvtg.disk import DiskError, remove, write_whole, writing
from rlvtg.doctor import require_parity
from rlvtg.evaluation.difficulty_pass import rows_before, rows_of_round
from rlvtg.evaluation.evaluate import dtype, evaluate
from rlvtg.evaluation.metrics import best_constant, constant_predictions, ious, score
from rlvtg.evaluation.predictions import Prediction, read_predictions, write_metrics
from rlvtg.evaluation.protocol import chosen
from rlvtg.export import ADAPTER, MERGED, base_and_rank, export
from rlvtg.model import tiny as tiny_model
from rlvtg.model.family import family
from rlvtg.model.features import feature_cache
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_config, load_model, load_processor
from rlvtg.model.vision import share_vision
from rlvtg.model_card import model_card
from rlvtg.prepare import Prepared, Rows, follow
from rlvtg.processes import join, require_same, require_shared
from rlvtg.recipe import (
    GrpoStage,
    Recipe,
    RecipeError,
    SftStage,
    is_made,
    require_seconds,
    validation_prompt,
)
from rlvtg.training.curriculum import by_difficulty
from rlvtg.training.early_stop import StoppingTrainer
from rlvtg.training.engine_rollout import require_servers
from rlvtg.training.grpo import grpo_trainer
from rlvtg.training.progress import Progress
from rlvtg.training.resume import checkpoints, last_checkpoint
from rlvtg.training.setup import generating
from rlvtg.training.sft import sft_trainer
from rlvtg.video.store import clip_store

BEFORE = "before"


def run(recipe: Recipe, prepared: Prepared | None) -> int:
    """Run every stage of `recipe` that the run folder does not hold yet; returns the exit status 0.

    Args:
        recipe: the recipe.
        prepared: what `prepare` returned in the main process; None in the others.

    Raises:
        DiskError: something could not be written; it says how to go on.
    """
    started = time.monotonic()
    state = join(recipe)
    if recipe.tiny is not None and is_made(recipe, recipe.model) and state.is_main_process:
        tiny_model.make(recipe.model, seed=recipe.tiny.seed, family=recipe.family)
    prepared = _share(recipe, prepared, state)
    folder = prepared.folder
    with _telling_how_to_go_on(recipe, folder):
        # an unsupported model is refused before its processor is read
        config = load_config(recipe.model)
        kind = family(config, recipe.family)
        require_seconds(recipe, kind.name)
        if state.is_main_process and (said := _too_large(recipe, config, state)) is not None:
            print(f"warning: {said}", file=sys.stderr)
        require_servers(recipe, [stage for name, stage in recipe.stages.items() if not _done(folder / name)])
        encoder = Encoder(
            load_processor(recipe.model), kind, recipe.video, store=clip_store(recipe), features=feature_cache(recipe)
        )
        if recipe.evaluation.before and not _done(folder / "evaluation" / BEFORE):
            model = _loaded(recipe, recipe.model, encoder, state)
            place = folder / "evaluation" / BEFORE
            with writing(place):
                evaluate(recipe, model, encoder, prepared.test_rows, place, state, name=recipe.model, replace=True)
            del model
        path = recipe.model
        for name in recipe.stages:
            if not _done(folder / name):
                _run_stage(recipe, name, prepared, path, encoder, state)
            _let_go(folder / name, recipe.stages[name].rounds, state)
            path = str(folder / name / MERGED)
        if state.is_main_process:
            finish(recipe, prepared, encoder, seconds=time.monotonic() - started)
    state.wait_for_everyone()
    return 0


def _too_large(recipe: Recipe, config: PreTrainedConfig, state: PartialState) -> str | None:
    """The plan's sentence where the recipe cannot fit the GPUs that it runs on; None where it can, and on the CPU."""
    if state.device.type != "cuda":
        return None
    size = torch.cuda.get_device_properties(state.device).total_memory / plan.GIB
    zero = int(
        os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "0")
    )  # set by `accelerate launch`, for DeepSpeed alone
    try:
        return plan.warning(recipe, plan.Machine(state.num_processes, size, zero), shape_of(config.to_dict()))
    except RecipeError as error:  # a plan that cannot be made is no reason not to run
        return f"whether the recipe fits is not known: {error}"


@contextmanager
def _telling_how_to_go_on(recipe: Recipe, folder: Path) -> Iterator[None]:
    """A disk that refuses a write ends the run with one sentence: what, why, what is whole, and how to go on."""
    try:
        with writing(folder):
            yield
    except DiskError as error:
        print(file=sys.stderr)  # ends the line of a progress bar
        running = next((name for name in recipe.stages if not _done(folder / name)), None)
        places = [] if running is None else _places(folder / running, recipe.stages[running].rounds)
        last = next((path for place in reversed(places) if (path := last_checkpoint(place)) is not None), None)
        kept = "what was done before is kept" if last is None else f"the last whole checkpoint is {last}"
        raise DiskError(
            f"{error}; {kept}; make room, then go on with recipe={folder / 'recipe.yaml'} resume=true"
        ) from error


def _places(folder: Path, rounds: int) -> list[Path]:
    """Where the rounds of a stage stand."""
    return [folder] if rounds == 1 else [folder / f"round_{k}" for k in range(1, rounds + 1)]


def _share(recipe: Recipe, prepared: Prepared | None, state: PartialState) -> Prepared:
    """What the main process has prepared; the others wait for it here, then read the same, which is made sure of."""
    shared = [None if prepared is None else str(prepared.folder)]
    broadcast_object_list(shared)
    folder = Path(str(shared[0]))
    require_shared(folder, state)
    mine = prepared if prepared is not None else follow(recipe, folder)
    # processes with other rows would wait for each other for ever, or train on something else than the log says
    rows = json.dumps([mine.stage_rows, mine.validation_rows, mine.test_rows])
    require_same(hashlib.blake2b(rows.encode(), digest_size=16).hexdigest(), "rows", state)
    return mine


def _loaded(recipe: Recipe, path: str, encoder: Encoder, state: PartialState) -> PreTrainedModel:
    """The model at `path`, to be asked and not to be trained: whole in every process, also after a ZeRO-3 stage."""
    unset_hf_deepspeed_config()  # which a stage that has ended may have left behind, and which splits what is loaded
    model = load_model(path, dtype=dtype(recipe), attn_implementation=recipe.attn_implementation).to(state.device)
    share_vision(model, encoder.features)
    return model


def _run_stage(recipe: Recipe, name: str, prepared: Prepared, path: str, encoder: Encoder, state: PartialState) -> None:
    """Train a stage from the model at `path`, round by round: each starts from the weights of the round before, with a
    learning-rate schedule of its own, and chooses its rows from those of the round before. Evaluate it at the end."""
    stage, folder = recipe.stages[name], prepared.folder / name
    rows: Rows = prepared.stage_rows[name]
    places = _places(folder, stage.rounds)
    for number, place in enumerate(places, start=1):
        is_last = number == stage.rounds
        if _done(place) and not is_last:
            rows = rows_before(place, rows)
        else:
            load = partial(_loaded, recipe, path, encoder, state)
            choice = rows_of_round(recipe, name, number, rows, place, load, encoder, state)
            rows = choice.rows
            trainer = _trainer(recipe, name, prepared, choice, path, encoder, place, state)
            with generating(trainer) as model:
                for row in first_of_each_task(rows):
                    require_parity(model, encoder, row)
            _train(trainer, recipe, place)
            if is_last:
                _join_histories(places, folder, state)
                _finish(trainer, recipe, name, prepared, path, encoder, state)
            else:
                _hand_on(trainer, stage, place, encoder, state)
            del trainer
        _let_go(folder, stage.rounds, state)
        path = str(place / MERGED)


def _trainer(
    recipe: Recipe,
    name: str,
    prepared: Prepared,
    choice: Choice,
    path: str,
    encoder: Encoder,
    place: Path,
    state: PartialState,
) -> StoppingTrainer:
    """The trainer of a stage, or of a round of it, on the chosen rows, for the model at `path`."""
    stage = recipe.stages[name]
    trainer: StoppingTrainer
    if isinstance(stage, SftStage):
        trainer = sft_trainer(recipe, stage, choice.rows, path, encoder, str(place))
    else:
        ious = [one.mean for one in choice.reached] if choice.reached else [0.0] * len(choice.rows)
        order = by_difficulty(stage.curriculum, ious) if stage.curriculum else None
        rewards = prepared.stage_rewards[name]
        trainer = grpo_trainer(recipe, stage, choice.rows, rewards, path, encoder, str(place), order)
        if stage.plateau is not None:
            trainer.watch_plateau(stage.plateau)
    if stage.early_stopping is not None:
        prompt = validation_prompt(recipe, stage)
        validation = replace(recipe.evaluation, data=stage.early_stopping.data, prompt=prompt)
        settings = replace(recipe, evaluation=validation)

        def validate(step: int) -> dict[str, float]:
            tested, rows = place / "validation" / str(step), prepared.validation_rows[name]
            with generating(trainer) as model, writing(tested):
                metrics = evaluate(settings, model, encoder, rows, tested, state, name=str(place), replace=True)
            shared = [{key: value for key, value in metrics.items() if key != "protocol"}]
            broadcast_object_list(shared)  # the main process has them
            return shared[0]

        trainer.watch_validation(stage.early_stopping, validate)
    label = place.relative_to(prepared.folder).as_posix()
    trainer.args.run_name = f"{recipe.name}/{label}"
    Progress.install(trainer, title=label)
    return trainer


def _train(trainer: StoppingTrainer, recipe: Recipe, place: Path) -> None:
    """Train, from the last checkpoint when the run is resumed; then take the weights that are to be kept."""
    with writing(place):
        trainer.train(last_checkpoint(place) if recipe.resume else None)
    if trainer.accelerator.is_main_process:
        history = {"cpu_seconds": trainer.cpu_seconds, "log": trainer.state.log_history}
        with writing(place / "log_history.json"):
            write_whole(place / "log_history.json", json.dumps(history))
        if "wandb" in recipe.report_to:
            import wandb  # an extra

            wandb.finish()  # every stage is a run of its own, under its own name
    trainer.take_best()


def _hand_on(
    trainer: StoppingTrainer, stage: SftStage | GrpoStage, place: Path, encoder: Encoder, state: PartialState
) -> None:
    """Leave the weights of a round for the next one, then mark the round as done."""
    with generating(trainer) as model:
        if state.is_main_process:
            export(model, encoder.processor, place, [ADAPTER, MERGED] if stage.lora else [MERGED])
            write_whole(place / "done.json", "{}\n")
    state.wait_for_everyone()


def _let_go(folder: Path, rounds: int, state: PartialState) -> None:
    """Remove the weights of rounds that nothing will start from any more: the checkpoints of those that are done, and
    what they left for the next one when that is done too. A kill in between leaves the rest for the next call. The last
    round's checkpoints stay, and with them the adapter that they add to."""
    if not state.is_main_process:
        return
    places = _places(folder, rounds)
    for place, following in pairwise(places):
        if _done(place):
            for checkpoint in checkpoints(place):
                remove(checkpoint)
        if _done(following) or _done(folder):
            remove(place / MERGED)
            if following != places[-1]:
                remove(place / ADAPTER)


def _join_histories(places: Sequence[Path], folder: Path, state: PartialState) -> None:
    """The log of a stage of several rounds: theirs one after the other, their steps counted on."""
    if not state.is_main_process or len(places) == 1:
        return
    log: list[dict[str, Any]] = []
    seconds, done = 0.0, 0
    for place in places:
        history = json.loads((place / "log_history.json").read_text(encoding="utf-8"))
        log += [{**entry, "step": entry["step"] + done} for entry in history["log"]]
        seconds, done = seconds + history["cpu_seconds"], log[-1]["step"]
    write_whole(folder / "log_history.json", json.dumps({"cpu_seconds": seconds, "log": log}))


def _finish(
    trainer: StoppingTrainer,
    recipe: Recipe,
    name: str,
    prepared: Prepared,
    path: str,
    encoder: Encoder,
    state: PartialState,
) -> None:
    """Evaluate and export what a stage has trained from the model at `path`, then mark the stage as done."""
    stage, place = recipe.stages[name], prepared.folder / name
    with generating(trainer) as model:
        tested = prepared.folder / "evaluation" / name
        with writing(tested):
            evaluate(recipe, model, encoder, prepared.test_rows, tested, state, name=str(place), replace=True)
        if state.is_main_process:
            kinds = stage.export or ([ADAPTER] if stage.lora else [MERGED])
            is_last = name == list(recipe.stages)[-1]
            # the next stage starts from plain weights, and takes these for its reference
            found = {
                label: json.loads(file.read_text(encoding="utf-8"))
                for label in (BEFORE, *recipe.stages)
                if (file := prepared.folder / "evaluation" / label / "metrics.json").is_file()
            }
            base, rank = base_and_rank(path, stage.lora.r) if stage.lora else (path, 0)
            cards = {kind: model_card(recipe, name, kind, found, base=base, rank=rank) for kind in (ADAPTER, MERGED)}
            export(model, encoder.processor, place, kinds if is_last else sorted({*kinds, MERGED}), cards)
            write_whole(place / "done.json", "{}\n")
    state.wait_for_everyone()


def _done(place: Path) -> bool:
    return (place / "done.json").exists() or (place / "metrics.json").exists()


def finish(recipe: Recipe, prepared: Prepared, encoder: Encoder, *, seconds: float) -> None:
    """Side-by-side metrics, pictures, and the closing words of a run."""
    from rlvtg.evaluation.report import table  # loads matplotlib, which every process would wait for at the start

    folder = prepared.folder
    labels = ([BEFORE] if recipe.evaluation.before else []) + list(recipe.stages)
    results = {label: json.loads((folder / "evaluation" / label / "metrics.json").read_text()) for label in labels}
    last = read_predictions(folder / "evaluation" / labels[-1] / "predictions.jsonl")
    trained_on = _grounding(recipe.stages[labels[-1]], prepared.stage_rows[labels[-1]])
    answer = None
    if trained_on:
        constant = best_constant([((row["spans"][0][0], row["spans"][0][1]), row["duration"]) for row in trained_on])
        answer = f"always {constant[0]:g} to {constant[1]:g}"
        results[answer] = score(constant_predictions(last, constant), chosen(recipe.evaluation))
    write_metrics(folder / "metrics.json", results)
    pictures = _draw(recipe, folder, last, encoder, prepared.test_rows)
    print(f"\n{table(results)}\n")
    if answer is not None:
        of = f"the annotations of stage {labels[-1]}"
        print(f"{answer}: the best constant answer on {of}, scored on the same queries")
    print(f"run folder: {folder} ({seconds / 60:.1f} minutes)")
    print(f"pictures:   {pictures[0]} and {len(pictures) - 1} filmstrips beside it")
    print("next:")
    print(f"  tensorboard --logdir {folder}")
    print(f"  accelerate launch rlvtg/train.py recipe={folder / 'recipe.yaml'} output_dir=runs/mine key=value ...")
    print(f"  ls {_exported(folder, labels[-1])}   # load it with from_pretrained: see the README")


def _grounding(stage: SftStage | GrpoStage, rows: Rows) -> Rows:
    """The rows that have spans to be found in their videos; an inverse task's video is the span."""
    tasks = stage.tasks if isinstance(stage, GrpoStage) else {}
    inverse = {key for key, task in tasks.items() if task.inverse is not None}
    return [row for row in rows if row["spans"] and row["task"] not in inverse]


def _exported(folder: Path, stage: str) -> Path:
    """What the last stage exported; a merged model first."""
    return next(place for place in (folder / stage / MERGED, folder / stage / ADAPTER) if place.is_dir())


def _draw(
    recipe: Recipe, folder: Path, predictions: Sequence[Prediction], encoder: Encoder, test_rows: Rows
) -> list[Path]:
    """Learning curves of the stages, and filmstrips of test videos spread over the range of IoU, best to worst."""
    from rlvtg.evaluation.report import filmstrip, learning_curves, spread

    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    histories = {name: json.loads((folder / name / "log_history.json").read_text())["log"] for name in recipe.stages}
    drawn = [pictures / "learning_curves.png"]
    learning_curves(histories, drawn[0])
    reached = ious(predictions, chosen(recipe.evaluation))
    for number, index in enumerate(spread(reached, recipe.evaluation.pictures)):
        prediction, clip = predictions[index], encoder.clip(test_rows[index])
        drawn.append(pictures / f"filmstrip_{number + 1}.png")
        filmstrip(
            clip.frames,
            clip.timestamps,
            prediction["duration"],
            prediction["spans"],
            prediction["predicted"],
            f"{prediction['query']} (IoU {reached[index] or 0.0:.2f})",
            drawn[-1],
        )
    return drawn
