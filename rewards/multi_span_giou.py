from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion
from rlvtg.text.span_set import is_usable, set_giou


def multi_span_giou(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    grammar: str = "to",
    **_: Any,
) -> list[float | None]:
    """Generalised temporal IoU of all predicted spans together with all annotated spans together.

    Formula: I / U - (H - U) / H, U = P + A - I, with P the length of the union of the predicted spans, A the sum of
    the lengths of the annotated ones, I the sum of the overlaps of that union with each of them, and H the length from
    the first start to the last end of all spans; clipped. Range: [-1, 1]. No parsable span, or one that does not end
    after it starts: 0.0 for the whole answer, more than a far miss gets, so weigh it with parse_penalty. A row without
    spans, or with a bound that is not a finite number, raises AnnotationError naming its `id`; reversed and zero-length
    annotated spans count for nothing, and 0.0 is scored if no other is there.

    Source: arXiv 2607.17423; reward `tgiou` of MCG-NJU/TimeLens2@a5ce450 grpo/timelens/rewards/funcs.py.
    """
    return [
        set_giou(predicted, true) if is_usable(predicted) else 0.0
        for predicted, true in answered(completions, spans, id, duration, grammar)
    ]
