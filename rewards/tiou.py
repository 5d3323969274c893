from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion
from rlvtg.text.span import iou


def tiou(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    grammar: str = "to",
    true: str = "best",
    **_: Any,
) -> list[float | None]:
    """Temporal IoU of the predicted span with the annotated one; with several annotated spans, the best of them, or
    the first with `true: first`.

    Formula: max(0, min(e, e') - max(s, s')) / (max(e, e') - min(s, s')). Range: [0, 1]. No parsable span: 0.0.
    A row without spans, or with a bound that is not a finite number, raises AnnotationError naming its `id`;
    a reversed or zero-length annotated span overlaps nothing and scores 0.0 (refuse such rows when loading data).

    Source: arXiv 2503.13377; reward `iou` of xiaomi-research/time-r1@7f2b594 main.py; with `true: first`, reward
    `tiou` of TencentARC/TimeLens@5d90c06 reward_funcs.py (arXiv 2512.14698).
    Differs: there, a prediction equal to a zero-length annotation fails or keeps the previous row's value.
    """
    if true not in ("best", "first"):
        raise ValueError(f"reward tiou: got true={true!r}; it must be 'best' or 'first'")
    return [
        max(iou(predicted[0], span) for span in annotated[: 1 if true == "first" else None]) if predicted else 0.0
        for predicted, annotated in answered(completions, spans, id, duration, grammar)
    ]
