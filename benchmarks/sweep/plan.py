"""What is compared with what. Every arm is a recipe of recipes/sweep/, which says how it differs from its baseline."""

from collections.abc import Iterable
from dataclasses import dataclass

FIRST, ALL = "iou", "set_iou"


@dataclass(frozen=True)
class Comparison:
    """A baseline and the arms that are held against it, all from one cold start, or each from its own.

    Attributes:
        title: what differs.
        source: the paper that compares it.
        baseline: an arm.
        arms: the others.
        score: what is averaged over queries: the IoU of the first span (`iou`) or of all spans (`set_iou`).
    """

    title: str
    source: str
    baseline: str
    arms: tuple[str, ...]
    score: str = FIRST


COMPARISONS = (
    Comparison(
        "annotated answer in the group",
        "TempSamp-R1, arXiv 2509.18056",
        "plain",
        ("raw", "downscaled", "anchored", "shaped"),
    ),
    Comparison("rows trained on", "TimeLens, arXiv 2512.14698", "uniform", ("hard",)),
    Comparison("thinking", "TimeLens, arXiv 2512.14698", "plain", ("think",)),
    Comparison("spans paid for: IoU of all", "MUSEG, arXiv 2505.20715", "one_segment", ("all_segments",), ALL),
    Comparison("the same: IoU of the first", "MUSEG, arXiv 2505.20715", "one_segment", ("all_segments",)),
    Comparison("inverse tasks", "Invert4TVG, arXiv 2508.07388", "inverse_off", ("inverse_on",)),
    Comparison("how time is told", "TimeLens, arXiv 2512.14698", "positions", ("text", "overlay")),
)

# The cold start that each arm begins from, as its recipe's `model` says too.
STARTS = {
    "plain": "cold",
    "raw": "cold",
    "downscaled": "cold",
    "anchored": "cold",
    "shaped": "cold",
    "uniform": "cold",
    "hard": "cold",
    "think": "cold_think",
    "one_segment": "cold_several",
    "all_segments": "cold_several",
    "inverse_off": "cold_inverse",
    "inverse_on": "cold_inverse",
    "positions": "cold_positions",
    "text": "cold_text",
    "overlay": "cold_overlay",
}
SEEDS = (1, 2, 3)


def runs(arms: Iterable[str]) -> list[str]:
    """The cold starts that the arms need and the arms, each start before its arms."""
    ordered: dict[str, None] = {}
    for arm in arms:
        ordered.setdefault(STARTS[arm])
        ordered.setdefault(arm)
    return list(ordered)
