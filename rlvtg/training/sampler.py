"""Which prompts an epoch brings and in which order, for TRL's generation batches.

The order of epoch k follows from the seed and k alone. TRL's own `RepeatSampler` draws from one generator epoch after
epoch, so that a run resumed in its third epoch would go through the first one's order again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from rlvtg.data.mix import mixed
from rlvtg.recipe import GrpoStage

Order = Callable[[int, np.random.Generator], Sequence[int]]
"""The rows of one epoch in order, given the epoch's number and a generator of its own; as many in every epoch."""


def shuffled(count: int) -> Order:
    """Every one of `count` rows once, in a new order each epoch."""
    return lambda epoch, generator: generator.permutation(count).tolist()


def videos_together(videos: Sequence[Any], most: int) -> Order:
    """Every row once, in a new order each epoch in which up to `most` rows about one video follow each other.

    Args:
        videos: for each row what says which video it is about.
        most: 1 is `shuffled`.
    """
    about: dict[Any, list[int]] = {}
    for row, video in enumerate(videos):
        about.setdefault(video, []).append(row)

    def order(epoch: int, generator: np.random.Generator) -> list[int]:
        runs = []
        for rows in about.values():
            mixed = generator.permutation(rows).tolist()
            runs += [mixed[start : start + most] for start in range(0, len(mixed), most)]
        return [row for index in generator.permutation(len(runs)) for row in runs[index]]

    return order


def order_of(stage: GrpoStage, rows: Sequence[Mapping[str, Any]]) -> Order:
    """The order in which a stage goes through its rows."""
    shares = {key: task.share for key, task in stage.tasks.items() if task.share is not None}
    if shares:
        return mixed([row["task"] for row in rows], shares)
    videos = [(row["video"], row["video_start"], row["video_end"]) for row in rows]
    return videos_together(videos, stage.queries_per_video)


class GroupSampler(Sampler[int]):
    """Row numbers as TRL's `GRPOTrainer` wants them: each prompt G times, each generation batch once for every use.

    Prompts that do not fill the last generation batch of an epoch are left out of that epoch, as in TRL.

    Args:
        order: the rows of an epoch.
        prompts: P, prompts in a generation batch of all processes together.
        num_generations: G.
        repeats: how often the trainer asks for the same generation batch before it wants the next.
        seed: the same in every process.
    """

    def __init__(self, order: Order, *, prompts: int, num_generations: int, repeats: int, seed: int) -> None:
        self._order = order
        self._prompts = prompts
        self._num_generations = num_generations
        self._repeats = repeats
        self._seed = seed
        self._epoch = 0
        self._batches = len(self._rows()) // prompts

    def set_epoch(self, epoch: int) -> None:
        """Go through the order of this epoch from now on; Hugging Face's `Trainer` calls it."""
        self._epoch = epoch

    def _rows(self) -> Sequence[int]:
        return self._order(self._epoch, np.random.default_rng([self._seed, self._epoch]))

    def __iter__(self) -> Iterator[int]:
        rows = self._rows()
        for batch in range(self._batches):
            chunk = rows[batch * self._prompts : (batch + 1) * self._prompts]
            for _ in range(self._repeats):
                for row in chunk:
                    yield from [row] * self._num_generations

    def __len__(self) -> int:
        return self._batches * self._prompts * self._repeats * self._num_generations
