from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.grammars.boxes import parse
from rlvtg.text.tags import first_block, is_blocks


def box_format(
    completions: Sequence[Completion], *, boxes: int = 8, block: str = "answer", think: bool = True, **_: Any
) -> list[float | None]:
    """Whether a completion is its blocks in order and the one for boxes holds as many as it should.

    Formula: 1.0 if the stripped text is `<think>...</think>`, `<answer>...</answer>`, and `<glue>...</glue>` if `block`
    is glue, with only white space between them, and the first `block` holds `boxes` boxes of four numbers; 0.0
    otherwise. Range: {0, 1}. Without `think`, the think block must be left out.

    Source: arXiv 2504.06958; reward `tracking_format` of OpenGVLab/VideoChat-R1@73b2ea9 grpo_tasks.py. Without `think`
    that of arXiv 2509.21100, @c9194bf reward_funcs.py, and with `block: glue` and `boxes: 1` its `format_reward_igqa`.
    Differs: there, what stands in a box need not be a number.
    """
    tags = [*(["think"] if think else []), "answer", *([block] if block != "answer" else [])]
    rewards: list[float | None] = []
    for completion in completions:
        text = completion_text(completion)
        rewards.append(float(is_blocks(text, *tags) and len(parse(first_block(text, block) or "")) == boxes))
    return rewards
