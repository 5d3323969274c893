"""Metrics of answers that may hold several spans: what MUSEG and E.T. Bench publish. Pure functions.

An answer is (predicted spans, true spans) of one query; nothing predicted means that nothing could be read. Thresholds
are reached by equality. IoUs are in single precision, as in the published scripts, because that decides what becomes of
an IoU that should equal a threshold: 0.7 reaches 0.7 in `many_to_one`, and not in `first_span`, which compares it with
the threshold in double precision.

MUSEG (arXiv 2505.20715, THUNLP-MT/MUSEG@889565e src/eval_grounding.py), answers read with grammar `museg_eval`:
`tvg` is `first_span` on the first true span of each query, `tal` is `many_to_one`.

E.T. Bench (arXiv 2409.18111, compute_metrics.py), answers read with grammar `et_bench`: `tvg`, `epm` and `tem` are
`first_span`, `tal` is `many_to_one`, `evs` is `whole_seconds_f1` and `vhd` is `moment_recall`. What it calls F1 for
`tvg` and `epm` is the share of queries here called R1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlvtg.text.span import Span

Answer = tuple[Sequence[Span], Sequence[Span]]

THRESHOLDS = (0.1, 0.3, 0.5, 0.7)

# E.T. Bench lays spans out on a line of this many seconds and does not see what comes later.
_LINE = 1000


def first_span(answers: Sequence[Answer], thresholds: Sequence[float] = THRESHOLDS) -> dict[str, float]:
    """IoU of the first predicted span with the best of the true ones; 0 if nothing was predicted.

    Keys: `n`, `failed` (queries with nothing predicted), `mIoU`, `R1@<threshold>` and `mean_R1` (over thresholds).
    """
    _check_answers(answers)
    ious = [float(pairwise_iou(true, predicted[:1]).max()) if predicted else 0.0 for predicted, true in answers]
    recalls = {f"R1@{threshold:g}": sum(iou >= threshold for iou in ious) / len(ious) for threshold in thresholds}
    return {
        **_counts(answers),
        "mIoU": sum(ious) / len(ious),
        **recalls,
        "mean_R1": sum(recalls.values()) / len(recalls),
    }


def many_to_one(answers: Sequence[Answer], thresholds: Sequence[float] = THRESHOLDS) -> dict[str, float]:
    """F1 of each query's spans, averaged over all queries; 0 if nothing was predicted.

    Recall is the share of true spans that some predicted span reaches, precision the share of predicted spans that
    reach some true one: one span may be the partner of many. Keys: `n`, `failed`, `F1@<threshold>` and `mean_F1`.
    """
    _check_answers(answers)
    ious = [pairwise_iou(true, predicted) for predicted, true in answers]
    scores = {f"F1@{threshold:g}": sum(_f1(each, threshold) for each in ious) / len(ious) for threshold in thresholds}
    return {**_counts(answers), **scores, "mean_F1": sum(scores.values()) / len(scores)}


def whole_seconds_f1(answers: Sequence[Answer]) -> dict[str, float]:
    """F1 of the seconds that predicted and true spans cover, bounds rounded to whole seconds, up to second 1000.

    As published, the mean is over the queries with a prediction alone (0.0 if there are none): a model that answers
    less can score more, so compare `failed` too. Keys: `n`, `failed` and `F1`.
    """
    _check_answers(answers)
    scores = [_overlap_f1(_covered(predicted), _covered(true)) for predicted, true in answers if predicted]
    return {**_counts(answers), "F1": sum(scores) / len(scores) if scores else 0.0}


def moment_recall(answers: Sequence[tuple[float | None, Sequence[Span]]]) -> dict[str, float]:
    """Share of queries whose answer, one moment in seconds or None, lies in one of the true spans, bounds included.

    E.T. Bench calls it F1. Keys: `n`, `failed` (queries without a moment) and `R`.
    """
    _check_answers(answers)
    hits = [moment is not None and any(start <= moment <= end for start, end in true) for moment, true in answers]
    failed = sum(moment is None for moment, _ in answers)
    return {"n": len(answers), "failed": failed, "R": sum(hits) / len(hits)}


def pairwise_iou(true: Sequence[Span], predicted: Sequence[Span]) -> NDArray[np.float32]:
    """IoU in [0, 1] of every true span with every predicted one, (true, predicted), in single precision.

    Zero-length and reversed spans overlap nothing.
    """
    # Times of 40 digits and more are infinite in single precision; they overlap nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        a = np.array(true, dtype=np.float32).reshape(-1, 1, 2)
        b = np.array(predicted, dtype=np.float32).reshape(1, -1, 2)
        overlap = np.maximum(np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0]), np.float32(0))
        union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def _f1(ious: NDArray[np.float32], threshold: float) -> float:
    reached = ious >= threshold
    if not reached.any():
        return 0.0
    recall, precision = (float(reached.any(axis=axis).mean(dtype=np.float32)) for axis in (1, 0))
    return 2 * precision * recall / (precision + recall)


def _covered(spans: Sequence[Span]) -> NDArray[np.bool_]:
    line = np.zeros(_LINE, dtype=bool)
    for start, end in spans:
        line[max(0, round(start)) : max(0, round(end))] = True
    return line


def _overlap_f1(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    both = int((predicted & true).sum())
    if both == 0:
        return 0.0
    precision, recall = both / int(predicted.sum()), both / int(true.sum())
    return 2 * precision * recall / (precision + recall)


def _counts(answers: Sequence[Answer]) -> dict[str, float]:
    return {"n": len(answers), "failed": sum(not predicted for predicted, _ in answers)}


def _check_answers(answers: Sequence[tuple[object, Sequence[Span]]]) -> None:
    if not answers:
        raise ValueError("there are no answers to score; at least one is needed")
    for place, (_, true) in enumerate(answers):
        if not true:
            raise ValueError(f"answer {place} has no true span; a query needs one to be scored against")
