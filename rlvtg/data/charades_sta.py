"""Charades-STA and ActivityNet Captions in the JSON form that grounding papers share.

{video id: {"duration": s, "timestamps": [[s, e], ...], "sentences": [...], "completions": [...] or absent}}
The lists run in parallel. The out-of-distribution splits of Charades call the duration "video_duration"; their
"framestamps", the same spans counted in frames, are not read. Invert4TVG (nian1125/Invert4TVG@1048456) adds lists of
each sentence's "verb" ("" for none) and of the sentences without it, "Missing". Its entries with "action": 1 are copies
of others under another name, for its inverse task; they are not read, since a recipe makes such rows from all others.
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
        if row.get("action") == 1:
            continue
        duration = number(row, "video_duration" if "video_duration" in row else "duration", where)
        sentences = texts(row, "sentences", where)
        timestamps = sequence(row, "timestamps", where)
        completions: list[Any] = texts(row, "completions", where) if "completions" in row else [None] * len(sentences)
        verbs = texts(row, "verb", where) if "verb" in row else [""] * len(sentences)
        masked = texts(row, "Missing", where) if "Missing" in row else [""] * len(sentences)
        lists = {"timestamps": timestamps, "completions": completions, "verb": verbs, "Missing": masked}
        for field, values in lists.items():
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
                    verb=verbs[k] or None,
                    masked_query=(verbs[k] and masked[k]) or None,
                )
            )
    return samples
