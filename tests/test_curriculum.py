"""The order of an epoch by difficulty, as a pure function of the epoch's random numbers."""

from typing import Any

import numpy as np
import pytest

from rlvtg.recipe import Curriculum
from rlvtg.training.curriculum import by_difficulty

IOUS = [0.3, 0.0, 0.9, 0.3, 0.0, 0.6, 0.3]


def an_order(seed: int = 0, **curriculum: Any) -> list[int]:
    return list(by_difficulty(Curriculum(**curriculum), IOUS)(0, np.random.default_rng(seed)))


def test_easy_rows_are_those_with_a_high_iou_and_come_first() -> None:
    order = an_order(order="easy_first")
    assert [IOUS[row] for row in order] == [0.9, 0.6, 0.3, 0.3, 0.3, 0.0, 0.0]
    assert [IOUS[row] for row in an_order(order="hard_first")] == sorted(IOUS)
    assert all(type(row) is int for row in order)


def test_ties_are_shuffled_anew_by_the_random_numbers_and_by_nothing_else() -> None:
    orders = [tuple(an_order(seed, order="easy_first")) for seed in range(40)]
    assert {order[:2] for order in orders} == {(2, 5)}
    assert {frozenset(order[2:5]) for order in orders} == {frozenset({0, 3, 6})}
    assert len({order[2:5] for order in orders}) == 6 and {order[5:] for order in orders} == {(1, 4), (4, 1)}
    assert an_order(7, order="easy_first") == an_order(7, order="easy_first")


@pytest.mark.parametrize(("parts", "sizes"), [(1, [7]), (2, [4, 3]), (3, [3, 2, 2]), (7, [1] * 7), (9, [1] * 7)])
def test_parts_go_from_easy_to_hard_and_are_shuffled_inside(parts: int, sizes: list[int]) -> None:
    ious = [k / 10 for k in range(7)]
    order = by_difficulty(Curriculum("easy_first", parts), ious)
    seen = set()
    for seed in range(60):
        rows = list(order(seed, np.random.default_rng(seed)))
        ends = np.cumsum([0, *sizes])
        for start, end in zip(ends, ends[1:], strict=False):
            assert {ious[row] for row in rows[start:end]} == set(sorted(ious, reverse=True)[start:end])
        seen.add(tuple(rows[: sizes[0]]))
    assert len(seen) > 1 or sizes[0] == 1


def test_rows_can_stay_as_they_were_selected() -> None:
    assert an_order(order="as_selected") == [0, 1, 2, 3, 4, 5, 6]
