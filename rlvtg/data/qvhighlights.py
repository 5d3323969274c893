"""QVHighlights (arXiv 2107.09609; jayleicn/moment_detr): one query per line, with one or more spans.

{"qid": 7803, "query", "duration": 150, "vid", "relevant_windows": [[s, e], ...], "relevant_clip_ids",
"saliency_scores"}
The last two rate clips of two seconds as highlights and are not read.
"""

from rlvtg.data.annotation import label, lined_rows, number, spans, text
from rlvtg.data.sample import Sample
from rlvtg.data.video_file import video_file
from rlvtg.recipe import Source


def read(source: Source) -> list[Sample]:
    """One sample per line; the id is `qid`, the file is that of `vid`, which is already cut to its window.

    Raises DataError naming file, line and field; `relevant_windows` is missing in the test split, whose spans are not
    public.
    """
    return [
        Sample(
            id=label(row, "qid", where),
            video=video_file(source.videos, text(row, "vid", where)),
            duration=number(row, "duration", where),
            query=text(row, "query", where),
            spans=spans(row, "relevant_windows", where),
        )
        for where, row in lined_rows(source.annotations)
    ]
