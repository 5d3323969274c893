"""How good are the predicted spans? Pure functions from predictions to numbers, so that a file of predictions can be
scored again anywhere.

A query is answered by the first predicted span and scored against the best of its true spans. A query without a parsed
answer has IoU 0 and stays in the denominator, and a threshold is reached by equality; published scripts differ in both
(some drop failures, some use `>`), so compare numbers only under the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from rlvtg.text.span import Span, iou

RESAMPLES = 1000
# 100 x 100 candidate answers on the 37,421 training queries of ActivityNet Captions take seconds.
CANDIDATES = 100


class Prediction(TypedDict):
    """One line of predictions.jsonl: a query, its annotation and what the model answered."""

    id: str
    video: str
    query: str
    duration: float  # of the video, seconds
    spans: list[list[float]]  # true [start, end], seconds; at least one
    completion: str
    predicted: list[list[float]]  # [start, end], seconds; empty when nothing could be parsed


def score(predictions: Sequence[Prediction], thresholds: Sequence[float]) -> dict[str, float]:
    """The metrics of a list of predictions, all but `n` as fractions in [0, 1].

    Keys: `n` (queries), `mIoU`, `mIoU_low` and `mIoU_high` (95 % bootstrap interval over videos), one `R1@<threshold>`
    per threshold (share of queries whose IoU is at least the threshold) and `parse_failure_rate` (share of queries
    without any predicted span).

    Raises ValueError on an empty list, on a query with a missing or broken true span and on a threshold outside [0, 1].
    """
    if not predictions:
        raise ValueError("there are no predictions to score; at least one is needed")
    for threshold in thresholds:
        if not 0 <= threshold <= 1:
            raise ValueError(f"got the IoU threshold {threshold}; thresholds are fractions from 0 to 1, such as 0.5")
    ious = np.array([query_iou(prediction) for prediction in predictions])
    low, high = miou_interval(ious, [prediction["video"] for prediction in predictions])
    return {
        "n": len(predictions),
        "mIoU": float(ious.mean()),
        "mIoU_low": low,
        "mIoU_high": high,
        **{f"R1@{threshold:g}": float((ious >= threshold).mean()) for threshold in thresholds},
        "parse_failure_rate": float(np.mean([not prediction["predicted"] for prediction in predictions])),
    }


def query_iou(prediction: Prediction) -> float:
    """IoU in [0, 1] of the first predicted span with the best of the true spans; 0.0 when nothing was predicted.

    Raises ValueError when the query has no true span, or one that does not end after it starts.
    """
    if not prediction["spans"]:
        raise ValueError(f"prediction {prediction['id']!r} has no true span; a query needs one to be scored against")
    if not all(start < end for start, end in prediction["spans"]):
        raise ValueError(
            f"prediction {prediction['id']!r} has the true spans {prediction['spans']}; a span must end after it starts"
        )
    if not prediction["predicted"]:
        return 0.0
    start, end = prediction["predicted"][0]
    return max(iou((start, end), (true_start, true_end)) for true_start, true_end in prediction["spans"])


def miou_interval(
    ious: NDArray[np.float64], videos: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `ious` (n,), drawing whole videos (n names) with replacement.

    Queries of one video share its pixels and often its mistakes; drawing single queries would make the interval too
    narrow. One video alone says nothing about others: both ends are then the mean itself.
    """
    names, video = np.unique(np.asarray(videos), return_inverse=True)
    total = np.bincount(video, weights=ious)
    queries = np.bincount(video)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = rng.integers(len(names), size=len(names))
        means.append(total[drawn].sum() / queries[drawn].sum())
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def best_constant(annotations: Sequence[tuple[Span, float]]) -> Span:
    """The one answer (start, end) in seconds that has the highest mean IoU when it is given to every query: what a
    blind model can reach.

    `annotations` holds ((start, end), duration) of the training queries. The durations play no part: the answer is in
    seconds and is scored as any other, even where it ends after the video does.

    With the start held fixed, the mean IoU is convex in the end between two neighbouring observed ends (and the other
    way round), so the best answer joins an observed start to an observed end. All pairs are tried; of more than 100
    different starts or ends, 100 evenly spaced ranks are, which makes the answer a close approximation. Ties go to the
    earliest start, then the earliest end.

    Raises ValueError without annotations, and for a span that does not end after it starts.
    """
    if not annotations:
        raise ValueError("there are no annotations to find the best constant answer for; at least one is needed")
    for (start, end), _ in annotations:
        if not start < end:
            raise ValueError(f"got the annotated span ({start}, {end}); a span must end after it starts")
    true = np.array([span for span, _ in annotations], dtype=np.float64)
    starts, ends = _candidates(true[:, 0]), _candidates(true[:, 1])
    best, best_mean = (float(starts[0]), float(ends[-1])), -1.0
    for start in starts:
        # (candidate ends, annotations)
        intersection = np.minimum(ends[:, None], true[:, 1]) - np.maximum(start, true[:, 0])
        hull = np.maximum(ends[:, None], true[:, 1]) - np.minimum(start, true[:, 0])
        means = (np.maximum(intersection, 0.0) / hull).mean(axis=1)
        means[ends <= start] = -1.0
        if means.max() > best_mean:
            best, best_mean = (float(start), float(ends[means.argmax()])), float(means.max())
    return best


def _candidates(observed: NDArray[np.float64]) -> NDArray[np.float64]:
    """The different observed values in rising order, or 100 evenly spaced ranks of the observed values when there are
    more."""
    different = np.unique(observed)
    if len(different) <= CANDIDATES:
        return different
    ranks = np.linspace(0, len(observed) - 1, CANDIDATES).round().astype(int)
    return np.unique(np.sort(observed)[ranks])


def constant_predictions(predictions: Sequence[Prediction], span: Span) -> list[Prediction]:
    """The same queries, each answered with `span` (seconds) and an empty completion, to be scored beside the model's
    own."""
    answered = [{**prediction, "completion": "", "predicted": [list(span)]} for prediction in predictions]
    return cast(list[Prediction], answered)


def check_prediction(row: object, where: str) -> Prediction:
    """`row` as a Prediction, or a ValueError that says what it lacks and `where` it stands."""
    missing = [field for field in Prediction.__annotations__ if not isinstance(row, dict) or field not in row]
    if missing:
        raise ValueError(
            f"{where} lacks {', '.join(missing)}; a prediction has {', '.join(Prediction.__annotations__)}"
        )
    return cast(Prediction, row)
