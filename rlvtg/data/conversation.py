"""Supervised rows that get more out of a video: its queries as turns of one conversation, its events told on the way.

A video is by far the longest part of a row. As turns of one conversation its queries share it; told on the way, its
annotated events are supervised at every moment and not only where an answer starts and ends.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def conversations(rows: Sequence[Row], *, turns: str, narrate: float, seed: int) -> list[dict[str, Any]]:
    """One row per row, in the same order.

    Args:
        rows: rows with `prompt` and `completion`; rows are about one video if `video` and the clip window agree.
        turns: `query` leaves a row one question and answer. `video` lets the other queries of its video follow it, in
            random order, as further turns: every query comes first in one conversation.
        narrate: share of the rows, drawn at random, that get a `narration`: the video's annotated events as
            `{"start", "end", "text"}`, seconds, to be told behind each time stamp. Other rows get an empty one.
        seed: decides orders and draws.
    """
    rng = random.Random(seed)
    by_video: dict[Any, list[Row]] = {}
    for row in rows:
        by_video.setdefault(_clip(row), []).append(row)
    told = []
    for row in rows:
        neighbours = by_video[_clip(row)]
        completion = list(row["completion"])
        if turns == "video":
            others = [other for other in neighbours if other is not row]
            for other in rng.sample(others, len(others)):
                completion += [_question(other), *other["completion"]]
        events = neighbours if rng.random() < narrate else []
        narration = [
            {"start": start, "end": end, "text": event["query"]} for event in events for start, end in event["spans"]
        ]
        told.append({**row, "completion": completion, "narration": narration})
    return told


def _clip(row: Row) -> tuple[Any, Any, Any]:
    return row["video"], row["video_start"], row["video_end"]


def _question(row: Row) -> dict[str, Any]:
    """A row's question as a further turn: its text without the video, which the conversation has already."""
    content = row["prompt"][-1]["content"]
    return {"role": "user", "content": [part for part in content if part["type"] == "text"]}
