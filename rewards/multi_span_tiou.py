from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion
from rlvtg.text.span_set import is_usable, set_iou


def multi_span_tiou(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    grammar: str = "to",
    **_: Any,
) -> list[float | None]:
    """Temporal IoU of all predicted spans together with all annotated spans together.

    Formula: I / (P + A - I), P the length of the union of the predicted spans, A the sum of the lengths of the
    annotated ones, I the sum of the overlaps of that union with each of them. Range: [0, 1]. No parsable span, or one
    that does not end after it starts: 0.0 for the whole answer. A row without spans, or with a bound that is not a
    finite number, raises AnnotationError naming its `id`; reversed and zero-length annotated spans count for nothing.

    Source: arXiv 2607.17423; reward `tiou` of MCG-NJU/TimeLens2@a5ce450 grpo/timelens/rewards/funcs.py.
    """
    return [
        set_iou(predicted, true) if is_usable(predicted) else 0.0
        for predicted, true in answered(completions, spans, id, duration, grammar)
    ]
