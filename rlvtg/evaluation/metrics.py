"""How good are the predicted spans? Pure functions from predictions to numbers, so that a file of predictions can be
scored again anywhere, by the rules that its reader asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rlvtg.evaluation.multi_span import many_to_one
from rlvtg.evaluation.predictions import Prediction, PredictionError, reread
from rlvtg.evaluation.protocol import Protocol, answer_iou, summary
from rlvtg.text.grammar import grammar
from rlvtg.text.span import Span

RESAMPLES = 1000
# 100 x 100 candidate answers on the 37,421 training queries of ActivityNet Captions take seconds.
CANDIDATES = 100


def score(predictions: Sequence[Prediction], rules: Protocol) -> dict[str, float]:
    """The metrics of a list of predictions under `rules`; rates are fractions in [0, 1].

    Keys: `n` (queries); `mIoU`, `mIoU_low` and `mIoU_high` (95 % bootstrap interval over videos) and one
    `R1@<threshold>` per threshold, of the first predicted span and over the queries that the rules do not drop;
    `F1@<threshold>` at 0.1, 0.3, 0.5 and 0.7 and their mean `mF1`, of all predicted with all true spans, over all
    queries, always by equality and unrounded (see `multi_span.many_to_one`); `parse_failure_rate` (share of queries
    whose answer holds no span), `missing` (queries without an answer, which are failures too) and `dropped` (queries).

    Raises PredictionError on an empty list and on a query with a missing or broken true span, ValueError on a threshold
    outside [0, 1], GrammarError for a grammar that there is not or that needs a duration where there is none.
    """
    if not predictions:
        raise PredictionError("there are no predictions to score; at least one is needed")
    for threshold in rules.thresholds:
        if not 0 <= threshold <= 1:
            raise ValueError(f"got the IoU threshold {threshold}; thresholds are fractions from 0 to 1, such as 0.5")
    answers = [(read_spans(prediction, rules), _true_spans(prediction)) for prediction in predictions]
    ious = [answer_iou(predicted, true, rules) for predicted, true in answers]
    kept = [(iou, prediction["video"]) for iou, prediction in zip(ious, predictions, strict=True) if iou is not None]
    low, high = miou_interval(np.array([iou for iou, _ in kept]), [video for _, video in kept])
    several = many_to_one(answers)
    averages = summary(ious, rules)
    missing = sum(prediction.get("missing", False) for prediction in predictions)
    unread = sum(not predicted for predicted, _ in answers)
    return {
        "n": len(predictions),
        "mIoU": averages.pop("mIoU"),
        "mIoU_low": low,
        "mIoU_high": high,
        **averages,
        **{key: value for key, value in several.items() if key.startswith("F1@")},
        "mF1": several["mean_F1"],
        "parse_failure_rate": (unread - missing) / len(predictions),
        "missing": missing,
        "dropped": len(predictions) - len(kept),
    }


def ious(predictions: Sequence[Prediction], rules: Protocol) -> list[float | None]:
    """IoU in [0, 1] of each query's first predicted span under `rules`; None for a query that they drop."""
    return [answer_iou(read_spans(each, rules), _true_spans(each), rules) for each in predictions]


def read_spans(prediction: Prediction, rules: Protocol) -> list[Span]:
    """The predicted spans: read from the completion by the rules' grammar, or as they were given where the rules name
    no grammar or a system gave spans and no text.

    Raises PredictionError for a completion that nobody has read and the rules do not read, GrammarError for a grammar
    that there is not or that needs a duration where there is none.
    """
    text = prediction["completion"]
    if rules.grammar is None and prediction.get("unread"):
        raise PredictionError(
            f"prediction {prediction['id']!r} has a completion and no predicted spans; name the grammar that reads it"
        )
    if rules.grammar is None or text is None:
        return [(start, end) for start, end in prediction["predicted"]]
    return reread(prediction, grammar(rules.grammar))


def _true_spans(prediction: Prediction) -> list[Span]:
    if not prediction["spans"]:
        raise PredictionError(
            f"prediction {prediction['id']!r} has no true span; a query needs one to be scored against"
        )
    if not all(start < end for start, end in prediction["spans"]):
        raise PredictionError(
            f"prediction {prediction['id']!r} has the true spans {prediction['spans']}; a span must end after it starts"
        )
    return [(start, end) for start, end in prediction["spans"]]


def miou_interval(
    ious: NDArray[np.float64], videos: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `ious` (n,), drawing whole videos (n names) with replacement.

    Queries of one video share its pixels and often its mistakes; drawing single queries would make the interval too
    narrow. One video alone says nothing about others: both ends are then the mean itself; 0.0 without any query.
    """
    if not len(ious):
        return 0.0, 0.0
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
    """The same queries, each answered with `span` (seconds) and no text, to be scored beside the model's own."""
    answered = [{**prediction, "completion": None, "predicted": [list(span)]} for prediction in predictions]
    return cast(list[Prediction], answered)
