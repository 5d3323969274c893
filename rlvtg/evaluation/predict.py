"""Greedy predictions of a model on rows: one dictionary per query, as it is written to predictions.jsonl."""

from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel

from rlvtg.model.inputs import Encoder
from rlvtg.rollout.hf import rollout
from rlvtg.text.grammar import grammar


def greedy(encoder: Encoder, max_new_tokens: int) -> GenerationConfig:
    """Greedy decoding up to `max_new_tokens`, ended by the tokenizer's end of turn."""
    tokenizer = encoder.processor.tokenizer
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def predict(
    model: PreTrainedModel,
    encoder: Encoder,
    rows: Sequence[Mapping[str, Any]],
    *,
    grammar_name: str,
    batch_size: int,
    max_new_tokens: int,
    title: str = "evaluating",
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Predictions in the order of the rows, with a progress bar.

    Args:
        model: a model from `load_model`, or a PEFT wrapper of one.
        encoder: the run's encoder.
        rows: rows with `prompt`, `id`, `video`, `query`, `duration` and `spans`.
        grammar_name: the answer grammar that spans are read with.
        batch_size: prompts per generation.
        max_new_tokens: limit of a completion.
        title: what the progress bar says.
        quiet: no progress bar.

    Returns:
        Dictionaries with `id`, `video`, `query`, `duration`, `spans`, `completion` and `predicted` (empty if nothing
        was parsed).
    """
    config, parse = greedy(encoder, max_new_tokens), grammar(grammar_name).parse
    predictions: list[dict[str, Any]] = []
    with tqdm(total=len(rows), desc=title, unit="query", disable=quiet) as bar:
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            completions = rollout(model, [encoder(row) for row in some], config)
            texts = encoder.processor.batch_decode(completions, skip_special_tokens=True)
            for row, text in zip(some, texts, strict=True):
                kept = {key: row[key] for key in ("id", "video", "query", "duration", "spans")}
                predictions.append(
                    kept | {"completion": text, "predicted": [list(span) for span in parse(text, row["duration"])]}
                )
            bar.update(len(some))
    return predictions
