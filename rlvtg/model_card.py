"""The model card of an export: base model, recipe, data, rewards, what the model is shown, metrics with their protocol.

It is written from the recipe and the evaluation's metrics alone, and names no folder of the machine.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from rlvtg.recipe import GrpoStage, Recipe, SftStage, dump, is_made, tasks_of

LIBRARIES = ("transformers", "trl", "peft", "torch")
FENCE = "~~~~"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Of adapters, that vLLM makes room for."""
# Settings of a stage that its line does not tell elsewhere, in the order in which they are told.
# fmt: off
TOLD = (
    "learning_rate", "lr_scheduler_type", "num_generations", "beta", "loss_type", "scale_rewards", "epsilon",
    "epsilon_high", "num_iterations", "temperature", "max_completion_length", "rounds",
)
# fmt: on


def model_card(
    recipe: Recipe, stage: str, kind: str, metrics: Mapping[str, Mapping[str, Any]], *, base: str = "", rank: int = 0
) -> str:
    """The README.md of what a stage exported.

    Args:
        recipe: of the run.
        stage: the stage's name; what came before it is told, and what came after it is not.
        kind: `adapter` or `merged`.
        metrics: metrics.json of each evaluation by its label (`before`, stages); what was not evaluated is not there.
        base: of an adapter, the model that it is for.
        rank: of an adapter.
    """
    stages = list(recipe.stages)[: list(recipe.stages).index(stage) + 1]
    parts = [
        _front(recipe, recipe.stages[stage], kind, base),
        f"# {recipe.name}: {stage}\n",
        _what(recipe, stages, kind, base),
        "## Training\n",
        *(_stage(recipe, name, number) for number, name in enumerate(stages, start=1)),
        _prompt(recipe),
        "## What the model is shown\n",
        _video(recipe),
        "## Evaluation\n",
        _evaluation(stages, metrics),
        "## Use\n",
        _use(kind, base, rank),
        "## Recipe\n",
        f"As the run resolved it; folders are left out.\n\n{FENCE}yaml\n{dump(_without_folders(recipe))}{FENCE}\n",
    ]
    return "\n".join(parts)


def is_hub_id(model: str) -> bool:
    """Whether a recipe's model is on the hub, and not a folder."""
    return model.count("/") == 1 and not model.startswith((".", "/", "~")) and not os.path.isdir(model)


def _front(recipe: Recipe, stage: SftStage | GrpoStage, kind: str, base: str) -> str:
    """YAML that the hub reads; JSON texts are YAML texts."""
    kinds = dict.fromkeys(each.kind for each in recipe.stages.values())
    tags = ["rlvtg", "video-temporal-grounding", "trl", *kinds, *(["lora"] if stage.lora else [])]
    lines = ["---"]
    if is_hub_id(recipe.model) and (kind == "merged" or base == recipe.model):
        lines.append(f"base_model: {json.dumps(recipe.model)}")
        lines.append(f"base_model_relation: {'adapter' if kind == 'adapter' else 'finetune'}")
    lines.append(f"library_name: {'peft' if kind == 'adapter' else 'transformers'}")
    lines.append("pipeline_tag: video-text-to-text")
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---\n"])


def _what(recipe: Recipe, stages: Sequence[str], kind: str, base: str) -> str:
    form = "A model trained from"
    if kind == "adapter":
        form = "A LoRA adapter for" if base == recipe.model else "A LoRA adapter for a model trained from"
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    text = (
        f"{form} {_model(recipe)}: given a video and a sentence, it says when that happens. Trained with rlvtg "
        f"{version('rlvtg')} ({libraries}) by the recipe `{recipe.name}`, {_several(len(stages), 'stage')}, in "
        f"{'bfloat16' if recipe.bf16 else 'float32'}, seed {recipe.seed}.\n"
    )
    if is_made(recipe, recipe.model):
        text += (
            "\n**A tiny made model**: it began with random weights and knows nothing but made videos of coloured "
            "circles. It shows how the machinery works and is good for nothing else.\n"
        )
    return text


