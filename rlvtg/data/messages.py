"""Rows of ms-swift and of LLaMA-Factory: chat messages with `<video>` where the video goes, and the video's path.

{"messages": [{"role": "user", "content": "<video>..."}, {"role": "assistant", "content": "..."}], "videos": ["a.mp4"],
"solution": [[s, e], ...]}, one per line (ms-swift) or as one list (LLaMA-Factory)

The text of an answer is written in some model's way and is not searched for times: a row states its spans in `solution`
(a column that ms-swift hands to rewards) or in `spans`. It may also state "id", "duration", "task" and "answer"; a
`solution` that is a text is the answer.
"""

from pathlib import Path
from typing import Any

from rlvtg.data.annotation import any_rows, duration_or_nan, label, mapping, optional_text, sequence, spans, text
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Source


def read(source: Source) -> list[Sample]:
    """One sample per row: the user's text without `<video>` is the query, the assistant's text is the completion.

    The id is `id`, or else the annotation file's name and the row's number. A system message is not read: what a model
    is told besides the query is for the recipe to say.

    Raises DataError naming file, row or line, and field; for rows with another number of videos, user or assistant
    messages than one (no assistant message is fine), and for rows of task `grounding`, which is that of a row without
    `task`, that do not state their spans.
    """
    samples = []
    for k, (where, row) in enumerate(any_rows(source.annotations)):
        said = _said(row, where)
        videos = sequence(row, "videos", where)
        if len(videos) != 1 or not isinstance(videos[0], str):
            raise DataError(f"{where}, field 'videos': got {len(videos)} entries, expected the path of one file")
        task = optional_text(row, "task", where) or "grounding"
        field = next((name for name in ("spans", "solution") if isinstance(row.get(name), list)), None)
        if field is None and task == "grounding":
            raise DataError(
                f"{where}: no spans; state them as [[start, end], ...] in 'solution' or 'spans', since the assistant's "
                "text is not searched for them, or state another 'task'"
            )
        samples.append(
            Sample(
                id=label(row, "id", where) if "id" in row else f"{Path(source.annotations).stem}#{k}",
                video=str(Path(source.videos) / videos[0]),
                duration=duration_or_nan(row, where),
                query=said["user"].replace("<video>", "").strip(),
                spans=() if field is None else spans(row, field, where),
                task=task,
                completion=said.get("assistant"),
                answer=optional_text(row, "solution" if isinstance(row.get("solution"), str) else "answer", where),
            )
        )
    return samples


def _said(row: dict[str, Any], where: str) -> dict[str, str]:
    """What each role says, once."""
    said: dict[str, str] = {}
    for k, value in enumerate(sequence(row, "messages", where)):
        place = f"{where}, message {k}"
        message = mapping(value, place)
        role, content = text(message, "role", place), text(message, "content", place)
        if role not in ("system", "user", "assistant") or role in said:
            raise DataError(f"{place}: got a message of {role!r}, expected one of user and at most one of assistant "
                            "and of system")  # fmt: skip
        said[role] = content
    if said.get("user", "").count("<video>") != 1:
        raise DataError(f"{where}: got no user message with <video> once in it, expected one")
    return said
