"""Result files of TimeLens: {"video>>>query>>>[start, end]": {"timestamps": [[s, e], ...], "answers": text}, ...}.

The files that its evaluation writes (TencentARC/TimeLens@5d90c06 evaluation/eval_dataloader.py) can be scored here.
"""

from ast import literal_eval
from collections.abc import Mapping
from typing import Any

from rlvtg.text.grammar import grammar
from rlvtg.text.span import Span


def timelens_answers(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[list[Span], list[Span]]]:
    """(predicted, true) spans of each row of a result file, for `rlvtg.evaluation.protocol.answer_iou`.

    `timestamps` count where they are there; the released evaluation has rounded them to whole seconds already. Else the
    text in `answers` is read. A row with neither has no prediction.

    Raises ValueError, naming the key, where a key does not end in a span.
    """
    read = grammar("timelens_eval")
    rows = []
    for key, row in results.items():
        _, mark, true = key.rpartition(">>>")
        try:
            start, end = map(float, literal_eval(true.strip()))
        except (ValueError, TypeError, SyntaxError) as error:
            raise ValueError(f"the key {key!r} of a TimeLens result does not end in >>>[start, end]") from error
        if not mark:
            raise ValueError(f"the key {key!r} of a TimeLens result does not end in >>>[start, end]")
        if "timestamps" in row:
            predicted = [(float(s), float(e)) for s, e in row["timestamps"]]
        else:
            predicted = read.parse(row.get("answers") or "")
        rows.append((predicted, [(start, end)]))
    return rows