def _model(recipe: Recipe) -> str:
    if is_made(recipe, recipe.model):
        return "a tiny model with random weights"
    return f"[{recipe.model}](https://huggingface.co/{recipe.model})" if is_hub_id(recipe.model) else (
        f"`{_name(recipe.model)}`, a folder"
    )  # fmt: skip


def _stage(recipe: Recipe, name: str, number: int) -> str:
    stage = recipe.stages[name]
    data = dict.fromkeys(str(task.data) for task in tasks_of(recipe, stage).values())
    what = {"sft": "supervised fine-tuning", "grpo": "GRPO"}[stage.kind]
    how = f"LoRA (r {stage.lora.r}, alpha {stage.lora.lora_alpha:g})" if stage.lora else "all weights"
    if stage.freeze:
        how += f" but {', '.join(f'`{each}`' for each in stage.freeze)}"
    settings = [f"{key} {_shown(value)}" for key in TOLD if (value := getattr(stage, key, None)) is not None]
    text = (
        f"{number}. `{name}`: {what} on {', '.join(_data(recipe, key) for key in data)}; {how}; {', '.join(settings)}\n"
    )
    if isinstance(stage, GrpoStage):
        rewards = [
            [f"`{_name(key) if '/' in key else key}`", f"{spec.weight:g}" if spec.weight else "0 (logged only)",
             ", ".join(f"{arg} {json.dumps(value)}" for arg, value in spec.args.items()) or "-",
             ", ".join(spec.tasks) if spec.tasks else "all"]
            for key, spec in stage.rewards.items()
        ]  # fmt: skip
        text += "\n" + _table([["reward", "weight", "settings", "tasks"], *rewards])
    return text


def _data(recipe: Recipe, key: str) -> str:
    source = recipe.data[key]
    limit = "" if source.limit is None else f", the first {source.limit} rows"
    made = ", made" if is_made(recipe, source.annotations) else ""
    return f"`{_name(source.annotations)}` ({key}{limit}{made})"


def _prompt(recipe: Recipe) -> str:
    system = "" if recipe.system is None else f"System prompt:\n\n{FENCE}\n{recipe.system}\n{FENCE}\n\n"
    return (
        f"{system}Prompt (a stage's or the evaluation's own, if it has one, is in the recipe below):\n\n"
        f"{FENCE}\n{recipe.prompt.strip()}\n{FENCE}\n\nSpans are written as rlvtg's grammar `{recipe.grammar}` says.\n"
    )


def _video(recipe: Recipe) -> str:
    video = recipe.video
    stamp = video.time_format or "the processor's own stamp, or seconds with one decimal"
    told = {
        "positions": "by the temporal rotary positions alone, computed from the real times of the sampled frames",
        "text": f"by a stamp in the text before each pair of frames (`{stamp}`)",
        "overlay": f"by a stamp drawn on each frame (`{stamp}`)",
    }[video.time]
    return (
        f"Frames: {video.fps:g} a second ({video.sampling}), {video.min_frames} to {video.max_frames}; pixels a frame: "
        f"{video.min_pixels} to {video.max_pixels}, {video.total_pixels} in all. Time is told {told}.\n"
    )


def _evaluation(stages: Sequence[str], metrics: Mapping[str, Mapping[str, Any]]) -> str:
    found = {label: metrics[label] for label in ("before", *stages) if label in metrics}
    if stages[-1] not in found:
        return "These weights have not been evaluated.\n"
    last = found[stages[-1]]
    recalls = [key for key in last if key.startswith("R1@")]
    rows = [
        [label, f"{one['mIoU']:.3f}", f"{one['mIoU_low']:.3f} to {one['mIoU_high']:.3f}",
         *(f"{one[key]:.3f}" for key in (*recalls, "mF1", "parse_failure_rate")), str(one["n"])]
        for label, one in found.items()
    ]  # fmt: skip
    rules = last["protocol"]
    reached = "above" if rules["strict"] else "at or above"
    zoom = rules.get("zoom")
    told = [
        f"Protocol `{rules['name']}`: spans read by the grammar `{rules['grammar']}`",
        f"an IoU counts {reached} a threshold",
        "predicted times rounded to whole seconds" if rules["whole_seconds"] else "times not rounded",
        f"answers that cannot be read {'are left out' if rules['failures'] == 'drop' else 'count as 0'}",
        f"the {rules['true']} of several true spans counts",
    ]
    asked = [
        f"{last['n']} queries of `{_name(str(rules['data']))}`",
        f"{rules['decoding']} decoding, at most {rules['max_new_tokens']} tokens",
        f"{rules['dtype']}",
        *([f"{zoom['passes']} looks at each video"] if zoom else []),
    ]
    names = ["", "mIoU", "95 % interval", *recalls, "mF1", "parse failures", "n"]
    return (
        f"{_table([names, *rows])}\n{'; '.join(told)}. {'; '.join(asked)}. The interval is a bootstrap over videos. "
        "Numbers under other protocols are not comparable.\n"
    )


