"""Supervised fine-tuning on target completions, with TRL's `SFTTrainer` and our collator."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from rlvtg.model.inputs import Encoder, batch
from rlvtg.recipe import Recipe, SftStage
from rlvtg.training.early_stop import StoppingTrainer
from rlvtg.training.setup import keep_features, lora_config, trainable_model, training_arguments

Rows = Sequence[Mapping[str, Any]]


def collator(encoder: Encoder) -> Callable[[Rows], dict[str, Any]]:
    """Rows with `prompt` and `completion` -> one model call, with labels on completions and narration."""
    tokenizer = encoder.processor.tokenizer

    def collate(rows: Rows) -> dict[str, Any]:
        prompts = [encoder(row) for row in rows]
        targets = [target(row["completion"], encoder.processor) for row in rows]
        completions = pad_sequence(targets, True, padding_value=tokenizer.pad_token_id)
        mask = pad_sequence([torch.ones_like(ids) for ids in targets], True)
        inputs = batch(prompts, completions, mask, pad_token_id=tokenizer.pad_token_id)
        told = pad_sequence([prompt.labels for prompt in prompts], True, padding_value=-100, padding_side="left")
        inputs["labels"] = torch.cat([told, completions.masked_fill(mask == 0, -100)], dim=1)
        return inputs

    return collate


def target(completion: Sequence[Mapping[str, Any]], processor: ProcessorMixin) -> torch.Tensor:
    """Token ids (C,) of a completion, given as one assistant message, and its end-of-turn token.

    They are tokenised apart from the prompt, as they are when the model writes them.
    """
    [message] = completion
    text = "".join(part["text"] for part in message["content"])
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return torch.tensor([*ids, processor.tokenizer.eos_token_id])


class VideoSFTTrainer(StoppingTrainer, SFTTrainer):
    """`SFTTrainer` that resumes and may stop early; what is about video is in the collator."""


def sft_trainer(
    recipe: Recipe, stage: SftStage, rows: Rows, path: str, encoder: Encoder, folder: str
) -> VideoSFTTrainer:
    """TRL's trainer for one SFT stage; nothing is trained yet.

    Args:
        recipe: machine facts and seed.
        stage: the stage.
        rows: rows with a `completion` column.
        path: the model to start from, a folder or a hub id.
        encoder: the run's encoder.
        folder: where checkpoints and logs go.
    """
    arguments = SFTConfig(
        **training_arguments(recipe, stage, folder),
        max_length=None,  # a cut prompt would lose video tokens
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    model = trainable_model(recipe, stage, path)
    trainer = VideoSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=encoder.processor,
        data_collator=collator(encoder),
        peft_config=lora_config(stage, model),
    )
    if encoder.features is not None:
        keep_features(trainer, encoder.features)
    # Qwen2.5-VL's own loss cannot count tokens over micro-batches and devices, which transformers takes note of; the
    # loss is TRL's, which can: without the count, a token of a short micro-batch would weigh more than one of a long.
    trainer.model_accepts_loss_kwargs = True
    return trainer
