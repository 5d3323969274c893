from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.tags import is_think_answer


def think_format(completions: Sequence[Completion], *, strip: bool = True, **_: Any) -> list[float | None]:
    """Whether a completion is a think block followed by an answer block; what stands in them is not looked at.

    Formula: 1.0 if the text, stripped unless `strip` is off, is `<think>...</think>`, white space or nothing,
    `<answer>...</answer>`, and 0.0 otherwise. Range: {0, 1}. Further blocks inside either one are allowed, as are empty
    ones.

    Source: arXiv 2503.13377; reward `format` of xiaomi-research/time-r1@7f2b594 main.py. With `strip` off, reward
    `format` of TencentARC/TimeLens@5d90c06 reward_funcs.py (arXiv 2512.14698).
    """
    return [float(is_think_answer(completion_text(completion), strip=strip)) for completion in completions]
