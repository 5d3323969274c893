from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.tags import last_think

KEYWORDS = (
    "analyze",
    "because",
    "compare",
    "deduce",
    "however",
    "identify",
    "notice",
    "observe",
    "step",
    "therefore",
    "wait",
)


def keyword_usage(
    completions: Sequence[Completion],
    *,
    keywords: Sequence[str] = KEYWORDS,
    each: float = 0.1,
    most: int = 2,
    **_: Any,
) -> list[float | None]:
    """How many words that reasoning is made of the reasoning uses; the paper only logs it (weight 0).

    Formula: each * min(n, most), n the number of `keywords` that occur in the last think block in any case, as a word
    or inside one. Range: {0, 0.1, 0.2}. No closed think block: 0.0.

    Source: arXiv 2503.13377; metric `reward_keyword_usage` of xiaomi-research/time-r1@7f2b594 main.py.
    """
    thoughts = [(last_think(completion_text(completion)) or "").lower() for completion in completions]
    return [each * min(sum(keyword in thought for keyword in keywords), most) for thought in thoughts]
