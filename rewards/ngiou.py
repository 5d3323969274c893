from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion
from rlvtg.text.matching import paired_giou
from rlvtg.text.span_set import is_usable, with_length


def ngiou(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    grammar: str = "to",
    **_: Any,
) -> list[float | None]:
    """How well the predicted and the annotated spans match one by one, in the order of their starts.

    Formula: the sum of (1 + GIoU) / 2 over the pairs first with first, second with second and so on, divided by the
    larger number of spans; a span without a partner adds 0. Range: [0, 1]. No parsable span, or one that does not end
    after it starts: 0.0 for the whole answer. A row without spans, or with a bound that is not a finite number, raises
    AnnotationError naming its `id`; reversed and zero-length annotated spans are left out.

    Source: arXiv 2607.17423; reward `ngiou` of MCG-NJU/TimeLens2@a5ce450 grpo/timelens/rewards/funcs.py.
    """
    return [
        paired_giou(predicted, with_length(true), by_start=True) if is_usable(predicted) else 0.0
        for predicted, true in answered(completions, spans, id, duration, grammar)
    ]
