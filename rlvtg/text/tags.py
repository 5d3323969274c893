"""The blocks of a completion: what stands between `<answer>` and `</answer>`, and whether the blocks are in order.

Completions are untrusted text of any length, so each function runs in linear time and gives what the paper's own,
possibly quadratic, expression gives (cited with each).
"""

import re
from collections.abc import Iterator


def answer_blocks(text: str) -> Iterator[str]:
    """What stands in each closed `<answer>` block, `re.findall("<answer>(.*?)</answer>", text, re.DOTALL)`."""
    position = 0
    while (start := text.find("<answer>", position)) >= 0:
        start += len("<answer>")
        end = text.find("</answer>", start)
        if end < 0:
            return
        yield text[start:end]
        position = end + len("</answer>")


def first_answer(text: str) -> str | None:
    """What stands in the first closed `<answer>` block, or None."""
    return next(answer_blocks(text), None)


def first_line_answer(text: str) -> str | None:
    """What stands in the first closed `<answer>` block that is one line, white space around it removed, or None.

    `re.search(r"<answer>\\s*(.*?)\\s*</answer>", text)`, where `.` is no line break.
    """
    position = 0
    while (close := text.find("</answer>", position)) >= 0:
        last = position + len(text[position:close].rstrip())
        newline = text.rfind("\n", position, last)
        # Of the tags before that line break, only one with nothing but white space in between opens a single line.
        start = text.rfind("<answer>", position, max(newline, position))
        if start < 0 or text[start + len("<answer>") : newline].strip():
            start = text.find("<answer>", max(newline, position), close)
        if start >= 0:
            return text[start + len("<answer>") : close].strip()
        position = close + len("</answer>")
    return None


def last_answer(text: str) -> str | None:
    """What stands in the last closed `<answer>` block, or None."""
    answers = list(answer_blocks(text))
    return answers[-1] if answers else None


def only_answer(text: str) -> str | None:
    """What stands between the tags if there is exactly one `<answer>` and, after it, exactly one `</answer>`."""
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    answer, closed, _ = text.partition("<answer>")[2].partition("</answer>")
    return answer if closed else None


def is_empty_answer(text: str) -> bool:
    """Whether the one answer block holds nothing but white space."""
    answer = only_answer(text)
    return answer is not None and not answer.strip()


def only_think_answer(text: str) -> tuple[str, str] | None:
    """What stands in the think and in the answer block of a text of nothing else, each tag standing there once.

    The groups of `^\\s*<think>(.*?)</think>\\s*<answer>(.*?)</answer>\\s*$` (DOTALL) where each tag occurs exactly once.
    """
    if any(text.count(tag) != 1 for tag in ("<think>", "</think>", "<answer>", "</answer>")):
        return None
    text = text.strip()
    if not (text.startswith("<think>") and text.endswith("</answer>")):
        return None
    think, _, rest = text.removeprefix("<think>").removesuffix("</answer>").partition("</think>")
    between, opened, answer = rest.partition("<answer>")
    return (think, answer) if opened and not between.strip() else None


def is_think_answer(text: str) -> bool:
    """Whether `text`, stripped, is a think block and an answer block with only white space between them.

    `re.fullmatch(r"<think>.*?</think>\\s*<answer>.*?</answer>", text.strip(), re.DOTALL)`: further blocks may stand
    inside either one, and both may be empty.
    """
    text = text.strip()
    if not (text.startswith("<think>") and text.endswith("</answer>")):
        return False
    return _BETWEEN_BLOCKS.search(text, len("<think>"), len(text) - len("</answer>")) is not None


_BETWEEN_BLOCKS = re.compile(r"</think>\s*<answer>")
