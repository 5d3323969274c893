"""Boxes in an image and their overlap. Pure functions; every result is a finite number."""

import json
from math import isfinite
from typing import Any

from rlvtg.text.annotation import AnnotationError

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1), in whatever unit both boxes are in."""


def box_overlap(a: Box, b: Box) -> float:
    """Area of the intersection divided by that of the union, in [0, 1]; 0.0 if a box has no area or is reversed."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if not (width > 0 and height > 0):
        return 0.0
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
    overlap = width * height / (sum(areas) - width * height)
    # Coordinates of 200 digits are finite, but the areas are not.
    return overlap if isfinite(overlap) else 0.0


def annotated_boxes(answer: Any, row: str) -> list[Box]:
    """One row's `answer` cell, the JSON text of a box [x0, y0, x1, y1] or of a list of boxes, as boxes.

    AnnotationError names `row` unless it is such a text of finite numbers.
    """
    try:
        value = json.loads(answer, parse_int=float)
    except (TypeError, ValueError) as error:
        raise AnnotationError(f"{row}: answer must be the JSON text of boxes, got {answer!r}") from error
    boxes = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    for box in boxes:
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
            raise AnnotationError(f"{row}: every box must be four finite numbers [x0, y0, x1, y1], got {box!r}")
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes]


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and isfinite(value)
