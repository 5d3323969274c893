from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.matching import local_match
from rlvtg.text.tags import is_empty_answer


def local_matching(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    matching: str = "code",
    grammar: str = "ranges",
    **_: Any,
) -> list[float | None]:
    """How near each predicted span is to the annotated one in its place, which still tells misses from near misses.

    Formula: mean of (1 + GIoU) / 2 over pairs of a predicted and an annotated span, as many as the longer list has.
    With `matching` "code" the i-th as written makes a pair with the i-th as annotated, and one without a partner with
    [1e9, 1e9 + 1], which scores about 1e-8; with "paper" both lists are sorted by start and one without a partner
    scores 0. Range: [0, 1]. No parsable span: 0.0, but an answer block with nothing in it counts as no spans, not as
    unparsable. A row without spans, or with a bound that is not a finite number, raises AnnotationError naming its
    `id`; a pair with a reversed or zero-length annotated span scores 0.0.

    Source: arXiv 2505.20715, r_L; reward `local_matching` of THUNLP-MT/MUSEG@889565e src/train.py.
    Differs: there, an infinite end gives NaN, annotations that are one [start, end] instead of a list of them score
    silently 0, and a zero-length annotated span can score above 0.
    """
    return [
        local_match(predicted, true, matching) if predicted or is_empty_answer(completion_text(completion)) else 0.0
        for completion, (predicted, true) in zip(
            completions, answered(completions, spans, id, duration, grammar), strict=True
        )
    ]
