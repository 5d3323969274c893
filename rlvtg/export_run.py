"""`rlvtg export RUN`: what a run's stage or checkpoint holds becomes one folder for anybody to load.

A stage's result is copied as it is, or merged if a merged model is asked for and only an adapter is there; of a
checkpoint come the weights and the processor, and nothing that would have to be unpickled.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from peft import PeftModel
from transformers import GenerationConfig

from rlvtg.disk import whole_folder, writing
from rlvtg.evaluation.evaluate import METRICS, dtype
from rlvtg.export import ADAPTER, CARD, MERGED, adapter_of, base_and_rank, generation_config, join_earlier, write
from rlvtg.model.load import WEIGHTS, load_checkpoint, load_config, load_processor, plain_model, require_safetensors
from rlvtg.model_card import is_hub_id, model_card
from rlvtg.recipe import Recipe, RecipeError, written
from rlvtg.training.resume import PREFIX

# Of a folder with weights: what belongs to a model, a tokenizer or a processor. The rest is the trainer's.
SUFFIXES = (WEIGHTS, ".json", ".jinja", ".txt", ".model")
TRAINERS = ("trainer_state.json", "progress_", "done.json")


@dataclass(frozen=True)
class Exported:
    """A folder that was written, and what is in it.

    Args:
        folder: the folder.
        kind: `adapter` or `merged`.
        run: the run's folder.
        stage: the stage whose weights they are.
        recipe: the run's recipe.
    """

    folder: Path
    kind: str
    run: Path
    stage: str
    recipe: Recipe


def export_run(
    run: Path,
    *,
    kind: str | None = None,
    stage: str | None = None,
    checkpoint: str | None = None,
    output: Path | None = None,
) -> Exported:
    """Write one folder with what a stage or a checkpoint of a run holds; it appears whole.

    Args:
        run: the run's folder, with the working directory that it was trained in.
        kind: `adapter` or `merged`; None is the adapter if there is one for a model of the hub, else merged.
        stage: None is the last one.
        checkpoint: `STAGE/checkpoint-N` of the run, in the place of a stage's result.
        output: where; None is a folder below `RUN/export`, where an older one gives way.

    Raises:
        RecipeError: there is no such run, stage, checkpoint or kind, or `output` is there already.
        DiskError: the disk does not take it.
    """
    file = run / "recipe.yaml"
    if not file.is_file():
        raise RecipeError(f"{run} is not the folder of a run: it has no recipe.yaml")
    recipe = written(file)
    place, stage = _checkpoint(run, recipe, checkpoint) if checkpoint else _stage(run, recipe, stage)
    adapter, merged = (place, place) if checkpoint else (place / ADAPTER, place / MERGED)
    has_adapter, has_merged = (adapter / "adapter_config.json").is_file(), (merged / "config.json").is_file()
    base, rank = _base_and_rank(adapter) if has_adapter else ("", 0)
    if kind is None:
        kind = ADAPTER if has_adapter and is_hub_id(base) else MERGED
    if kind == ADAPTER and not has_adapter:
        raise RecipeError(
            f"--kind: got adapter, but {place} holds none; allowed: merged, or a --checkpoint of a stage with lora"
        )
    source = merged if kind == MERGED and has_merged else adapter
    target = output or run / "export" / "-".join([*place.relative_to(run).parts, kind])
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RecipeError(f"--output: {output} is there already; choose another folder, or remove it")
    card = model_card(recipe, stage, kind, {} if checkpoint else _metrics(run, recipe), base=base, rank=rank)
    require_safetensors(source)
    if kind == MERGED and (checkpoint or not has_merged):
        # of a checkpoint under ZeRO-2, whose names differ, too
        precision = "auto" if has_merged else dtype(recipe)
        with _loadable(source) as path:
            model = load_checkpoint(str(path), dtype=precision, attn_implementation=recipe.attn_implementation)
        model = model.merge_and_unload() if isinstance(model, PeftModel) else model
        write(model, load_processor(source), target, card)
    else:
        _copy(source, target, card)
    return Exported(target, kind, run, stage, recipe)


def push(exported: Exported, repository: str) -> str:
    """Upload an exported folder to a repository of the hub, which is made private if it is new; returns its address.

    The token is the one that huggingface_hub finds (HF_TOKEN, or `hf auth login`).

    Raises:
        RecipeError: the hub does not take it, or an adapter's base model is not on the hub.
    """
    if exported.kind == ADAPTER:
        base = plain_model(str(exported.folder))
        if not is_hub_id(base):
            raise RecipeError(
                f"--push: the adapter's base model {base} is a folder, which nobody else has; want --kind merged"
            )
    hub = HfApi()
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=exported.folder, commit_message=f"{exported.stage} by rlvtg")
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise RecipeError(f"--push: {repository}: {str(error).splitlines()[0]}") from error
    return f"{hub.endpoint}/{repository}"


def _stage(run: Path, recipe: Recipe, name: str | None) -> tuple[Path, str]:
    """The folder of a stage that is done, and its name."""
    name = list(recipe.stages)[-1] if name is None else name
    if name not in recipe.stages:
        raise RecipeError(f"--stage: got {name!r}, allowed: {', '.join(recipe.stages)}")
    if not (run / name / "done.json").is_file():
        raise RecipeError(f"--stage: {name} of {run} is not done; want resume=true, or one of its checkpoints")
    return run / name, name


def _checkpoint(run: Path, recipe: Recipe, name: str) -> tuple[Path, str]:
    """The folder of a checkpoint, and the name of its stage."""
    stage, place = Path(name).parts[0], run / name
    there = sorted(str(each.relative_to(run)) for key in recipe.stages for each in (run / key).rglob(f"{PREFIX}*"))
    if name not in there:
        raise RecipeError(f"--checkpoint: {run} has no {name}; there is {', '.join(there) or 'none'}")
    if not any(each.suffix == WEIGHTS for each in place.iterdir()) and (place / "zero_to_fp32.py").is_file():
        raise RecipeError(
            f"--checkpoint: {place} holds only what each rank had of the weights, in pickles; want "
            "zero3_save_16bit_model: true, as recipes/accelerate/zero3.yaml has it"
        )
    return place, stage


@contextmanager
def _loadable(source: Path) -> Iterator[Path]:
    """`source`, or for an adapter whose base model is gone a folder, for now, where it is joined to those before it."""
    config = source / "adapter_config.json"
    if config.is_file():
        base = str(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])
        if not Path(base).is_dir() and adapter_of(base) is not None:
            with TemporaryDirectory() as place:
                _copy(source, Path(place) / ADAPTER, "")
                yield Path(place) / ADAPTER
            return
    yield source


def _base_and_rank(adapter: Path) -> tuple[str, int]:
    """The model that an adapter will be for, and its rank, when it is joined to what was trained before it."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return base_and_rank(str(config["base_model_name_or_path"]), config["r"])


def _metrics(run: Path, recipe: Recipe) -> dict[str, Any]:
    """The metrics of the run's evaluations, as far as they were made."""
    files = {label: run / "evaluation" / label / METRICS for label in ("before", *recipe.stages)}
    return {label: json.loads(file.read_text(encoding="utf-8")) for label, file in files.items() if file.is_file()}


def _copy(source: Path, target: Path, card: str) -> None:
    with writing(target), whole_folder(target) as made:
        for file in sorted(source.iterdir()):
            if file.is_file() and file.suffix in SUFFIXES and not file.name.startswith(TRAINERS):
                shutil.copy2(file, made)
        join_earlier(made)
        base = plain_model(str(made))  # of an adapter, which is nothing without it
        if not (source / "generation_config.json").is_file() or source.name.startswith(PREFIX):
            own = GenerationConfig.from_pretrained(base)
            generation_config(load_config(base), own).save_pretrained(made)
        (made / CARD).write_text(card, encoding="utf-8")