def _use(kind: str, base: str, rank: int) -> str:
    before = ""
    if kind == "adapter":
        model = base if is_hub_id(base) else "BASE"
        load = (
            f'base = AutoModelForImageTextToText.from_pretrained("{model}")\n'
            'model = PeftModel.from_pretrained(base, "THIS_FOLDER")\n'
        )
        room = next((each for each in RANKS if each >= rank), None)
        serve = f"vllm serve {model} --enable-lora --max-lora-rank {room} --lora-modules grounding=THIS_FOLDER"
        if room is None:
            serve = f"# vLLM takes adapters of ranks up to {RANKS[-1]}, and this one has {rank}: serve a merged model"
        if model == "BASE":
            before = (
                "`BASE` is the model that the adapter was trained on (`base_model_name_or_path` in "
                "`adapter_config.json`): a folder of where it was trained, which has to be there too; "
                "`rlvtg export --kind merged` needs none.\n\n"
            )
    else:
        load = 'model = AutoModelForImageTextToText.from_pretrained("THIS_FOLDER")\n'
        serve = "vllm serve THIS_FOLDER"
    imports = "from peft import PeftModel\n" if kind == "adapter" else ""
    return (
        f"{before}{FENCE}python\n{imports}from transformers import AutoModelForImageTextToText, AutoProcessor\n\n{load}"
        f'processor = AutoProcessor.from_pretrained("THIS_FOLDER")\n{FENCE}\n\n{FENCE}bash\n{serve}\n{FENCE}\n\n'
        "- transformers 5.3 to 5.23 place the text behind a video as if the video took no time; this model was trained "
        "with its family's original positions, as vLLM has them. With those versions pass `position_ids` from "
        "`rlvtg.model.inputs`, or answers differ from the ones measured above.\n"
        "- Vision tokens were never sampled in training: `generation_config.json` suppresses them in transformers. In "
        "vLLM, which does not read that, forbid them by `logit_bias` (-100 for each of `suppress_tokens`).\n"
        "- Sample frames as told above, with their true times; vLLM needs them as metadata.\n"
    )


def _without_folders(recipe: Recipe) -> Recipe:
    """The recipe with files and folders by their names alone."""
    stages: dict[str, SftStage | GrpoStage] = {}
    for name, stage in recipe.stages.items():
        stages[name] = stage
        if isinstance(stage, GrpoStage):
            rewards = {(_name(key) if "/" in key else key): spec for key, spec in stage.rewards.items()}
            known = stage.difficulty
            if known is not None and known.file is not None:
                known = replace(known, file=_name(known.file))
            stages[name] = replace(stage, rewards=rewards, difficulty=known)
    data = {
        key: replace(source, annotations=_name(source.annotations), videos=_name(source.videos))
        for key, source in recipe.data.items()
    }
    return replace(
        recipe,
        model=recipe.model if is_hub_id(recipe.model) else _name(recipe.model),
        data=data,
        stages=stages,
        output_dir=_name(recipe.output_dir),
        cache_dir=None,
        tiny=None if recipe.tiny is None else replace(recipe.tiny, folder=_name(recipe.tiny.folder)),
    )


def _name(path: str) -> str:
    return os.path.basename(os.path.normpath(path))


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *others = rows
    lines = [header, ["---"] * len(header), *others]
    return "".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |\n" for line in lines)
