"""The grounding tasks of E.T. Bench (arXiv 2409.18111; PolyU-ChenLab/ETBench, annotations/txt/<task>_<source>.json).

[{"version", "idx", "task", "source", "video", "duration", "tgt": [s, e] or [[s, e], ...], "q"}, ...]
"""

from pathlib import Path
from typing import Any

from rlvtg.data.annotation import label, listed_rows, number, sequence, span, spans, text
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Source

TASKS = ("tvg", "epm", "tal", "evs")


def read(source: Source) -> list[Sample]:
    """One sample per row of the tasks tvg, epm (one span), tal and evs (several); the id is `task_source#idx`.

    The query is the whole prompt `q`, which states its own answer format; a recipe's prompt for it is `{video}{query}`.
    The other tasks are refused: they are answered with a moment, an option or captions, or any of several spans is
    right.

    Raises DataError naming file, row and field.
    """
    samples = []
    for where, row in listed_rows(source.annotations):
        task = text(row, "task", where)
        if task not in TASKS:
            raise DataError(f"{where}: got task {task!r}, which does not ask for spans; allowed are {', '.join(TASKS)}")
        samples.append(
            Sample(
                id=f"{task}_{text(row, 'source', where)}#{label(row, 'idx', where)}",
                video=str(Path(source.videos) / text(row, "video", where)),
                duration=number(row, "duration", where),
                query=text(row, "q", where),
                spans=_target(row, where),
            )
        )
    return samples


def _target(row: dict[str, Any], where: str) -> tuple[tuple[float, float], ...]:
    target = sequence(row, "tgt", where)
    several = all(isinstance(value, list) for value in target)
    return spans(row, "tgt", where) if several else (span(target, "tgt", where),)
