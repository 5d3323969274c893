"""Charades-STA and ActivityNet Captions in the JSON form that grounding papers share.

{video id: {"duration": s, "timestamps": [[s, e], ...], "sentences": [...], "completions": [...] or absent}}
The lists run in parallel. The out-of-distribution splits of Charades call the duration "video_duration"; their
"framestamps", the same spans counted in frames, are not read.
"""

from typing import Any

from rlvtg.data.annotation import load_json, mapping, number, sequence, span, texts
from rlvtg.data.sample import DataError, Sample
from rlvtg.data.video_file import video_file
from rlvtg.recipe import Source


def read(source: Source) -> list[Sample]:
    """One sample per sentence, `id#k` for the k-th of a video; the file is found by `video_file`.

    Raises DataError naming file, video and field.
    """
    samples = []
    for video, value in mapping(load_json(source.annotations), source.annotations).items():
        where = f"{source.annotations}, video {video!r}"
        row = mapping(value, where)
        duration = number(row, "video_duration" if "video_duration" in row else "duration", where)
        sentences = texts(row, "sentences", where)
        timestamps = sequence(row, "timestamps", where)
        completions: list[Any] = texts(row, "completions", where) if "completions" in row else [None] * len(sentences)
        for field, values in (("timestamps", timestamps), ("completions", completions)):
            if len(values) != len(sentences):
                raise DataError(f"{where}: {len(values)} {field} for {len(sentences)} sentences; there must be as many")
        file = video_file(source.videos, video)
        for k, (sentence, times, completion) in enumerate(zip(sentences, timestamps, completions, strict=True)):
            samples.append(
                Sample(
                    id=f"{video}#{k}",
                    video=file,
                    duration=duration,
                    query=sentence,
                    spans=(span(times, f"timestamps[{k}]", where),),
                    completion=completion,
                )
            )
    return samples
