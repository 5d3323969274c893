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
    """What stands in the first closed `<answer>` block, or None.

    The group of `re.search("<answer>(.*?)</answer>", text, re.DOTALL)`.
    """
    return _up_to_answer_end(text, text.find("<answer>") + len("<answer>")) if "<answer>" in text else None


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


def is_thinking_answer(text: str) -> bool:
    """Whether `text`, not stripped, is a thinking block and an answer block with only white space between them.

    `re.fullmatch(r"<T>.*?</T>\\s*<answer>.*?</answer>", text, re.DOTALL)` with `(?:redacted_)?thinking` for T.
    """
    opening = _THINKING.match(text)
    if opening is None or not text.endswith("</answer>"):
        return False
    return _BETWEEN_THINKING.search(text, opening.end(), len(text) - len("</answer>")) is not None


def _up_to_answer_end(text: str, start: int) -> str | None:
    end = text.find("</answer>", start)
    return None if end < 0 else text[start:end]


_BETWEEN_BLOCKS = re.compile(r"</think>\s*<answer>")
_THINKING = re.compile("<(?:redacted_)?thinking>")
_BETWEEN_THINKING = re.compile(r"</(?:redacted_)?thinking>\s*<answer>")
