"""Our own format: one JSON object per line with the fields of a Sample.

{"id", "video", "duration", "query", "spans": [[s, e], ...]} and optionally "task", "completion", "answer", "options",
"verb", "masked_query", "video_start", "video_end".
"""

import difflib
from pathlib import Path

from rlvtg.data.annotation import (
    mapping,
    number,
    optional_number,
    optional_text,
    optional_texts,
    parse_json,
    read_text,
    sequence,
    span,
    text,
)
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Source

_FIELDS = (
    "id", "video", "duration", "query", "spans", "task", "completion", "answer", "options", "verb", "masked_query",
    "video_start", "video_end",
)  # fmt: skip


def read(source: Source) -> list[Sample]:
    """One sample per line; `video` is relative to the source's `videos` unless it is absolute. Empty lines are no rows.

    Raises DataError naming file, line and field, also for a field that the format does not have.
    """
    samples = []
    # split("\n"), not splitlines(): a query may hold other line separators.
    for number_of_line, line in enumerate(read_text(source.annotations).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{source.annotations}, line {number_of_line}"
        row = mapping(parse_json(line, where), where)
        for field in row:
            if field not in _FIELDS:
                near = difflib.get_close_matches(field, _FIELDS, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise DataError(f"{where}: unknown field {field!r}; the fields are {', '.join(_FIELDS)}{hint}")
        samples.append(
            Sample(
                id=text(row, "id", where),
                video=str(Path(source.videos) / text(row, "video", where)),
                duration=number(row, "duration", where),
                query=text(row, "query", where),
                spans=tuple(span(x, f"spans[{k}]", where) for k, x in enumerate(sequence(row, "spans", where))),
                task=optional_text(row, "task", where) or "grounding",
                completion=optional_text(row, "completion", where),
                answer=optional_text(row, "answer", where),
                options=optional_texts(row, "options", where),
                verb=optional_text(row, "verb", where),
                masked_query=optional_text(row, "masked_query", where),
                video_start=optional_number(row, "video_start", where),
                video_end=optional_number(row, "video_end", where),
            )
        )
    return samples
