"""TimeLens-100K and TimeLens-Bench (arXiv 2512.14698; TencentARC/TimeLens@df35740).

100K, one video per line: {"video_path", "source", "duration", "events": [{"query", "span": [[s, e], ...]}, ...]}
Bench, one object: {video id: {"duration", "spans": [[s, e], ...], "queries": [...]}, ...}, one span per query.
"""

from collections import Counter
from pathlib import Path

from rlvtg.data.annotation import lined_rows, load_json, mapping, number, sequence, spans, text, texts
from rlvtg.data.sample import DataError, Sample
from rlvtg.data.video_file import video_file
from rlvtg.recipe import Source


def read(source: Source) -> list[Sample]:
    """One sample per event, `video#k` for the k-th of a video. A file that ends in .jsonl is 100K, any other is Bench.

    Queries are kept as they are: TimeLens strips the dots and spaces at their ends when it writes a prompt.

    Raises DataError naming file, line or video, and field.
    """
    return _training(source) if Path(source.annotations).suffix == ".jsonl" else _bench(source)


def _training(source: Source) -> list[Sample]:
    samples = []
    count: Counter[str] = Counter()
    for where, row in lined_rows(source.annotations):
        video = text(row, "video_path", where)
        duration = number(row, "duration", where)
        for k, value in enumerate(sequence(row, "events", where)):
            place = f"{where}, event {k}"
            event = mapping(value, place)
            samples.append(
                Sample(
                    id=f"{video}#{count[video]}",
                    video=str(Path(source.videos) / video),
                    duration=duration,
                    query=text(event, "query", place),
                    spans=spans(event, "span", place),
                )
            )
            count[video] += 1
    return samples


def _bench(source: Source) -> list[Sample]:
    samples = []
    for video, value in mapping(load_json(source.annotations), source.annotations).items():
        where = f"{source.annotations}, video {video!r}"
        row = mapping(value, where)
        queries, true = texts(row, "queries", where), spans(row, "spans", where)
        if len(queries) != len(true):
            raise DataError(f"{where}: {len(true)} spans for {len(queries)} queries; there must be as many")
        duration, file = number(row, "duration", where), video_file(source.videos, video)
        for k, (query, span) in enumerate(zip(queries, true, strict=True)):
            samples.append(Sample(id=f"{video}#{k}", video=file, duration=duration, query=query, spans=(span,)))
    return samples
