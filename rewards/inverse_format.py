from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.inverse import check_choice
from rlvtg.text.tags import is_answer, is_only_answer


def inverse_format(
    completions: Sequence[Completion], *, mode: str = "robust", think: str = "optional", **_: Any
) -> list[float | None]:
    """Whether a completion is one answer block, for tasks that are answered with words.

    Formula: 1.0 or 0.0. Range: {0, 1}. Modes:
    `robust`: the whole text is one `<answer>` block with something in it, behind one think block, which is `optional`,
    `required` or `forbidden` as `think` says.
    `original`: the stripped text starts with `<answer>` and ends with `</answer>`, so that a think block before it,
    which `think` cannot allow, gives 0.0, and several blocks or an empty one give 1.0.

    Source: Invert4TVG, arXiv 2508.07388; `format2` of nian1125/Invert4TVG@3597015
    qwen-vl-finetune/qwenvl/train/reward.py.
    Differs: `robust` is ours.
    """
    check_choice("mode", mode, ("robust", "original"))
    check_choice("think", think, ("optional", "required", "forbidden"))
    texts = map(completion_text, completions)
    return [float(is_answer(text) if mode == "original" else is_only_answer(text, think=think)) for text in texts]
