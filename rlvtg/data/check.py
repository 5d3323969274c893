"""Rows that cannot be trained on are found before any model loads: counted, named and bounded."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlvtg.data.sample import DataError, Sample
from rlvtg.disk import write_whole
from rlvtg.text import inverse

# Tasks that are about spans. Rows of others (a multiple-choice question, a caption) need none.
SPAN_TASKS = ("grounding", *inverse.TASKS)

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
    filled: bool = True,
) -> list[Sample]:
    """The samples without a fault, unchanged and in order.

    A row is bad when its video file is missing, its id was used before, its query is empty, a number is not finite, it
    has no span although its task asks for spans, a span is reversed, zero-length or outside the video (more than 2 s
    past the end), or its clip window is empty. `file_faults` says for each sample what reading its file has found wrong
    with it. The first fault counts.

    `filled` says that durations which the annotations do not state (nan) have been taken from the files; a row that
    still has none is bad. Without it such rows are only held to the rest.

    `bad_rows_path` is written anew, one JSON object per bad row with id, video, reason and detail.

    Raises DataError, with the counts by reason and the first three rows, when more than `max_bad_fraction` (0..1) of
    the rows are bad, and when no row is left.
    """
    if not samples:
        raise DataError("the annotations have no rows")
    faults = list(find_faults(samples, file_faults, filled=filled))
    good = [sample for sample, fault in zip(samples, faults, strict=True) if fault is None]
    bad = [
        {"id": sample.id, "video": sample.video, "reason": fault[0], "detail": fault[1]}
        for sample, fault in zip(samples, faults, strict=True)
        if fault is not None
    ]
    if bad_rows_path is not None:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in bad]
        write_whole(bad_rows_path, "".join(lines))
    if len(bad) / len(samples) > max_bad_fraction or not good:
        counts = ", ".join(f"{count} {reason}" for reason, count in Counter(row["reason"] for row in bad).most_common())
        first = "; ".join(f"{row['id']}: {row['detail']}" for row in bad[:3])
        allowed = f"max_bad_fraction={max_bad_fraction} allows fewer" if good else "none is left"
        listed = f" All are listed in {os.fspath(bad_rows_path)}." if bad_rows_path is not None else ""
        raise DataError(f"{len(bad)} of {len(samples)} rows are bad ({counts}); {allowed}. The first: {first}.{listed}")
    return good


def find_faults(
    samples: Sequence[Sample],
    file_faults: Sequence[Fault | None] | None = None,
    *,
    filled: bool = True,
    files: bool = True,
) -> Iterator[Fault | None]:
    """What is wrong with each sample, None where nothing is; see `check`. Without `files` no file is looked for."""
    seen: set[str] = set()
    there: dict[str, bool] = {}
    for number, sample in enumerate(samples):
        if sample.video not in there:
            there[sample.video] = not files or Path(sample.video).is_file()
        fault = _fault(sample, there[sample.video], sample.id in seen, filled)
        seen.add(sample.id)
        yield fault if fault is not None or file_faults is None else file_faults[number]


def _fault(sample: Sample, file_exists: bool, repeated: bool, filled: bool) -> Fault | None:
    """(reason, detail) of the first thing that is wrong with a sample."""
    unknown = math.isnan(sample.duration)
    missing = None if file_exists else ("missing video", f"no file {sample.video}")
    if repeated:
        return "duplicate id", "an earlier row has the same id"
    if not sample.query.strip():
        return "empty query", "the query has no text"
    if unknown and filled:
        return missing or ("bad duration", "the annotations have none and it was not taken from the file")
    if not unknown and not 0 < sample.duration < math.inf:
        return "bad duration", f"the duration is {sample.duration} s"
    if not sample.spans and sample.task in SPAN_TASKS:
        return "no span", "the row has no span"
    for start, end in sample.spans:
        if not (math.isfinite(start) and math.isfinite(end)):
            return "non-finite span", f"the span is {start} to {end} s"
        if end < start:
            return "reversed span", f"the span is {start} to {end} s"
        if end == start:
            return "zero-length span", f"the span is {start} to {end} s"
        # comparisons with a duration that is not known are false
        if start < 0 or start >= sample.duration or end > sample.duration + END_SLACK:
            return "span outside the video", f"the span is {start} to {end} s, the video lasts {sample.duration} s"
    first = 0.0 if sample.video_start is None else sample.video_start
    last = sample.video_end
    if not 0 <= first < math.inf or (last is not None and not first < last < math.inf):
        return "bad clip window", f"the window is {sample.video_start} to {sample.video_end} s"
    return missing
