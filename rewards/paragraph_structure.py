from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.tags import last_think


def paragraph_structure(
    completions: Sequence[Completion], *, each: float = 0.05, most: int = 2, **_: Any
) -> list[float | None]:
    """How many paragraphs the reasoning has; the paper only logs it (weight 0).

    Formula: each * min(n, most), n the number of lines of the last think block that are not blank.
    Range: {0, 0.05, 0.1}. No closed think block: 0.0.

    Source: arXiv 2503.13377; metric `reward_paragraph_structure` of xiaomi-research/time-r1@7f2b594 main.py.
    """
    thoughts = [last_think(completion_text(completion)) or "" for completion in completions]
    return [each * min(sum(bool(line.strip()) for line in thought.split("\n")), most) for thought in thoughts]
