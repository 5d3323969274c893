from collections.abc import Sequence
from math import exp, inf
from typing import Any

from rlvtg.text.answered import answered
from rlvtg.text.completion import Completion
from rlvtg.text.span_set import is_usable, merged, total_length
from rlvtg.text.transport import wasserstein as distance


def wasserstein(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None = None,
    duration: Sequence[float] | None = None,
    *,
    grammar: str = "to",
    beta: float = 1.0,
    order: int = 1,
    divisor: str = "true",
    **_: Any,
) -> list[float | None]:
    """How little time must be moved, and how far, to turn the predicted spans into the annotated ones: an answer that
    misses the event altogether still scores more, the nearer it is.

    Formula: exp(-beta * W / L), W the Wasserstein distance of `order` 1 or 2 between the uniform densities on the union
    of the predicted and on the union of the annotated spans, L the length of the annotated union (`divisor: true`) or
    of the union of all spans (`both`). Range: [0, 1]. No parsable span, or one that does not end after it starts: 0.0
    for the whole answer. A row without spans, or with a bound that is not a finite number, raises AnnotationError
    naming its `id`; reversed and zero-length annotated spans count for nothing, and 0.0 is scored if no other is there.

    Source: arXiv 2607.17423; MCG-NJU/TimeLens2@a5ce450 grpo/timelens/rewards/funcs.py, where `twass1` and `twass3` are
    beta 1 and 3, `r2twass1` is order 2 with divisor both, and `twass1` before f07353b is divisor both.
    """
    if not 0 < beta < inf:
        raise ValueError(f"reward wasserstein: got beta={beta!r}; it must be a finite number > 0")
    if order not in (1, 2):
        raise ValueError(f"reward wasserstein: got order={order!r}; it must be 1 or 2")
    if divisor not in ("true", "both"):
        raise ValueError(f"reward wasserstein: got divisor={divisor!r}; it must be 'true' or 'both'")
    rewards: list[float | None] = []
    for predicted, true in answered(completions, spans, id, duration, grammar):
        length = total_length(merged([*predicted, *true] if divisor == "both" else true))
        moved = distance(predicted, true, order) if is_usable(predicted) else inf
        rewards.append(exp(-beta * (moved / length)) if moved < inf else 0.0)
    return rewards
