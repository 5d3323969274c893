from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.tags import last_think


def think_length(
    completions: Sequence[Completion], *, each: float = 0.001, most: int = 500, **_: Any
) -> list[float | None]:
    """How long the reasoning is; the paper only logs it (weight 0).

    Formula: each * min(n, most), n the number of characters of the last think block, stripped. Range: [0, 0.5].
    No closed think block: 0.0.

    Source: arXiv 2503.13377; metric `reward_think_length` of xiaomi-research/time-r1@7f2b594 main.py.
    """
    thoughts = [last_think(completion_text(completion)) or "" for completion in completions]
    return [each * min(len(thought), most) for thought in thoughts]
