from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion
from rlvtg.text.matching import global_match


def global_matching(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    matching: str = "code",
    grammar: str = "ranges",
    **_: Any,
) -> list[float | None]:
    """How far the predicted spans, taken together, cover the annotated ones and nothing else.

    Formula: with `matching` "code", the Dice overlap 2pr / (p + r + 1e-6), p = o / (|P| + 1e-6), r = o / (|G| + 1e-6),
    o the overlaps of every merged predicted span with every annotated one, |P| and |G| their seconds; with "paper",
    the IoU |P and G| / |P or G| of the two unions. Range: [0, 2), above 1 only with "code" and annotated
    spans that overlap each other. No parsable span: 0.0. A row without spans, or with a bound that is not a finite
    number, raises AnnotationError naming its `id`; a reversed or zero-length annotated span overlaps nothing.

    Source: arXiv 2505.20715, r_G; reward `global_matching` of THUNLP-MT/MUSEG@889565e src/train.py.
    Differs: there, annotations that are one [start, end] instead of a list of them score silently wrong.
    """
    return [global_match(*pair, matching) for pair in answered(completions, spans, id, duration, grammar)]
