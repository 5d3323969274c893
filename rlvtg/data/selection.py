"""Which rows to train on, chosen before training by how well a model already answers them.

Time-R1 (arXiv 2503.13377): `gaussian_draw` with the IoU of one greedy answer per row, and `spaced` between rounds.
TimeLens (arXiv 2512.14698): `fits`, then `draw_by_duration`. TimeLens2 (arXiv 2607.17423): `rollout_weights` from the
rewards of several sampled answers per row, then `weighted_draw`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from rlvtg.data.difficulty import gaussian_weight
from rlvtg.data.sample import DataError, Sample

# Half a minute each up to four minutes, then the rest. A duration on a boundary belongs to the shorter videos.
DURATION_RANGES = (*((float(start), start + 30.0) for start in range(0, 240, 30)), (240.0, inf))
IOU_BINS = 20


@dataclass(frozen=True)
class Draw:
    """What was drawn from some rows, such as those of one range of durations.

    Args:
        rows: the rows that could be drawn, rising.
        probabilities: of each of `rows` to be drawn first, (len(rows),), with sum 1.
        drawn: the rows drawn, in the order of the draw.
    """

    rows: list[int]
    probabilities: NDArray[np.float64]
    drawn: list[int]


def fits(sample: Sample, *, min_duration: float = 5.0, max_duration: float = 500.0, max_words: int = 200) -> bool:
    """Whether TimeLens would train on a row: its video neither too short nor too long (seconds, both ends allowed), its
    query not too long (parts between single blanks), and at least one span within the video."""
    return (
        min_duration <= sample.duration <= max_duration
        and len(sample.query.split(" ")) <= max_words
        and any(0 <= start <= end <= sample.duration for start, end in sample.spans)
    )


def spaced(ious: Sequence[float], size: int) -> list[int]:
    """At most `size` rows, rising: those at evenly spaced ranks of the IoU, the highest and the lowest among them.

    Source: xiaomi-research/time-r1@7f2b594 src/utils/process_data.py, which so bounds the rows of a round to 2,500.
    """
    order = sorted(range(len(ious)), key=lambda row: -ious[row])
    ranks = np.linspace(0, len(order) - 1, min(size, len(order))).round().astype(int)
    return sorted(order[rank] for rank in dict.fromkeys(ranks.tolist()))


def weighted_draw(weights: Sequence[float], size: int | None = None, *, seed: int = 42) -> Draw:
    """`size` rows, or all if there are fewer, drawn one after the other without replacement in proportion to `weights`.

    None draws all rows: a shuffle in which heavy rows tend to come first. That is what TimeLens2 does: it takes the
    rows in that order until its steps are done, so that so many rows are drawn as its steps take (source:
    MCG-NJU/TimeLens2@a5ce450 grpo/timelens/trainer.py RepeatSampler, one epoch, 300 steps of 8 rows).

    Raises DataError when fewer rows than are to be drawn have a weight above 0.
    """
    given = np.asarray(weights, dtype=np.float64)
    size = len(given) if size is None else min(size, len(given))
    if not np.count_nonzero(given > 0) >= max(size, 1):
        raise DataError(f"fewer than {max(size, 1)} of {len(given)} rows have any chance to be drawn")
    probabilities = given / given.sum()
    # of exponential waiting times with these rates, the shortest is a row's with its probability, and so on
    with np.errstate(divide="ignore"):
        times = np.random.default_rng(seed).exponential(size=len(given)) / probabilities
    return Draw(list(range(len(given))), probabilities, np.argsort(times, kind="stable")[:size].tolist())


def gaussian_draw(ious: Sequence[float], size: int, *, mean: float = 0.3, std: float = 0.2, seed: int = 42) -> Draw:
    """`size` rows, or all if there are fewer, drawn without replacement, most of them with an IoU near `mean`.

    The probability of a row is in proportion to `gaussian_weight`. Time-R1 leaves out rows with IoU 0 before.

    Raises DataError when `std` is so small that too few rows have any probability left.

    Source: xiaomi-research/time-r1@7f2b594 src/utils/process_data.py. Differs: there, fewer rows than `size` are an
    error, of which nothing is said.
    """
    try:
        return weighted_draw([gaussian_weight(iou, mean, std) for iou in ious], size, seed=seed)
    except DataError as error:
        raise DataError(f"std={std} around IoU {mean}: {error}") from error


def draw_by_duration(
    ious: Sequence[float],
    durations: Sequence[float],
    *,
    target: int = 2500,
    mean: float = 0.05,
    std: float = 0.2,
    level_bins: bool = True,
    seed: int = 42,
) -> list[Draw]:
    """About `target` rows, equally many from each of `DURATION_RANGES`, most of them with an IoU near `mean`.

    Of the rows of a range, floor(target / 9) are drawn without replacement, or all if there are fewer. The probability
    of a row is in proportion to exp(-((iou - mean) / std)^2 / 2); with `level_bins` that is divided by the number of
    rows of the range whose IoU lies in the same of 20 equal bins, so that a crowd of rows with IoU 0 does not drown the
    others. Ranges without rows are left out. The same seed draws the same rows.

    Args:
        ious: of the model's answer to each row, in [0, 1]; 0 where it could not be read.
        durations: of each row's video, seconds.

    Raises DataError for an IoU or a duration that is out of range, and when `std` is so small that too few rows of a
    range have any probability left.

    Source: TencentARC/TimeLens@5d90c06 training/data/{hybrid,grounding}.py. The paper writes the weight in terms of
    1 - IoU with the same mean, which would prefer easy rows; the code uses the IoU.
    """
    for row, (iou, duration) in enumerate(zip(ious, durations, strict=True)):
        if not (0 <= iou <= 1 and duration >= 0):
            raise DataError(f"row {row} has IoU {iou} and duration {duration}; want 0 <= IoU <= 1 and a duration >= 0")
    generator = np.random.default_rng(seed)
    draws = []
    for rows in _by_duration(durations):
        probabilities = _gaussian(np.array([ious[row] for row in rows]), mean, std, level_bins)
        size = min(target // len(DURATION_RANGES), len(rows))
        if not np.count_nonzero(probabilities > 0) >= max(size, 1):
            raise DataError(f"std={std} leaves fewer than {size} of {len(rows)} rows any chance around IoU {mean}")
        drawn = generator.choice(rows, size=size, replace=False, p=probabilities)
        draws.append(Draw(rows, probabilities, drawn.tolist()))
    return draws


def drawn_rows(draws: Sequence[Draw]) -> list[int]:
    """All rows drawn, in their original order."""
    return sorted(row for draw in draws for row in draw.drawn)


def rollout_weights(
    rewards: Sequence[Sequence[float]],
    means: Sequence[float] | None = None,
    *,
    std_power: float = 0.0,
    mean_power: float = 2.0,
    eps: float = 1e-8,
) -> NDArray[np.float64]:
    """How often to sample each row, relative to the others: (std + eps)^std_power * (1 - mean + eps)^mean_power, (n,).

    Args:
        rewards: of the answers sampled for each row; their population standard deviation is `std`. A row with fewer
            than two of them counts as one with std 0 and mean 0.
        means: the mean of another reward of the same answers for each row, where it is not to be that of `rewards`.
            Either one is clipped to [0, 1].
        eps: keeps every weight above 0.

    Source: MCG-NJU/TimeLens2@a5ce450 grpo/timelens/rewards/sampling.py; the released run uses powers 0 and 2 with the
    multi-span tIoU. Differs: there, the weights are divided by their sum in float32.
    """
    stds = np.array([np.std(row) if len(row) > 1 else 0.0 for row in rewards], dtype=np.float64)
    centres = [np.mean(row) if len(row) > 1 else 0.0 for row in rewards] if means is None else means
    if len(centres) != len(rewards):
        raise DataError(f"got {len(centres)} means for {len(rewards)} rows")
    return (stds + eps) ** std_power * (
        1.0 - np.clip(np.array(centres, dtype=np.float64), 0.0, 1.0) + eps
    ) ** mean_power


def _by_duration(durations: Sequence[float]) -> list[list[int]]:
    """The rows of each range of durations that has some."""
    ends = [end for _, end in DURATION_RANGES]
    place = np.searchsorted(ends, np.asarray(durations, dtype=np.float64))
    return [rows for index in range(len(ends)) if (rows := np.flatnonzero(place == index).tolist())]


def _gaussian(ious: NDArray[np.float64], mean: float, std: float, level_bins: bool) -> NDArray[np.float64]:
    weights = np.exp(-0.5 * ((ious - mean) / std) ** 2)
    if level_bins:
        counts, edges = np.histogram(ious, bins=IOU_BINS, range=(0.0, 1.0))
        bins = np.clip(np.digitize(ious, edges), 1, IOU_BINS) - 1
        weights = weights / (counts[bins] + 1e-6)  # the small number as there
    return weights / weights.sum()
