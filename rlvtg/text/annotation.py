"""What a reward reads from an annotated row, checked: a broken annotation stops the run and names its row."""

from collections.abc import Sequence
from math import isfinite
from numbers import Real
from typing import Any

from rlvtg.text.span import Span


class AnnotationError(ValueError):
    """A row's annotation cannot be scored against."""


def row_names(ids: Sequence[Any] | None, count: int) -> list[str]:
    """How to call each of `count` rows in an error: by its `id` column where there is one, else by its place."""
    if ids is None:
        return [f"row {index} of the batch" for index in range(count)]
    return [f"row {name!r}" for name in ids]


def annotated_spans(spans: Any, row: str) -> list[Span]:
    """One row's `spans` cell, [[start, end], ...] in seconds, as spans; AnnotationError names `row` and the fault.

    There must be at least one span and every bound must be a finite number. Their order is left alone: a reversed or
    zero-length span is a span that nothing overlaps.
    """
    if not isinstance(spans, (list, tuple)) or not spans:
        raise AnnotationError(f"{row}: spans must be a list of at least one [start, end] in seconds, got {spans!r}")
    for span in spans:
        if not isinstance(span, (list, tuple)) or len(span) != 2 or not all(map(_is_finite, span)):
            raise AnnotationError(f"{row}: every span must be two finite numbers [start, end], got {span!r}")
    return [(float(start), float(end)) for start, end in spans]


def annotated_duration(duration: Any, row: str) -> float:
    """One row's `duration` cell: the length of its video in seconds, finite and > 0, else AnnotationError."""
    if not _is_finite(duration) or duration <= 0:
        raise AnnotationError(f"{row}: duration must be a positive number of seconds, got {duration!r}")
    return float(duration)


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
