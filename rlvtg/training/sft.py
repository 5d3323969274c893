"""Supervised fine-tuning on target completions, with TRL's `SFTTrainer` and our collator."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from rlvtg.model.inputs import Encoder, batch
from rlvtg.recipe import Recipe, SftStage
from rlvtg.training.setup import lora_config, training_arguments

Rows = Sequence[Mapping[str, Any]]


def collator(encoder: Encoder) -> Callable[[Rows], dict[str, Any]]:
    """Rows with `prompt` and `completion` -> one model call with labels on the completion and its end-of-turn token."""
    tokenizer = encoder.processor.tokenizer

    def collate(rows: Rows) -> dict[str, Any]:
        targets = [
            torch.tensor([*tokenizer(_text(row["completion"]), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id])
            for row in rows
        ]
        completions = pad_sequence(targets, batch_first=True, padding_value=tokenizer.pad_token_id)
        mask = pad_sequence([torch.ones_like(target) for target in targets], batch_first=True)
        inputs = batch([encoder(row) for row in rows], completions, mask, pad_token_id=tokenizer.pad_token_id)
        inputs["labels"] = torch.full_like(inputs["input_ids"], -100)
        inputs["labels"][:, -completions.shape[1] :] = completions.masked_fill(mask == 0, -100)
        return inputs

    return collate


def _text(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of a completion given as assistant messages."""
    return "".join(part["text"] for message in messages for part in message["content"])


def sft_trainer(
    recipe: Recipe, stage: SftStage, rows: Rows, model: PreTrainedModel, encoder: Encoder, folder: str
) -> SFTTrainer:
    """TRL's trainer for one SFT stage; nothing is trained yet.

    Args:
        recipe: machine facts and seed.
        stage: the stage.
        rows: rows with a `completion` column.
        model: a model from `load_model`, already frozen where the stage says so.
        encoder: the run's encoder.
        folder: where checkpoints and logs go.
    """
    arguments = SFTConfig(
        **training_arguments(recipe, stage, folder),
        max_length=None,  # a cut prompt would lose video tokens
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=encoder.processor,
        data_collator=collator(encoder),
        peft_config=lora_config(stage),
    )
