from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion
from rlvtg.text.span import iou
from rlvtg.text.span_set import merged_iou


def tiou(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    grammar: str = "to",
    true: str = "best",
    union: str = "hull",
    point: float = 0.0,
    **_: Any,
) -> list[float | None]:
    """Temporal IoU of the predicted span with the annotated one; with several annotated spans, the best of them, or
    the first with `true: first`.

    Formula: max(0, min(e, e') - max(s, s')) / (max(e, e') - min(s, s')), of the first predicted span: the hull is the
    union wherever two spans overlap. Range: [0, 1]. No parsable span: 0.0. With `union: true`, all predicted and all
    annotated spans count, as two sets of seconds: what is in both divided by what is in either. A zero-length
    prediction equal to a zero-length annotated span scores `point`; with `union: true`, so do sets without any length.
    A row without spans, or with a bound that is not a finite number, raises AnnotationError naming its `id`;
    a reversed or zero-length annotated span overlaps nothing and scores 0.0 (refuse such rows when loading data).

    Source: arXiv 2503.13377; reward `iou` of xiaomi-research/time-r1@7f2b594 main.py. With `true: first`, reward `tiou`
    of arXiv 2512.14698, TencentARC/TimeLens@5d90c06 reward_funcs.py. With `point: 1.0`, reward `iou` of arXiv
    2504.06958, OpenGVLab/VideoChat-R1@73b2ea9 grpo_tg.py (grammar `to_ordered`); with `union: true` as well,
    `iou_timestamp_reward` of arXiv 2509.21100, OpenGVLab/VideoChat-R1@c9194bf reward_funcs.py (grammar `tuples_few`).
    Differs: Time-R1 fails, or keeps the previous row's value, for a prediction equal to a zero-length annotation.
    """
    if true not in ("best", "first"):
        raise ValueError(f"reward tiou: got true={true!r}; it must be 'best' or 'first'")
    if union not in ("hull", "true"):
        raise ValueError(f"reward tiou: got union={union!r}; it must be 'hull' or 'true'")
    rewards: list[float | None] = []
    for predicted, annotated in answered(completions, spans, id, duration, grammar):
        if true == "first":
            annotated = annotated[:1]
        if not predicted:
            rewards.append(0.0)
        elif union == "true":
            rewards.append(merged_iou(predicted, annotated, empty=point))
        else:
            rewards.append(max(iou(predicted[0], span, point=point) for span in annotated))
    return rewards
