from collections.abc import Sequence
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.grammar import grammar as grammar_named
from rlvtg.text.span_set import merged_iou


def set_tiou(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    empty: float | None = None,
    grammar: str = "glue",
    **_: Any,
) -> list[float | None]:
    """Temporal IoU of all predicted spans with all annotated ones, as two sets of seconds.

    Formula: seconds in both sets divided by seconds in either; spans that overlap or touch are merged first, so naming
    a moment twice changes nothing. Range: [0, 1]. No readable answer: 0.0. Where neither set has any length, as with
    zero-length spans: `empty`, or 0.0 without it. A number for `empty` also allows rows annotated with no span, [], for
    which an answer that says so, as `[]` does in the grammar `glue`, scores `empty`. Otherwise a row without spans
    raises AnnotationError naming its `id`, as a bound that is not a finite number always does; a reversed or
    zero-length annotated span covers nothing.

    Source: arXiv 2504.06958; with `empty: 1.0`, reward `gqa_iou` of OpenGVLab/VideoChat-R1@73b2ea9 grpo_tasks.py, and
    with the grammar `glue_few`, `iou_glue_reward` of arXiv 2509.21100, @c9194bf reward_funcs.py.
    """
    named = grammar_named(grammar)
    rewards: list[float | None] = []
    rows = answered(completions, spans, id, duration, grammar, none_allowed=empty is not None)
    for completion, (predicted, true) in zip(completions, rows, strict=True):
        if predicted or named.says_none(completion_text(completion)):
            rewards.append(merged_iou(predicted, true, empty=empty or 0.0))
        else:
            rewards.append(0.0)
    return rewards
