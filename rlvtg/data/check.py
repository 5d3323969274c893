"""Rows that cannot be trained on are found before any model loads: counted, named and bounded."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlvtg.data.sample import DataError, Sample

# Seconds a span may run over the end. Annotators of Charades-STA worked on rounded durations: 562 of the 3,720 test
# spans end after their video, by at most 1.5 s, and papers score all of them. Such spans are kept as they are.
END_SLACK = 2.0


Fault = tuple[str, str]  # (reason, by which bad rows are counted; detail)


def check(
    samples: Sequence[Sample],
    *,
    max_bad_fraction: float,
    bad_rows_path: str | os.PathLike[str] | None = None,
    file_faults: Sequence[Fault | None] | None = None,
) -> list[Sample]:
    """The samples without a fault, unchanged and in order.

    A row is bad when its video file is missing, its id was used before, its query is empty, a number is not finite, it
    has no span, a span is reversed, zero-length or outside the video (more than 2 s past the end), or its clip window
    is empty. `file_faults` says for each sample what reading its file has found wrong with it. The first fault counts.

    `bad_rows_path` is written anew, one JSON object per bad row with id, video, reason and detail.

    Raises DataError, with the counts by reason and the first three rows, when more than `max_bad_fraction` (0..1) of
    the rows are bad, and when no row is left.
    """
    if not samples:
        raise DataError("the annotations have no rows")
    faults = list(find_faults(samples, file_faults))
    good = [sample for sample, fault in zip(samples, faults, strict=True) if fault is None]
    bad = [
        {"id": sample.id, "video": sample.video, "reason": fault[0], "detail": fault[1]}
        for sample, fault in zip(samples, faults, strict=True)
        if fault is not None
    ]
    if bad_rows_path is not None:
        Path(bad_rows_path).parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in bad]
        Path(bad_rows_path).write_text("".join(lines), encoding="utf-8")
    if len(bad) / len(samples) > max_bad_fraction or not good:
        counts = ", ".join(f"{count} {reason}" for reason, count in Counter(row["reason"] for row in bad).most_common())
        first = "; ".join(f"{row['id']}: {row['detail']}" for row in bad[:3])
        allowed = f"max_bad_fraction={max_bad_fraction} allows fewer" if good else "none is left"
        listed = f" All are listed in {os.fspath(bad_rows_path)}." if bad_rows_path is not None else ""
        raise DataError(f"{len(bad)} of {len(samples)} rows are bad ({counts}); {allowed}. The first: {first}.{listed}")
    return good


def find_faults(samples: Sequence[Sample], file_faults: Sequence[Fault | None] | None = None) -> Iterator[Fault | None]:
    """What is wrong with each sample, None where nothing is; see `check`."""
    seen: set[str] = set()
    files: dict[str, bool] = {}
    for number, sample in enumerate(samples):
        if sample.video not in files:
            files[sample.video] = Path(sample.video).is_file()
        fault = _fault(sample, files[sample.video], sample.id in seen)
        seen.add(sample.id)
        yield fault if fault is not None or file_faults is None else file_faults[number]


def _fault(sample: Sample, file_exists: bool, repeated: bool) -> Fault | None:
    """(reason, detail) of the first thing that is wrong with a sample."""
    if repeated:
        return "duplicate id", "an earlier row has the same id"
    if not sample.query.strip():
        return "empty query", "the query has no text"
    if not (math.isfinite(sample.duration) and sample.duration > 0):
        return "bad duration", f"the duration is {sample.duration} s"
    if not sample.spans:
        return "no span", "the row has no span"
    for start, end in sample.spans:
        if not (math.isfinite(start) and math.isfinite(end)):
            return "non-finite span", f"the span is {start} to {end} s"
        if end < start:
            return "reversed span", f"the span is {start} to {end} s"
        if end == start:
            return "zero-length span", f"the span is {start} to {end} s"
        if start < 0 or start >= sample.duration or end > sample.duration + END_SLACK:
            return "span outside the video", f"the span is {start} to {end} s, the video lasts {sample.duration} s"
    first = 0.0 if sample.video_start is None else sample.video_start
    last = first + sample.duration if sample.video_end is None else sample.video_end
    if not (0 <= first < last < math.inf):
        return "bad clip window", f"the window is {sample.video_start} to {sample.video_end} s"
    if not file_exists:
        return "missing video", f"no file {sample.video}"
    return None
