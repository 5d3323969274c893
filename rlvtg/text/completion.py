"""The text of a completion, in either of the two shapes in which TRL hands completions over."""

from collections.abc import Mapping, Sequence
from typing import Any

Completion = str | Sequence[Mapping[str, Any]]
"""A plain string, or a list of messages such as [{"role": "assistant", "content": "..."}]."""


def completion_text(completion: Completion) -> str:
    """The text the model wrote: a string as it is, a list of messages as the joined text of its assistant messages.

    A message's content is a string, None, or a list of blocks, of which the ones of type "text" count.
    Any other shape raises TypeError: it comes from the caller, never from the model.
    """
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, (list, tuple)):
        raise TypeError(f"a completion is a string or a list of messages, got {type(completion).__name__}")
    return "".join(_content(message.get("content")) for message in completion if message.get("role") == "assistant")


def _content(content: str | Sequence[Mapping[str, Any]] | None) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content if block.get("type") == "text")
