"""How hard rows are for a model: the IoUs that its answers to each of them reach. A higher IoU is an easier row.

Time-R1's files call 100 times the IoU `difficulty`, which is therefore higher for an easier row; TempSamp-R1's call
about 1 - IoU so, which is higher for a harder one. Here only IoUs are kept, in [0, 1].

    difficulty.jsonl  {"easier": "higher", ...}                              says what the numbers are
                      {"id": "a", "ious": [0.5, 0.0], "mean": 0.25, "std": 0.25}, one row each

How Time-R1 selects: rows that a model does not answer at all, or too well, teach little. Source: arXiv 2503.13377;
xiaomi-research/time-r1@7f2b594 src/utils/process_data.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from statistics import fmean, pstdev
from typing import Any

from rlvtg.data.annotation import any_rows, label, lined_rows, listed_rows, sequence
from rlvtg.data.sample import DataError

EASIER = "higher"
_NAMED = 3  # missing rows that an error names


@dataclass(frozen=True)
class Reached:
    """The IoUs in [0, 1] that a model's answers to the row `id` reached, 0 for an answer that could not be read."""

    id: str
    ious: tuple[float, ...]

    @property
    def mean(self) -> float:
        """What the row is called easy or hard by."""
        return fmean(self.ious)

    @property
    def std(self) -> float:
        """The population standard deviation; 0.0 for one answer."""
        return pstdev(self.ious)


def gaussian_weight(iou: float, mu: float = 0.3, sigma: float = 0.2) -> float:
    """exp(-(iou - mu)^2 / (2 sigma^2)), in (0, 1]: how likely a row is to be drawn, before the weights are normalised.

    `sigma` is the standard deviation. Time-R1 draws its 2,500 rows from those with IoU > 0. ValueError unless
    `sigma` > 0.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be > 0, got {sigma!r}")
    return exp(-((iou - mu) ** 2) / (2 * sigma**2))


def in_window(iou: float, low: float = 0.0, high: float = 0.7) -> bool:
    """Whether low < iou <= high: the rows that Time-R1 keeps between epochs."""
    return low < iou <= high


def read_difficulty(path: str, form: str = "rlvtg") -> dict[str, Reached]:
    """What a file says of rows, by id.

    Args:
        path: the file.
        form: `rlvtg`: a difficulty.jsonl. `time_r1`: a JSON list whose rows have `qid` and `difficulty`, 100 times an
            IoU (train_2k5.json). `tempsamp_r1`: JSON rows, listed or one per line, with `difficulty`, 1 - IoU, and the
            `id` that TempSamp-R1's own rows lack.

    Raises DataError naming file, row and field, for an IoU outside [0, 1] and for an id that comes twice.
    """
    found: dict[str, Reached] = {}
    for where, one in {"rlvtg": _own, "time_r1": _time_r1, "tempsamp_r1": _tempsamp_r1}[form](path):
        if one.id in found:
            raise DataError(f"{where}: id {one.id!r} comes twice")
        # rounding may take 1 - 1.0000001 of another's file just below 0
        if not one.ious or not all(isfinite(iou) and -1e-6 <= iou <= 1 + 1e-6 for iou in one.ious):
            raise DataError(f"{where}: row {one.id!r} has the IoUs {list(one.ious)}, want numbers from 0 to 1 "
                            f"(read as {form})")  # fmt: skip
        found[one.id] = Reached(one.id, tuple(min(1.0, max(0.0, iou)) for iou in one.ious))
    return found


def of_rows(found: Mapping[str, Reached], rows: Sequence[Mapping[str, Any]], path: str) -> list[Reached]:
    """What `found`, read from `path`, says of each of `rows`; DataError that counts and names rows it lacks."""
    missing = [row["id"] for row in rows if row["id"] not in found]
    if missing:
        some = ", ".join(map(repr, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        raise DataError(f"{path}: has no difficulty of {len(missing)} of {len(rows)} rows ({some})")
    return [found[row["id"]] for row in rows]


def _own(path: str) -> Iterator[tuple[str, Reached]]:
    lines = lined_rows(path)
    where, head = next(lines, (path, {}))
    if head.get("easier") != EASIER:
        raise DataError(f'{where}: got no line with "easier": "{EASIER}", with which a difficulty.jsonl begins; for a '
                        "file of another kind set the format: time_r1 or tempsamp_r1")  # fmt: skip
    for where, row in lines:
        yield where, Reached(label(row, "id", where), tuple(_numbers(sequence(row, "ious", where), "ious", where)))


def _time_r1(path: str) -> Iterator[tuple[str, Reached]]:
    for where, row in listed_rows(path):
        [difficulty] = _numbers([row.get("difficulty")], "difficulty", where)
        yield where, Reached(label(row, "qid", where), (difficulty / 100,))


def _tempsamp_r1(path: str) -> Iterator[tuple[str, Reached]]:
    for where, row in any_rows(path):
        [difficulty] = _numbers([row.get("difficulty")], "difficulty", where)
        yield where, Reached(label(row, "id", where), (1 - difficulty,))


def _numbers(values: Sequence[Any], field: str, where: str) -> list[float]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"{where}, field {field!r}: got {value!r}, expected a number")
    return [float(value) for value in values]
