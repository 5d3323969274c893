"""What tells, beside the rewards, that a policy has found a way around them: how long its spans are and where they lie.

A policy that learns the data's average span, or answers with the whole video, shows here before it does in a reward.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlvtg.text.span import Span


def span_statistics(predicted: Sequence[Span], true: Sequence[Sequence[float]], duration: float) -> dict[str, float]:
    """One answer's spans in numbers, to be averaged over answers; {} where no span is annotated.

    Times are cut to the video, so that one absurd number cannot move an average, and a reversed span has length 0.

    `spans/number` of predicted spans; and where there are some: `spans/length` and `spans/true_length`, in seconds and
    all spans together, `spans/start` and `spans/end` of the earliest and latest predicted time as parts of the video,
    `spans/outside` 1.0 if one of the times lies outside the video.
    """
    if not true or not duration > 0:
        return {}
    if not predicted:
        return {"spans/number": 0.0}
    inside = [(_within(start, duration), _within(end, duration)) for start, end in predicted]
    return {
        "spans/number": float(len(predicted)),
        "spans/length": _length(inside),
        "spans/true_length": _length([(_within(start, duration), _within(end, duration)) for start, end in true]),
        "spans/start": min(start for start, _ in inside) / duration,
        "spans/end": max(end for _, end in inside) / duration,
        "spans/outside": float(any(not 0 <= time <= duration for span in predicted for time in span)),
    }


def drift(now: float | None, name: str, log_history: Iterable[Mapping[str, Any]]) -> float | None:
    """`now` as a multiple of what the metric `name` was when a stage first logged it; None as long as that is unknown.

    `log_history` is in every checkpoint, so a resumed stage measures from the same start.
    """
    first = next((entry[name] for entry in log_history if entry.get(name)), None)
    return None if first is None or now is None else now / first


def _within(time: float, duration: float) -> float:
    return min(max(time, 0.0), duration)


def _length(spans: Iterable[Span]) -> float:
    return sum(max(0.0, end - start) for start, end in spans)
