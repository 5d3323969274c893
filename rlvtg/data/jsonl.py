"""Our own format: one JSON object per line with the fields of a Sample.

{"id", "video", "duration", "query", "spans": [[s, e], ...]} and optionally "task", "completion", "answer", "options",
"verb", "masked_query", "video_start", "video_end". A "duration" that is null or absent is taken from the file.
"""

import difflib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rlvtg.data.annotation import (
    duration_or_nan,
    lined_rows,
    optional_number,
    optional_text,
    optional_texts,
    spans,
    text,
)
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Source

_FIELDS = tuple(field.name for field in fields(Sample))
_DEFAULTS = {field.name: field.default for field in fields(Sample)}


def read(source: Source) -> list[Sample]:
    """One sample per line; `video` is relative to the source's `videos` unless it is absolute. Empty lines are no rows.

    Raises DataError naming file, line and field, also for a field that the format does not have.
    """
    samples = []
    for where, row in lined_rows(source.annotations):
        for field in row:
            if field not in _FIELDS:
                near = difflib.get_close_matches(field, _FIELDS, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise DataError(f"{where}: unknown field {field!r}; the fields are {', '.join(_FIELDS)}{hint}")
        samples.append(
            Sample(
                id=text(row, "id", where),
                video=str(Path(source.videos) / text(row, "video", where)),
                duration=duration_or_nan(row, where),
                query=text(row, "query", where),
                spans=spans(row, "spans", where),
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


def write(samples: Sequence[Sample], path: str, videos: str, *, force: bool = False) -> None:
    """Write the samples so that `read`, given the same folder of `videos`, gives them back; all of the file or none.

    Paths in that folder are written relative to it. Fields that a sample leaves at their default are left out.

    Raises DataError if `path` cannot be written or is there, unless `force` is set, and for a time that is not finite.
    """
    file = Path(path)
    if file.exists() and not force:
        raise DataError(f"{path} is there already; choose another name, or overwrite it with force")
    lines = [_line(sample, Path(videos)) for sample in samples]
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(lines), encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _line(sample: Sample, videos: Path) -> str:
    row: dict[str, Any] = {name: getattr(sample, name) for name in _FIELDS}
    row = {name: value for name, value in row.items() if value != _DEFAULTS[name]}
    video = Path(sample.video)
    row["video"] = str(video.relative_to(videos) if video.is_relative_to(videos) else video)
    if math.isnan(sample.duration):
        row["duration"] = None
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise DataError(f"row {sample.id!r} has a time that is not finite, which JSON cannot say") from error
