"""MUSEG's training rows and evaluation lists (arXiv 2505.20715; THUNLP-MT/MUSEG@889565e, data/train and data/eval).

Training, one row per line: {"idx", "problem", "solution": [[s, e], ...], "video", "duration" or absent, "task"}
Evaluation, a list: [{"video", "question", "groundtruth": [[s, e], ...]}, ...]
"""

from pathlib import Path

from rlvtg.data.annotation import any_rows, duration_or_nan, label, spans, text
from rlvtg.data.sample import Sample
from rlvtg.recipe import Source


def read(source: Source) -> list[Sample]:
    """One sample per row, its query the row's whole question, its file below `videos`, the folder that MUSEG calls so.

    The id is `idx`, or in evaluation lists, which have none, the video's name and the row's number. Those lists and the
    rows from Charades have no duration. `task`, "tvg" for a sentence and "tal" for a kind of action, is not read: both
    ask for all spans of the query.

    Raises DataError naming file, row or line, and field.
    """
    samples = []
    for k, (where, row) in enumerate(any_rows(source.annotations)):
        video = text(row, "video", where)
        evaluation = "groundtruth" in row
        samples.append(
            Sample(
                id=f"{Path(video).stem}#{k}" if evaluation else label(row, "idx", where),
                video=str(Path(source.videos) / video.removeprefix("videos/")),
                duration=duration_or_nan(row, where),
                query=text(row, "question" if evaluation else "problem", where),
                spans=spans(row, "groundtruth" if evaluation else "solution", where),
            )
        )
    return samples
