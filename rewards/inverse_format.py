from collections.abc import Sequence
from typing import Any

from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.inverse import check_choice
from rlvtg.text.tags import is_only_answer


def inverse_format(completions: Sequence[Completion], *, think: str = "optional", **_: Any) -> list[float | None]:
    """Whether a completion is one answer block, for tasks that are answered with words.

    Formula: 1.0 if the whole text is one `<answer>` block with something in it, behind one think block, which is
    `optional`, `required` or `forbidden` as `think` says; 0.0 otherwise. Range: {0, 1}.

    Source: Invert4TVG, arXiv 2508.07388.
    Differs: the released format reward of the inverse tasks is `answer_format`, which allows no think block, and
    several answer blocks or an empty one.
    """
    check_choice("think", think, ("optional", "required", "forbidden"))
    texts = map(completion_text, completions)
    return [float(is_only_answer(text, think=think)) for text in texts]
