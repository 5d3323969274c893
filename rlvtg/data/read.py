"""Annotation file -> samples, by the reader that the recipe names."""

import difflib
from collections.abc import Callable

from rlvtg.data import (
    charades_sta,
    charades_txt,
    et_bench,
    jsonl,
    messages,
    museg,
    qvhighlights,
    time_r1,
    timelens,
    tvgbench,
    video_r1,
)
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Source

READERS: dict[str, Callable[[Source], list[Sample]]] = {
    "charades_sta": charades_sta.read,
    "charades_txt": charades_txt.read,
    "activitynet": charades_sta.read,
    "qvhighlights": qvhighlights.read,
    "tvgbench": tvgbench.read,
    "time_r1": time_r1.read,
    "timelens": timelens.read,
    "museg": museg.read,
    "et_bench": et_bench.read,
    "video_r1": video_r1.read,
    "ms_swift": messages.read,
    "llama_factory": messages.read,
    "jsonl": jsonl.read,
}


def read(source: Source) -> list[Sample]:
    """The samples of `source`, in file order, the first `limit` of them when a limit is set.

    A duration that the format does not state is nan; see `rlvtg.data.duration`.

    Raises DataError for an unknown reader and for a file that is not in its format.
    """
    if source.reader not in READERS:
        near = difflib.get_close_matches(source.reader, READERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"reader is {source.reader!r}; it must be one of {', '.join(READERS)}{hint}")
    return READERS[source.reader](source)[: source.limit]
