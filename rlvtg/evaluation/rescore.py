"""Scores a file of predictions, whoever made them, under one published protocol or all of them. No model is needed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlvtg.data.read import read
from rlvtg.evaluation.metrics import score
from rlvtg.evaluation.predictions import read_answers
from rlvtg.evaluation.protocol import described, protocol, protocol_names
from rlvtg.recipe import Source
from rlvtg.text.grammar import grammar

ALL = "all"


def rescore(
    path: str | Path,
    names: Sequence[str] = ("rlvtg",),
    *,
    grammar_name: str | None = None,
    annotations: str | None = None,
    reader: str = "jsonl",
) -> dict[str, dict[str, Any]]:
    """Metrics of the predictions at `path` by the name of the protocol, each with its `protocol`, as in metrics.json.

    Args:
        path: JSON lines; see `read_answers`.
        names: of protocols; `all` stands for all of them.
        grammar_name: how completions are read where the protocol names no grammar of its own; default: a row's
            `predicted` spans are taken as they are.
        annotations: the file of the true spans; default: the rows bring them.
        reader: the format of `annotations`.

    Raises PredictionError, DataError, ProtocolError or GrammarError for what is wrong with file, names or grammar.
    """
    wanted = protocol_names() if ALL in names else list(dict.fromkeys(names))
    rules = [protocol(name) for name in wanted]
    for name in (grammar_name, *(each.grammar for each in rules)):
        if name is not None:
            grammar(name)
    samples = None if annotations is None else read(Source(annotations=annotations, videos="", reader=reader))
    predictions = read_answers(path, samples)
    made_from = _made_from(Path(path)) | {"predictions": str(path)}
    results = {}
    for each in rules:
        used = replace(each, grammar=each.grammar or grammar_name)
        results[each.name] = score(predictions, used) | {"protocol": described(used, made_from)}
    return results


def _made_from(path: Path) -> dict[str, Any]:
    """What the evaluation beside the file says about its making: nothing for another system's file."""
    beside = path.with_name("made_from.json")
    if path.name != "predictions.jsonl" or not beside.is_file():
        return {}
    return dict(json.loads(beside.read_text(encoding="utf-8")))
