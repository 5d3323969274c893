from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.tags import last_think, timestep_ranges


def timestep_pair(
    completions: Sequence[Completion], *, each: float = 0.2, most: int = 1, **_: Any
) -> list[float | None]:
    """How many ranges of seconds the reasoning cites; the paper only logs it (weight 0).

    Formula: each * min(n, most), n the number of `<timestep>a to b</timestep>` in the last think block.
    Range: {0, 0.2}. No closed think block: 0.0.

    Source: arXiv 2503.13377; metric `reward_timestep_pair` of xiaomi-research/time-r1@7f2b594 main.py.
    """
    thoughts = [last_think(completion_text(completion)) or "" for completion in completions]
    return [each * min(timestep_ranges(thought), most) for thought in thoughts]
