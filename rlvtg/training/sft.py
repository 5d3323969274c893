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
from rlvtg.training.setup import lora_config, trainable_model, training_arguments

Rows = Sequence[Mapping[str, Any]]
Messages = Sequence[Mapping[str, Any]]


def collator(encoder: Encoder) -> Callable[[Rows], dict[str, Any]]:
    """Rows with `prompt` and `completion` -> one model call, with labels on what the assistant says and on narration.

    A completion is a list of messages: one answer, or a conversation that goes on (answer, question, answer, ...).
    """
    pad_token_id = encoder.processor.tokenizer.pad_token_id

    def collate(rows: Rows) -> dict[str, Any]:
        targets = [target(row["prompt"], row["completion"], encoder.processor) for row in rows]
        completions = pad_sequence([ids for ids, _ in targets], batch_first=True, padding_value=pad_token_id)
        mask = pad_sequence([torch.ones_like(ids) for ids, _ in targets], batch_first=True)
        labels = pad_sequence([labels for _, labels in targets], batch_first=True, padding_value=-100)
        prompts = [encoder(row) for row in rows]
        inputs = batch(prompts, completions, mask, pad_token_id=pad_token_id)
        told = pad_sequence([prompt.labels for prompt in prompts], True, padding_value=-100, padding_side="left")
        inputs["labels"] = torch.cat([told, labels], dim=1)
        return inputs

    return collate


def target(prompt: Messages, completion: Messages, processor: ProcessorMixin) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (C,) that follow a prompt, and their labels (C,): -100 on everything the assistant does not say.

    Every answer ends with the end-of-turn token, which is learned too. Answers and what lies between them are tokenised
    apart, as they are when the model writes the answers.

    Raises:
        ValueError: the chat template does not put an answer, as it stands, behind its generation prompt.
    """
    tokenizer = processor.tokenizer
    ids: list[int] = []
    labels: list[int] = []
    rendered = _render([*prompt], processor)
    for index, message in enumerate(completion):
        if message["role"] == "assistant":
            said = "".join(part["text"] for part in message["content"])
            answer = [*tokenizer(said, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            ids += answer
            labels += answer
            rendered += said + tokenizer.eos_token
        else:
            further = _render([*prompt, *completion[: index + 1]], processor)
            if not further.startswith(rendered):
                raise ValueError(
                    "the chat template changes an answer when the conversation goes on; it cannot be trained on"
                )
            between = tokenizer(further[len(rendered) :], add_special_tokens=False)["input_ids"]
            ids += between
            labels += [-100] * len(between)
            rendered = further
    return torch.tensor(ids), torch.tensor(labels)


def _render(messages: list[Mapping[str, Any]], processor: ProcessorMixin) -> str:
    return processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def sft_trainer(recipe: Recipe, stage: SftStage, rows: Rows, path: str, encoder: Encoder, folder: str) -> SFTTrainer:
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
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=encoder.processor,
        data_collator=collator(encoder),
        peft_config=lora_config(stage, model),
    )
    # Qwen2.5-VL's own loss cannot count tokens over micro-batches and devices, which transformers takes note of; the
    # loss is TRL's, which can: without the count, a token of a short micro-batch would weigh more than one of a long.
    trainer.model_accepts_loss_kwargs = True
    return trainer
