from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.tags import is_thinking_answer


def thinking_format(completions: Sequence[Completion], **_: Any) -> list[float | None]:
    """Whether a completion is a thinking block followed by an answer block; what stands in them is not looked at.

    Formula: 1.0 if the text, not stripped, is `<thinking>...</thinking>`, white space or nothing,
    `<answer>...</answer>`, and 0.0 otherwise. Range: {0, 1}. `<redacted_thinking>` counts as `<thinking>`, `<think>`
    does not. Further blocks inside either one are allowed, as are empty ones.

    Source: arXiv 2607.17423; reward `format` of MCG-NJU/TimeLens2@a5ce450 grpo/timelens/rewards/funcs.py.
    """
    return [float(is_thinking_answer(completion_text(completion))) for completion in completions]
