"""The 2,500 training rows of Time-R1 (arXiv 2503.13377; xiaomi-research/time-r1@7f2b594, train_2k5.json).

[{"video", "duration", "timestamp": [s, e], "sentence", "qid", "video_start", "video_end", "difficulty", "pred"}, ...]
`difficulty` and `pred` belong to the model that the rows were selected with and are not read.
"""

import re
from pathlib import Path, PurePosixPath

from rlvtg.data.annotation import listed_rows, number, optional_number, sequence, span, text
from rlvtg.data.sample import Sample
from rlvtg.recipe import Source

# `<YouTube id>_00:00:39:000_00:01:24:700.mp4` is already cut to the window that its name states.
_CUT = re.compile(r"_\d+:\d\d:\d\d:\d{3}_\d+:\d\d:\d\d:\d{3}$")


def read(source: Source) -> list[Sample]:
    """One sample per row; the file is `videos/<last part of the row's path>`, the id is `qid`.

    `video_start` and `video_end` are dropped for files that are already cut, which their name says: cutting twice would
    show other seconds than the annotated ones. In every row `duration` and `timestamp` are relative to the window.

    Raises DataError naming file, row and field.
    """
    samples = []
    for where, row in listed_rows(source.annotations):
        file = PurePosixPath(text(row, "video", where))
        cut = _CUT.search(file.stem) is not None
        samples.append(
            Sample(
                id=text(row, "qid", where),
                video=str(Path(source.videos) / file.name),
                duration=number(row, "duration", where),
                query=text(row, "sentence", where),
                spans=(span(sequence(row, "timestamp", where), "timestamp", where),),
                video_start=None if cut else optional_number(row, "video_start", where),
                video_end=None if cut else optional_number(row, "video_end", where),
            )
        )
    return samples
