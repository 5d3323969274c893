from collections.abc import Sequence
from typing import Any

from rlvtg.text.annotation import annotated_duration, row_names
from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion
from rlvtg.text.span import timestamp_iou


def timestamp_tiou(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    duration: Sequence[float],
    id: Sequence[Any] | None = None,
    *,
    clamp: bool = False,
    grammar: str = "to",
    **_: Any,
) -> list[float | None]:
    """Temporal IoU that also asks for each end to be right; with several annotated spans, the best of them.

    Formula: IoU * (1 - |s - s'| / T) * (1 - |e - e'| / T), T the duration of the video in seconds.
    Range: (-inf, 1], negative only for an end more than T away from the true one; [0, 1] with `clamp`, which limits
    both factors to [0, 1]. No parsable span: 0.0. A row without spans, with a bound that is not a finite number or
    with a duration that is not positive raises AnnotationError naming its `id`; a reversed or zero-length annotated
    span overlaps nothing and scores 0.0 (refuse such rows when loading data).

    Source: arXiv 2503.13377; reward `iou_v2` of xiaomi-research/time-r1@7f2b594 main.py.
    Differs: `clamp` is ours. There, a prediction equal to a zero-length annotation fails or keeps the previous row's
    value.
    """
    seconds = [annotated_duration(*pair) for pair in zip(duration, row_names(id, len(completions)), strict=True)]
    return [
        max(timestamp_iou(predicted[0], span, length, clamp=clamp) for span in true) if predicted else 0.0
        for (predicted, true), length in zip(answered(completions, spans, id, duration, grammar), seconds, strict=True)
    ]
