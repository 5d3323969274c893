"""Evaluates checkpoints on test sets, model by model, and lays their numbers side by side."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from accelerate.utils import broadcast_object_list

from rlvtg.disk import write_whole
from rlvtg.evaluation.cross import Cell, cross, plain
from rlvtg.evaluation.evaluate import dtype, evaluate
from rlvtg.evaluation.jobs import Job
from rlvtg.evaluation.predictions import write_metrics
from rlvtg.model.family import family
from rlvtg.model.features import feature_cache
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_checkpoint, load_config, load_processor, plain_model
from rlvtg.model.vision import share_vision
from rlvtg.processes import join
from rlvtg.video.store import clip_store


def evaluate_all(jobs: Sequence[Job]) -> int:
    """Do all jobs, write cross.json and cross.md into their folder, print the table; returns the exit status 0.

    Raises RecipeError for a model that cannot be loaded, and for an evaluation whose folder holds another one.
    """
    state = join(jobs[0].recipe)
    shared = [list(jobs)]
    broadcast_object_list(shared)  # the first process has the rows
    cells: list[Cell] = []
    features = feature_cache(jobs[0].recipe)
    for path, group in groupby(shared[0], key=lambda job: job.model):
        several = list(group)
        recipe = several[0].recipe
        kind = family(load_config(plain_model(path)))
        encoder = Encoder(load_processor(path), kind, recipe.video, store=clip_store(recipe), features=features)
        model = load_checkpoint(path, dtype=dtype(recipe), attn_implementation=recipe.attn_implementation)
        model = model.to(state.device)
        share_vision(model, features)
        for job in several:
            metrics: dict[str, Any] = evaluate(job.recipe, model, encoder, job.rows, job.place, state, name=path)
            if state.is_main_process:
                cells.append(Cell(path, job.trained_on, job.data, metrics))
        del model, encoder
    if state.is_main_process:
        folder = jobs[0].folder
        write_metrics(folder / "cross.json", {"evaluations": [cell.record() for cell in cells]})
        write_whole(folder / "cross.md", cross(cells) + "\n")
        print(f"\n{plain(cells)}\n")
        print(f"predictions and metrics: {folder} (cross.md has the table, cross.json all numbers)")
    state.wait_for_everyone()
    return 0
