from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.tags import is_answer


def answer_format(completions: Sequence[Completion], **_: Any) -> list[float | None]:
    """Whether a completion is an answer block and nothing else; what stands in it is not looked at.

    Formula: 1.0 if the stripped text is `<answer>...</answer>`, and 0.0 otherwise. Range: {0, 1}. Further blocks inside
    it are allowed; a think block before it is not.

    Source: arXiv 2509.21100; `format_reward` of OpenGVLab/VideoChat-R1@c9194bf reward_funcs.py. arXiv 2508.07388;
    `format2` of nian1125/Invert4TVG@3597015 qwen-vl-finetune/qwenvl/train/reward.py, for the inverse tasks.
    """
    return [float(is_answer(completion_text(completion))) for completion in completions]
