"""The blocks of a completion: what stands between `<answer>` and `</answer>`, and whether the blocks are in order.

Completions are untrusted text of any length, so each function runs in linear time and gives what the paper's own,
possibly quadratic, expression gives (cited with each).
"""

import re
from itertools import pairwise


def last_answer(text: str) -> str | None:
    """What stands in the last closed `<answer>` block, or None.

    The last of `re.findall("<answer>(.*?)</answer>", text, re.DOTALL)`.
    """
    return _last_block(text, "answer")


def last_think(text: str) -> str | None:
    """What stands in the last closed `<think>` block, stripped, or None.

    The last of `re.findall("<think>(.*?)</think>", text, re.DOTALL)`, stripped.
    """
    think = _last_block(text, "think")
    return None if think is None else think.strip()


def first_answer(text: str) -> str | None:
    """What stands in the first closed `<answer>` block, or None.

    `re.search("<answer>(.*?)</answer>", text, re.DOTALL)`.
    """
    return first_block(text, "answer")


def first_block(text: str, tag: str) -> str | None:
    """What stands in the first closed block of `tag`, from its first opening to the first closing after that, or None.

    `re.search("<tag>(.*?)</tag>", text, re.DOTALL)`.
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    start = text.find(opening)
    end = text.find(closing, start + len(opening)) if start >= 0 else -1
    return text[start + len(opening) : end] if end >= 0 else None


def _last_block(text: str, tag: str) -> str | None:
    opening, closing = f"<{tag}>", f"</{tag}>"
    block, position = None, 0
    while (start := text.find(opening, position)) >= 0:
        start += len(opening)
        end = text.find(closing, start)
        if end < 0:
            break
        block, position = text[start:end], end + len(closing)
    return block


def is_think_answer(text: str) -> bool:
    """Whether `text`, stripped, is a think block and an answer block with only white space between them.

    `re.fullmatch(r"<think>.*?</think>\\s*<answer>.*?</answer>", text.strip(), re.DOTALL)`: further blocks may stand
    inside either one, and both may be empty.
    """
    return is_blocks(text, "think", "answer")


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


def timestep_ranges(text: str) -> int:
    """How many `<timestep>a to b</timestep>` there are in a text.

    The matches of Time-R1's `<timestep>\\s*(\\d+\\.?\\d*)\\s+to\\s+(\\d+\\.?\\d*)\\s*</timestep>`, ignoring case.
    """
    return sum(1 for _ in _TIMESTEP_RANGE.finditer(text))


_TIMESTEP_RANGE = re.compile(r"<timestep>\s*+\d++\.?+\d*+\s++to\s++\d++\.?+\d*+\s*+</timestep>", re.IGNORECASE)
