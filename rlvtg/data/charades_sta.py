"""Charades-STA and ActivityNet Captions in the JSON form that grounding papers share.

{video id: {"duration": s, "timestamps": [[s, e], ...], "sentences": [...], "completions": [...] or absent}}
The lists run in parallel.
"""

from pathlib import Path
from typing import Any

from rlvtg.data.annotation import load_json, mapping, number, sequence, span
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Source

_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi", ".mov"}


def read(source: Source) -> list[Sample]:
    """One sample per sentence, `id#k` for the k-th of a video.

    The file is `videos/id.mp4` unless the id has an extension already.

    Raises DataError naming file, video and field.
    """
    samples = []
    for video, value in mapping(load_json(source.annotations), source.annotations).items():
        where = f"{source.annotations}, video {video!r}"
        row = mapping(value, where)
        duration = number(row, "duration", where)
        sentences = _strings(row, "sentences", where)
        timestamps = sequence(row, "timestamps", where)
        completions = _strings(row, "completions", where) if "completions" in row else [None] * len(sentences)
        for field, values in (("timestamps", timestamps), ("completions", completions)):
            if len(values) != len(sentences):
                raise DataError(f"{where}: {len(values)} {field} for {len(sentences)} sentences; there must be as many")
        file = video if Path(video).suffix.lower() in _SUFFIXES else f"{video}.mp4"
        for k, (sentence, times, completion) in enumerate(zip(sentences, timestamps, completions, strict=True)):
            samples.append(
                Sample(
                    id=f"{video}#{k}",
                    video=str(Path(source.videos) / file),
                    duration=duration,
                    query=sentence,
                    spans=(span(times, f"timestamps[{k}]", where),),
                    completion=completion,
                )
            )
    return samples


def _strings(row: dict[str, Any], field: str, where: str) -> list[str]:
    values = sequence(row, field, where)
    for k, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"{where}, field '{field}[{k}]': got {value!r}, expected a string")
    return values
