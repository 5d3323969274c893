"""Supervised rows that say on the way, behind every time stamp, whether their event is under way.

An answer supervises a model where an event starts and where it ends; narration supervises it at every moment, as
streaming captioners are trained. It needs `video.time: text` and a prompt with the query before the video.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any


def narrate(rows: Sequence[Mapping[str, Any]], *, share: float, seed: int) -> list[dict[str, Any]]:
    """The rows with a `narration` column: for `share` of them, drawn at random, their events, for the others none.

    An event is `{"start", "end", "text"}`, in seconds, its text the row's query.
    """
    rng = random.Random(seed)
    return [{**row, "narration": _events(row) if rng.random() < share else []} for row in rows]


def _events(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "text": row["query"]} for start, end in row["spans"]]
