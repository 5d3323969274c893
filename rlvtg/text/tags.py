"""The blocks of a completion: what stands between `<answer>` and `</answer>`, and whether the blocks are in order.

Completions are untrusted text of any length, so each function runs in linear time and gives what the paper's own,
possibly quadratic, expression gives (cited with each).
"""

import re


def last_answer(text: str) -> str | None:
    """What stands in the last closed `<answer>` block, or None.

    The last of `re.findall("<answer>(.*?)</answer>", text, re.DOTALL)`.
    """
    answer, position = None, 0
    while (start := text.find("<answer>", position)) >= 0:
        start += len("<answer>")
        end = text.find("</answer>", start)
        if end < 0:
            break
        answer, position = text[start:end], end + len("</answer>")
    return answer


def first_answer(text: str) -> str | None:
    """What stands in the first closed `<answer>` block, or None."""
    _, opened, rest = text.partition("<answer>")
    answer, closed, _ = rest.partition("</answer>")
    return answer if opened and closed else None


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
