from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion
from rlvtg.text.span_set import is_usable


def parse_penalty(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    grammar: str = "to",
    **_: Any,
) -> list[float | None]:
    """A penalty for an answer in which no spans can be read, or not only spans.

    Formula: 0.0 if at least one span can be parsed and every one of them ends after it starts, else -1.0.
    Range: {-1, 0}. What is annotated does not matter, but a row without spans, or with a bound that is not a finite
    number, raises AnnotationError naming its `id`.

    Source: arXiv 2607.17423; reward `parse_penalty` of MCG-NJU/TimeLens2@a5ce450 grpo/timelens/rewards/funcs.py.
    """
    return [
        0.0 if is_usable(predicted) else -1.0
        for predicted, _annotated in answered(completions, spans, id, duration, grammar)
    ]
