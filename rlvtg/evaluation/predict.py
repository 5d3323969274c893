"""Greedy predictions of a model on rows: one dictionary per query, as it is written to predictions.jsonl."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel

from rlvtg.evaluation.predictions import Prediction
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
    batches: Sequence[Sequence[Mapping[str, Any]]],
    *,
    grammar_name: str,
    max_new_tokens: int,
    title: str = "evaluating",
    quiet: bool = False,
) -> Iterator[list[Prediction]]:
    """The predictions of each batch, as they are made and in the order of its rows, with a progress bar.

    Args:
        model: a model from `load_model`, or a PEFT wrapper of one.
        encoder: the run's encoder.
        batches: lists of rows that are generated together; rows have `prompt`, `id`, `video`, `query`, `duration` and
            `spans`, perhaps `video_start` and `video_end`.
        grammar_name: the answer grammar that spans are read with.
        max_new_tokens: limit of a completion.
        title: what the progress bar says.
        quiet: no progress bar.

    Yields:
        One list of predictions per batch; `predicted` is empty if nothing was parsed.
    """
    config, parse = greedy(encoder, max_new_tokens), grammar(grammar_name).parse
    with tqdm(total=sum(map(len, batches)), desc=title, unit="query", disable=quiet) as bar:
        for some in batches:
            completions = rollout(model, [encoder(row) for row in some], config)
            texts = encoder.processor.batch_decode(completions, skip_special_tokens=True)
            yield [_prediction(row, text, parse(text, row["duration"])) for row, text in zip(some, texts, strict=True)]
            bar.update(len(some))


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
