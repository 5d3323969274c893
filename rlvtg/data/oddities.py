"""What is odd in an annotation file, counted: more than what makes a row bad, and each thing for itself."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from rlvtg.data.check import END_SLACK, SPAN_TASKS, find_faults
from rlvtg.data.sample import DataError, Sample

PAST_END = "span ends after the video"
FAR_PAST_END = f"span ends more than {END_SLACK:g} s after the video"


def oddities(samples: Sequence[Sample]) -> dict[str, list[str]]:
    """What is odd -> where, as `id: detail`, the most frequent first. A span counts once in each list it belongs to.

    Ids and queries are compared with those of all earlier rows; a duration that is not stated counts for its row.
    """
    found: dict[str, list[str]] = {}
    ids: set[str] = set()
    asked: set[tuple[object, ...]] = set()
    for sample in samples:
        question = (sample.video, sample.video_start, sample.video_end, sample.query, sample.task)
        for name, detail in _of_row(sample, sample.id in ids, question in asked):
            found.setdefault(name, []).append(f"{sample.id}: {detail}")
        ids.add(sample.id)
        asked.add(question)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _of_row(sample: Sample, repeated: bool, asked: bool) -> Iterator[tuple[str, str]]:
    if repeated:
        yield "duplicate id", "an earlier row has the same id"
    if asked:
        yield "repeated query", f"an earlier row asks {sample.query!r} about the same video"
    if not sample.query.strip():
        yield "empty query", "the query has no text"
    if math.isnan(sample.duration):
        yield "no duration", "it is to be taken from the file"
    if not sample.spans and sample.task in SPAN_TASKS:
        yield "no span", f"the row of task {sample.task} has no span"
    for start, end in sample.spans:
        length = "" if math.isnan(sample.duration) else f" of {sample.duration:g} s"
        shown = f"{start:g} to {end:g} s{length}"
        if end < start:
            yield "reversed span", shown
        elif end == start:
            yield "zero-length span", shown
        if start < 0:
            yield "span starts before the video", shown
        if start >= sample.duration:
            yield "span starts after the video", shown
        if end > sample.duration:
            yield PAST_END, shown
        if end > sample.duration + END_SLACK:
            yield FAR_PAST_END, shown
        if not (math.isfinite(start) and math.isfinite(end)):
            yield "non-finite span", shown
    for (start, end), (later, last) in zip(sorted(sample.spans), sorted(sample.spans)[1:], strict=False):
        if later < end:
            yield "spans overlap", f"{start:g} to {end:g} s and {later:g} to {last:g} s"


def report(samples: Sequence[Sample], *, files: bool = True) -> tuple[str, int]:
    """(What to print about an annotation file: its size, what is odd, which rows are bad; the number of bad rows).

    Without `files` no video is looked for, and the text says so. Raises DataError for a file without rows.
    """
    if not samples:
        raise DataError("the annotations have no rows")
    spans = sum(len(sample.spans) for sample in samples)
    videos = len({sample.video for sample in samples})
    tasks = Counter(sample.task for sample in samples)
    lines = [f"{len(samples)} rows ({', '.join(f'{count} {task}' for task, count in tasks.most_common())}), "
             f"{videos} videos, {spans} spans"]  # fmt: skip
    lines += [f"{len(places):8d}  {name:42}  {_short(places[0])}" for name, places in oddities(samples).items()]
    faults = list(find_faults(samples, filled=False, files=files))
    bad = Counter(fault[0] for fault in faults if fault is not None)
    reasons = ", ".join(f"{count} {reason}" for reason, count in bad.most_common())
    lines.append(f"bad rows: {bad.total()} ({reasons})" if bad else "bad rows: 0")
    if not files:
        lines.append("No video was looked for.")
    elif any(math.isnan(sample.duration) for sample in samples):
        lines.append("The videos were looked for, but not read: durations that are not stated remain unknown.")
    return "\n".join(lines), bad.total()


def _short(place: str) -> str:
    """The whole detail, but only the end of a long id."""
    return place if len(place) <= 80 else f"...{place[-77:]}"
