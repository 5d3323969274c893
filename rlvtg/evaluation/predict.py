"""Predictions of a model on rows, greedy or sampled: dictionaries as they are written to predictions.jsonl."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel

from rlvtg.evaluation.predictions import Prediction
from rlvtg.model.inputs import Encoder
from rlvtg.rollout.hf import rollout
from rlvtg.text.grammar import grammar


def greedy(encoder: Encoder, max_new_tokens: int) -> GenerationConfig:
    """Greedy decoding up to `max_new_tokens`, ended by the tokenizer's end of turn.

    `generate` takes what is not said here from the model's own generation config, which in released models of Qwen has
    a repetition penalty.
    """
    tokenizer = encoder.processor.tokenizer
    return GenerationConfig(
        do_sample=False,
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def sampled(encoder: Encoder, max_new_tokens: int, temperature: float) -> GenerationConfig:
    """Sampling from the whole distribution at `temperature`, up to `max_new_tokens`."""
    config = greedy(encoder, max_new_tokens)
    config.do_sample, config.temperature, config.top_p, config.top_k = True, temperature, 1.0, 0
    return config


def predict(
    model: PreTrainedModel,
    encoder: Encoder,
    batches: Sequence[Sequence[Mapping[str, Any]]],
    *,
    grammar_name: str,
    max_new_tokens: int,
    num_generations: int = 1,
    temperature: float | None = None,
    seed: int = 0,
    title: str = "evaluating",
    quiet: bool = False,
) -> Iterator[list[Prediction]]:
    """The predictions of each batch, as they are made and in the order of its rows, with a progress bar.

    Sampled ones depend on the seed and on the batch, not on what was sampled before or is sampled elsewhere.

    Args:
        model: a model from `load_model`, or a PEFT wrapper of one.
        encoder: the run's encoder.
        batches: lists of rows that are generated together; rows have `prompt`, `id`, `video`, `query`, `duration` and
            `spans`, perhaps `video_start` and `video_end`.
        grammar_name: the answer grammar that spans are read with.
        max_new_tokens: limit of a completion.
        num_generations: predictions of each row.
        temperature: of sampling; None = greedy.
        seed: of sampling.
        title: what the progress bar says.
        quiet: no progress bar.

    Yields:
        One list of predictions per batch, those of a row together; `predicted` is empty if nothing was parsed.
    """
    parse = grammar(grammar_name).parse
    config = greedy(encoder, max_new_tokens) if temperature is None else sampled(encoder, max_new_tokens, temperature)
    with tqdm(total=sum(map(len, batches)), desc=title, unit="query", disable=quiet) as bar:
        for some in batches:
            prompts = [encoder(row) for row in some]
            devices = [model.device] if model.device.type == "cuda" else []
            with torch.random.fork_rng(devices):
                torch.manual_seed(_seed(seed, some))
                completions = rollout(model, prompts, config, num_generations=num_generations)
            texts = encoder.processor.batch_decode(completions, skip_special_tokens=True)
            asked = [row for row in some for _ in range(num_generations)]
            yield [_prediction(row, text, parse(text, row["duration"])) for row, text in zip(asked, texts, strict=True)]
            bar.update(len(some))


def _seed(seed: int, rows: Sequence[Mapping[str, Any]]) -> int:
    names = f"{seed} {[row['id'] for row in rows]}".encode()
    return int.from_bytes(hashlib.blake2b(names, digest_size=7).digest())


def _prediction(row: Mapping[str, Any], text: str, spans: Sequence[tuple[float, float]]) -> Prediction:
    prediction: Prediction = {
        "id": row["id"],
        "video": row["video"],
        "query": row["query"],
        "duration": row["duration"],
        "spans": row["spans"],
        "completion": text,
        "predicted": [list(span) for span in spans],
    }
    if row.get("video_start") is not None:
        prediction["video_start"] = row["video_start"]
    if row.get("video_end") is not None:
        prediction["video_end"] = row["video_end"]
    return prediction
