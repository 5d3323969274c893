from collections.abc import Sequence
from typing import Any

from rlvtg.text.annotation import AnnotationError, row_names
from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.option import first_capital, last_bracketed_letter, option_letter
from rlvtg.text.tags import first_answer

LETTERS = ("strict", "videochat_r1", "time_r1_eval")


def option_accuracy(
    completions: Sequence[Completion],
    answer: Sequence[str | None],
    id: Sequence[Any] | None = None,
    *,
    letter: str = "strict",
    **_: Any,
) -> list[float | None]:
    """Whether the answer to a multiple-choice question is the annotated option; None for a row without an `answer`.

    Formula: 1.0 if the letter read from the completion is that of the row's `answer`, and 0.0 otherwise. Range: {0, 1}.
    No readable letter: 0.0. `letter` says how both are read. `strict`: the first answer block begins with the letter,
    alone, in parentheses or before `.`, `)` or `:`, in either case. `time_r1_eval`: the last `(A)` of the whole text.
    `videochat_r1`: the first capital A to G of the first answer block. An `answer` without such a letter raises
    AnnotationError naming its row; with `videochat_r1` it only raises if it is no text.

    Source: arXiv 2504.06958; with `letter: videochat_r1`, reward `gqa_reward` of OpenGVLab/VideoChat-R1@73b2ea9
    grpo_tasks.py and `mqa_answer_reward` of xiaomi-research/time-r1@7f2b594 finetune.py; `time_r1_eval` is evaluate.py
    there.
    Differs: `strict` is ours. `videochat_r1` takes the A of `A dog`, the D of `I think it is DOG`, the B of
    `Best answer: A`, never a small letter, and an answer without a letter for right if the annotation has none either.
    """
    if letter not in LETTERS:
        raise ValueError(f"reward option_accuracy: got letter {letter!r}, want one of {', '.join(LETTERS)}")
    rewards: list[float | None] = []
    for completion, cell, row in zip(completions, answer, row_names(id, len(completions)), strict=True):
        if cell is None:
            rewards.append(None)
            continue
        true = _true_letter(cell, letter, row)
        text = completion_text(completion)
        block = first_answer(text)
        found: str | None
        if letter == "time_r1_eval":
            found = last_bracketed_letter(text)
        elif block is None:
            found = None
        else:
            found = first_capital(block) if letter == "videochat_r1" else option_letter(block)
        rewards.append(float(found == true))
    return rewards


def _true_letter(cell: Any, letter: str, row: str) -> str:
    if isinstance(cell, str):
        true = first_capital(cell) if letter == "videochat_r1" else option_letter(cell)
        if true is not None:
            return true
    raise AnnotationError(f"{row}: answer must name an option, as B or (B) does, got {cell!r}")
