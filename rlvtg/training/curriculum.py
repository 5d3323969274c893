"""The order in which an epoch takes its rows, by their difficulty: easy ones first, hard ones first, or as selected."""

from collections.abc import Sequence

import numpy as np

from rlvtg.recipe import Curriculum
from rlvtg.training.sampler import Order


def by_difficulty(curriculum: Curriculum, ious: Sequence[float]) -> Order:
    """Every row once, those with the highest IoU, which are the easiest, first (`easy_first`) or last (`hard_first`).

    Rows with the same IoU are shuffled. With `parts`, the sorted rows are cut into so many parts, which differ by one
    row at most, and each part is shuffled inside; one part is a plain shuffle. `as_selected` keeps the rows as they
    are. Every epoch starts from the beginning, with new shuffles. Since what does not fill a last generation batch is
    left out of an epoch, a sorted order leaves out rows of the same kind each time.

    Args:
        curriculum: as the recipe states it.
        ious: of each row, in [0, 1]; nothing but their number counts for `as_selected`.
    """
    keys = np.array(ious, dtype=np.float64) * (-1 if curriculum.order == "easy_first" else 1)

    def order(epoch: int, generator: np.random.Generator) -> list[int]:
        if curriculum.order == "as_selected":
            return list(range(len(keys)))
        mixed = generator.permutation(len(keys))
        rows = mixed[np.argsort(keys[mixed], kind="stable")]
        if curriculum.parts is not None:
            rows = np.concatenate([generator.permutation(part) for part in np.array_split(rows, curriculum.parts)])
        return rows.tolist()

    return order
