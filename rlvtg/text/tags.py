"""The blocks of a completion: what stands between `<answer>` and `</answer>`, and whether the blocks are in order.

Completions are untrusted text of any length, so each function runs in linear time and gives what the paper's own,
possibly quadratic, expression gives (cited with each).
"""

import re
from collections.abc import Iterator
from itertools import pairwise


def answer_blocks(text: str) -> Iterator[str]:
    """What stands in each closed `<answer>` block, `re.findall("<answer>(.*?)</answer>", text, re.DOTALL)`."""
    return blocks(text, "answer")


def blocks(text: str, tag: str) -> Iterator[str]:
    """What stands in each closed block of `tag`, `re.findall("<tag>(.*?)</tag>", text, re.DOTALL)`."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    position = 0
    while (start := text.find(opening, position)) >= 0:
        start += len(opening)
        end = text.find(closing, start)
        if end < 0:
            return
        yield text[start:end]
        position = end + len(closing)


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


def first_block(text: str, tag: str) -> str | None:
    """What stands in the first closed block of `tag`, or None."""
    return next(blocks(text, tag), None)


def last_think(text: str) -> str | None:
    """What stands in the last closed `<think>` block, stripped, or None."""
    thoughts = list(blocks(text, "think"))
    return thoughts[-1].strip() if thoughts else None


def only_answer(text: str) -> str | None:
    """What stands between the tags if there is exactly one `<answer>` and, after it, exactly one `</answer>`."""
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    answer, closed, _ = text.partition("<answer>")[2].partition("</answer>")
    return answer if closed else None


def is_answer(text: str) -> bool:
    """Whether `text`, stripped, starts with `<answer>` and ends with `</answer>`.

    `re.fullmatch("<answer>.*?</answer>", text.strip(), re.DOTALL)`: further blocks may stand inside.
    """
    text = text.strip()
    return text.startswith("<answer>") and text.endswith("</answer>")


def is_only_answer(text: str, *, think: str = "optional") -> bool:
    """Whether `text` is one answer block that is not empty, behind at most one think block, and nothing else.

    `think` says whether the think block is `optional`, `required` or `forbidden`; each tag stands there once.
    """
    answer = only_answer(text)
    if answer is None or not answer.strip():
        return False
    before, _, rest = text.partition("<answer>")
    if rest.partition("</answer>")[2].strip():
        return False
    before = before.strip()
    if not before:
        return think != "required"
    closed = before.startswith("<think>") and before.endswith("</think>")
    return think != "forbidden" and closed and before.count("<think>") == before.count("</think>") == 1


def is_empty_answer(text: str) -> bool:
    """Whether the one answer block holds nothing but white space."""
    answer = only_answer(text)
    return answer is not None and not answer.strip()


def only_think_answer(text: str) -> tuple[str, str] | None:
    """What stands in the think and in the answer block of a text of nothing else, each tag standing there once.

    The groups of `^\\s*<think>(.*?)</think>\\s*<answer>(.*?)</answer>\\s*$` (DOTALL) where each tag occurs once.
    """
    if any(text.count(tag) != 1 for tag in ("<think>", "</think>", "<answer>", "</answer>")):
        return None
    text = text.strip()
    if not (text.startswith("<think>") and text.endswith("</answer>")):
        return None
    think, _, rest = text.removeprefix("<think>").removesuffix("</answer>").partition("</think>")
    between, opened, answer = rest.partition("<answer>")
    return (think, answer) if opened and not between.strip() else None


def opening_answer(text: str) -> str | None:
    """The answer of a think block and an answer block with which `text` begins, or None.

    The group of `re.match(r"<think>.*?</think>\\s*<answer>(.*?)</answer>", text, re.DOTALL)`.
    """
    if not text.startswith("<think>"):
        return None
    between = _BETWEEN_BLOCKS.search(text, len("<think>"))
    return _up_to_answer_end(text, between.end()) if between else None


def thinking_answer(text: str) -> str | None:
    """The answer of the first thinking block that an answer block follows, anywhere in `text`, or None.

    The group of `re.search(r"<T>.*?</T>\\s*<answer>(.*?)</answer>", text, re.DOTALL)` with `(?:redacted_)?thinking`
    for T.
    """
    opening = _THINKING.search(text)
    between = _BETWEEN_THINKING.search(text, opening.end()) if opening else None
    return _up_to_answer_end(text, between.end()) if between else None


def is_think_answer(text: str, *, strip: bool = True) -> bool:
    """Whether `text`, stripped or as it is, is a think block and an answer block with only white space between them.

    `re.fullmatch(r"<think>.*?</think>\\s*<answer>.*?</answer>", text.strip(), re.DOTALL)`: further blocks may stand
    inside either one, and both may be empty.
    """
    text = text.strip() if strip else text
    if not (text.startswith("<think>") and text.endswith("</answer>")):
        return False
    return _BETWEEN_BLOCKS.search(text, len("<think>"), len(text) - len("</answer>")) is not None


def is_blocks(text: str, *tags: str) -> bool:
    """Whether `text`, stripped, is one block of each of `tags` in their order, with only white space between them.

    For a and b, `re.fullmatch(r"<a>.*?</a>\\s*<b>.*?</b>", text.strip(), re.DOTALL)`: further blocks may stand inside
    each one, and all may be empty.
    """
    text = text.strip()
    if not (text.startswith(f"<{tags[0]}>") and text.endswith(f"</{tags[-1]}>")):
        return False
    position, end = len(f"<{tags[0]}>"), len(text) - len(f"</{tags[-1]}>")
    for left, right in pairwise(tags):
        between = re.compile(rf"</{left}>\s*<{right}>").search(text, position, end)
        if between is None:
            return False
        # The earliest border leaves the most room for those after it.
        position = between.end()
    return position <= end


def is_thinking_answer(text: str) -> bool:
    """Whether `text`, not stripped, is a thinking block and an answer block with only white space between them.

    `re.fullmatch(r"<T>.*?</T>\\s*<answer>.*?</answer>", text, re.DOTALL)` with `(?:redacted_)?thinking` for T.
    """
    opening = _THINKING.match(text)
    if opening is None or not text.endswith("</answer>"):
        return False
    return _BETWEEN_THINKING.search(text, opening.end(), len(text) - len("</answer>")) is not None


def timestep_ranges(text: str) -> int:
    """How many `<timestep>a to b</timestep>` there are in a text.

    The matches of Time-R1's `<timestep>\\s*(\\d+\\.?\\d*)\\s+to\\s+(\\d+\\.?\\d*)\\s*</timestep>`, ignoring case.
    """
    return sum(1 for _ in _TIMESTEP_RANGE.finditer(text))


def _up_to_answer_end(text: str, start: int) -> str | None:
    end = text.find("</answer>", start)
    return None if end < 0 else text[start:end]


_BETWEEN_BLOCKS = re.compile(r"</think>\s*<answer>")
_THINKING = re.compile("<(?:redacted_)?thinking>")
_BETWEEN_THINKING = re.compile(r"</(?:redacted_)?thinking>\s*<answer>")
_TIMESTEP_RANGE = re.compile(r"<timestep>\s*+\d++\.?+\d*+\s++to\s++\d++\.?+\d*+\s*+</timestep>", re.IGNORECASE)
