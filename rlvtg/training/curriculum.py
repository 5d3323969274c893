"""The order in which an epoch takes its rows, by their difficulty: easy ones first, hard ones first, or as selected."""

from collections.abc import Callable, Sequence

import torch

from rlvtg.recipe import Curriculum

Order = Callable[[int, torch.Generator], list[int]]
"""(number of the epoch, its random numbers) -> every row once."""


def curriculum_order(curriculum: Curriculum, ious: Sequence[float] | None, count: int) -> Order:
    """The order of each epoch, as a function of the epoch and of random numbers that are its own.

    The rows are sorted by IoU, the highest, easiest, first (`easy_first`) or last (`hard_first`); rows with the same
    IoU are shuffled. With `parts`, the sorted rows are cut into so many parts, which differ by one row at most, and are
    shuffled inside each; parts: 1 is a plain shuffle. `as_selected` keeps the rows as they are. Every epoch starts from
    the beginning, with new shuffles. What does not fill a last rollout is at the end of the order and is left out, so a
    sorted order leaves out rows of one kind.

    Args:
        curriculum: as the recipe states it.
        ious: of each row, in [0, 1]; only `as_selected` does without.
        count: of rows.

    Raises ValueError for another number of `ious` than rows.
    """
    if curriculum.order == "as_selected":
        return lambda epoch, generator: list(range(count))
    if ious is None or len(ious) != count:
        raise ValueError(f"got {0 if ious is None else len(ious)} IoUs for {count} rows, want one of each")
    sign = -1.0 if curriculum.order == "easy_first" else 1.0
    keys = [sign * iou for iou in ious]

    def order(epoch: int, generator: torch.Generator) -> list[int]:
        shuffled = torch.randperm(count, generator=generator).tolist()
        rows = sorted(shuffled, key=lambda row: keys[row])
        if curriculum.parts is None:
            return rows
        result: list[int] = []
        for part in range(curriculum.parts):
            start, end = (count * edge // curriculum.parts for edge in (part, part + 1))
            inside = torch.randperm(end - start, generator=generator).tolist()
            result += [rows[start + place] for place in inside]
        return result

    return order
