from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.tags import is_think_answer


def think_format(completions: Sequence[Completion], **_: Any) -> list[float | None]:
    """Whether a completion is a think block followed by an answer block; what stands in them is not looked at.

    Formula: 1.0 if the stripped text is `<think>...</think>`, white space or nothing, `<answer>...</answer>`, and
    0.0 otherwise. Range: {0, 1}. Further blocks inside either one are allowed, as are empty ones.

    Source: arXiv 2503.13377; reward `format` of xiaomi-research/time-r1@7f2b594 main.py.
    """
    return [float(is_think_answer(completion_text(completion))) for completion in completions]
