import ast
import random

import pytest

from rlvtg.text.box import box_overlap
from rlvtg.text.grammars.boxes import parse


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 5, 15, 15), 25 / 175),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (10, 10, 0, 0), 0.0),
        ((10, 10, 0, 0), (10, 10, 0, 0), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
        ((-2, -2, 2, 2), (-1, -1, 1, 1), 0.25),
    ],
)
def test_overlap_is_intersection_over_union_in_either_order(a, b, value):
    assert box_overlap(a, b) == box_overlap(b, a) == pytest.approx(value)


def literal(text):
    """The boxes that Python reads in a text: one box, or a list of boxes."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return []
    boxes = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    if any(not isinstance(box, (list, tuple)) or len(box) != 4 for box in boxes):
        return []
    return [tuple(map(float, box)) for box in boxes]


def test_boxes_are_read_as_python_reads_them():
    draw = random.Random(0)
    numbers = ["0", "7", "12", "3.5", ".5", "5.", "-1", "+2", "1e1", "2.5E-1"]
    texts = []
    for _ in range(5000):
        pad = draw.choices(["", "", " ", "\n"], k=4)
        boxes = [
            "[" + f"{pad[0]},{pad[1]}".join(draw.choices(numbers, k=draw.choice([4] * 8 + [3, 5]))) + pad[2] + "]"
            for _ in range(draw.randint(1, 9))
        ]
        texts.append("[" + ", ".join(boxes) + draw.choice(["", "", ",", ",,", " "]) + "]")
        texts.append(draw.choice(boxes))
    assert [parse(text) for text in texts] == [literal(text) for text in texts]
    assert sum(bool(parse(text)) for text in texts) > 4000


@pytest.mark.parametrize("text", ["", "[]", "[[]]", "1, 2, 3, 4", "[1, 2, 3, x]", "[1, 2, 3, 1e999]", "[[1, 2, 3, 4]"])
def test_anything_else_holds_no_boxes(text):
    assert parse(text) == []
