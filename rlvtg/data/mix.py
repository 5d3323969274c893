"""Which task each group of an epoch is of, when a stage gives its tasks shares.

A group is the completions of one row, so it is of one task whatever is drawn.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np


def mixed(tasks: Sequence[str], shares: Mapping[str, float]) -> Callable[[int, np.random.Generator], list[int]]:
    """The order of the rows of each epoch, as a function of its number and a generator of its own.

    An epoch is one pass over the rows of the first task, in a new order each time, among which those of the other tasks
    are strewn: at every place the task is drawn with the given shares, given that the first one comes as often as it
    has rows. Rows of another task are drawn without replacement, and all of them anew when they are used up; every
    epoch begins with all of them. So every epoch has `epoch_length` rows.

    Args:
        tasks: the task of each row.
        shares: of the tasks, the first one first; they are taken relative to their sum.

    Source: the draw of a task for every step, Invert4TVG (arXiv 2508.07388): grounding 0.8, inverse tasks 0.2.
    """
    rows = {task: [row for row, own in enumerate(tasks) if own == task] for task in shares}
    first, *others = shares
    count = len(rows[first])
    strewn = epoch_length(count, shares) - count
    weights = np.array([shares[task] for task in others])

    def order(epoch: int, generator: np.random.Generator) -> list[int]:
        drawn = [first] * count
        if strewn:
            drawn += [others[index] for index in generator.choice(len(others), size=strewn, p=weights / weights.sum())]
        streams = {task: _passes(rows[task], generator) for task in shares}
        return [next(streams[drawn[place]]) for place in generator.permutation(len(drawn))]

    return order


def epoch_length(count: int, shares: Mapping[str, float]) -> int:
    """How many rows an epoch has whose first task has `count` rows."""
    first = next(iter(shares.values()))
    return count if len(shares) == 1 else round(count * sum(shares.values()) / first)


def _passes(rows: Sequence[int], generator: np.random.Generator) -> Iterator[int]:
    while True:
        yield from generator.permutation(rows).tolist()
