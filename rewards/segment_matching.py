from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.matching import segment_match
from rlvtg.text.tags import is_empty_answer


def segment_matching(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    matching: str = "code",
    grammar: str = "ranges",
    **_: Any,
) -> list[float | None]:
    """How well the predicted spans match the annotated ones: global_matching and local_matching together.

    Formula: global + local with `matching` "code", (global + local) / 2 with "paper", each computed in that way.
    Range: [0, 3), above 2 only where annotated spans overlap each other, and [0, 1] with "paper". No parsable span:
    0.0, but an answer block with nothing in it counts as no spans, not as unparsable. A row without spans, or with a
    bound that is not a finite number, raises AnnotationError naming its `id`.

    Source: arXiv 2505.20715, r_M; reward `segment_matching` of THUNLP-MT/MUSEG@889565e src/train.py.
    Differs: there, an infinite end gives NaN, and annotations that are one [start, end] instead of a list of them
    score silently wrong.
    """
    return [
        segment_match(predicted, true, matching) if predicted or is_empty_answer(completion_text(completion)) else 0.0
        for completion, (predicted, true) in zip(
            completions, answered(completions, spans, id, duration, grammar), strict=True
        )
    ]
