from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.grammars.tuples import read
from rlvtg.text.tags import is_blocks


def glue_format(
    completions: Sequence[Completion], *, think: bool = True, most: int | None = None, **_: Any
) -> list[float | None]:
    """Whether a completion is a think, an answer and a glue block, and the glue block a list of spans.

    Formula: 1.0 if the stripped text is `<think>...</think>`, `<answer>...</answer>`, `<glue>...</glue>` with only
    white space between them, and the first glue block holds `[(s, e), ...]` with numbers >= 0 and s <= e, or `[]`; 0.0
    otherwise. Range: {0, 1}. Without `think`, the think block must be left out; with `most`, a longer list scores 0.0.

    Source: arXiv 2504.06958; reward `gqa_format` of OpenGVLab/VideoChat-R1@73b2ea9 grpo_tasks.py. With `think: false`
    and `most: 3`, `format_reward_gqa` of arXiv 2509.21100, @c9194bf reward_funcs.py.
    Differs: a number too large for a float makes the list unreadable.
    """
    blocks = ("think", "answer", "glue") if think else ("answer", "glue")
    texts = map(completion_text, completions)
    return [float(is_blocks(text, *blocks) and read(text, "glue", most) is not None) for text in texts]
