from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.grammars.tempsamp_r1 import has_answered_pair


def span_format(completions: Sequence[Completion], *, strict: bool = False, **_: Any) -> list[float | None]:
    """Whether a completion has an answer block with two numbers in it; a think block may stand before it.

    Formula: 1.0 if the first closed `<answer>` block holds a number, then "to", "and" or "-" with or without white
    space around it, then a number, else 0.0. With `strict`, the block must also be the only one, be on one line, and
    end the text but for white space. Range: {0, 1}.

    Source: TempSamp-R1, arXiv 2509.18056; `_temporal_format_reward` of ZhangZikun6666/TempSamp-R1@55a9228
    scripts/timelens/timelens_reward.py, which weighs it 0.1. The paper's own format reward is `think_format`.
    """
    return [float(has_answered_pair(completion_text(completion), strict=strict)) for completion in completions]
