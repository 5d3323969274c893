from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion
from rlvtg.text.shaping import shaped_iou
from rlvtg.text.span import iou


def shaped_tiou(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    tau: float = 0.8,
    a1: float = 0.01,
    a2: float = 1.0,
    shape_unparsed: bool = True,
    grammar: str = "to",
    **_: Any,
) -> list[float | None]:
    """Temporal IoU bent so that a group's advantages tell misses apart and hits hardly; with several annotated spans,
    the best of them.

    Formula: f(IoU) with f(r) = tau + a1 * ln(r - tau + 1) for r >= tau and
    f(r) = tau - (exp(a2 * (tau - r)) - 1) / (exp(a2) - 1) below, or max(0, r) where a2 <= 0.
    Range: [0.086, 0.802]. No parsable span: f(0) = 0.0868, as published, or 0.0 with `shape_unparsed` false, so that an
    answer that misses is better than none. A row without spans, or with a bound that is not a finite number, raises
    AnnotationError naming its `id`; a reversed or zero-length annotated span overlaps nothing and scores f(0) (refuse
    such rows when loading data).

    Source: TempSamp-R1, arXiv 2509.18056, Eq. 4; `transform_rewards` of ZhangZikun6666/TempSamp-R1@55a9228
    scripts/timelens/timelens_reward.py.
    Differs: `shape_unparsed` is ours; a1 is fixed there. There, a row of several spans scores f(0) for any answer.
    """
    unparsed = shaped_iou(0.0, tau=tau, a1=a1, a2=a2) if shape_unparsed else 0.0
    return [
        shaped_iou(max(iou(predicted[0], span) for span in true), tau=tau, a1=a1, a2=a2) if predicted else unparsed
        for predicted, true in answered(completions, spans, id, duration, grammar)
    ]
