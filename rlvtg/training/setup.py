"""What both kinds of stage ask of Hugging Face: training arguments and the LoRA configuration."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel, Trainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.models.utils import unwrap_model_for_generation

from rlvtg.model.features import FeatureCache
from rlvtg.model.load import freeze, load_model
from rlvtg.model.vision import share_vision
from rlvtg.recipe import GrpoStage, Recipe, RecipeError, SftStage

# Stage fields that are training arguments under the same name, in SFT and GRPO alike.
SHARED_ARGUMENTS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "gradient_checkpointing",
)


def training_arguments(recipe: Recipe, stage: SftStage | GrpoStage, folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Keyword arguments for `SFTConfig` and `GRPOConfig`."""
    arguments = {name: getattr(stage, name) for name in SHARED_ARGUMENTS}
    return arguments | {
        "output_dir": str(folder),
        "gradient_checkpointing_kwargs": dict(stage.gradient_checkpointing_kwargs),
        "seed": recipe.seed,
        "bf16": recipe.bf16,
        "use_cpu": recipe.use_cpu,
        "report_to": list(recipe.report_to),
        "run_name": f"{recipe.name}/{os.path.basename(folder)}",
        "logging_steps": recipe.logging_steps,
        "save_steps": recipe.save_steps,
        "save_total_limit": recipe.save_total_limit,
        "remove_unused_columns": False,
        "dataloader_pin_memory": not recipe.use_cpu,
    }


def lora_config(stage: SftStage | GrpoStage, model: PreTrainedModel) -> LoraConfig | None:
    """PEFT's configuration of a stage's `lora` section, or None for full fine-tuning. Frozen parts get no adapter."""
    if stage.lora is None:
        return None
    targets = stage.lora.target_modules
    frozen = [
        name
        for prefix in stage.freeze
        for name, _ in model.named_modules()
        if f".{name}.".startswith(f".{model.base_model_prefix}.{prefix}.")
    ]
    return LoraConfig(
        r=stage.lora.r,
        lora_alpha=stage.lora.lora_alpha,
        lora_dropout=stage.lora.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=frozen or None,
        task_type="CAUSAL_LM",
    )


def trainable_model(recipe: Recipe, stage: SftStage | GrpoStage, path: str) -> PreTrainedModel:
    """The model at `path` with the stage's parts frozen. Make the training arguments first: ZeRO-3 shards on loading.

    Weights that are trained stay in float32 (`bf16` then means autocast, or DeepSpeed's own master copy): at the usual
    learning rates an update of a bfloat16 weight rounds to nothing. Under LoRA the base weights are not trained.
    """
    dtype = torch.bfloat16 if recipe.bf16 and stage.lora is not None else torch.float32
    model = load_model(path, dtype=dtype, attn_implementation=recipe.attn_implementation)
    freeze(model, stage.freeze)
    return model


def keep_features(trainer: Trainer, features: FeatureCache) -> None:
    """From now on the trainer's models share the run's cache of vision features. Do it when LoRA is in place.

    Raises:
        RecipeError: a part of the vision encoder that the cache takes for fixed is trained, or ranks share its weights,
            so that a rank that finds its videos would leave the others waiting.
    """
    if trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled():
        raise RecipeError(
            "video.cache_features: got true under FSDP or DeepSpeed ZeRO-3, where every rank must run the vision tower "
            "in every pass; want it false, or DDP or ZeRO-2"
        )
    model = trainer.accelerator.unwrap_model(trainer.model)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    trained = [name for name, value in base.base_model.visual.named_parameters() if value.requires_grad]
    wrong = [name for name in trained if features.merged or not name.startswith("merger.")]
    if wrong:
        raise RecipeError(f"video.cache_features: got true, but the stage trains visual.{wrong[0]}; freeze it")
    share_vision(base, features)
    reference = getattr(trainer, "ref_model", None)
    if reference is not None:
        share_vision(trainer.accelerator.unwrap_model(reference), features)


@contextmanager
def generating(trainer: Trainer) -> Iterator[PreTrainedModel]:
    """The trainer's model as one that can generate: unwrapped, on its device, ZeRO-3 shards gathered, checkpointing off
    meanwhile."""
    if not (trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled()):
        # under DeepSpeed a model stays where it was loaded until it trains: the first check would run on the CPU
        trainer.model.to(trainer.accelerator.device)
    with unwrap_model_for_generation(
        trainer.model_wrapped,
        trainer.accelerator,
        gather_deepspeed3_params=getattr(trainer.args, "ds3_gather_for_generation", True),
        gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
    ) as model:
        yield model
