"""TVGBench, the 800 test queries of Time-R1 (arXiv 2503.13377; xiaomi-research/time-r1@7f2b594, tvgbench.json).

[{"path", "question", "answer": "start-end", "start", "end", "duration", "dataset_name", "qsemtype", ...}, ...]
"""

import re
from pathlib import Path, PurePosixPath

from rlvtg.data.annotation import listed_rows, number, optional_number, text
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Source

_SPAN = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")


def read(source: Source) -> list[Sample]:
    """One sample per row; the file is `videos/<last part of the row's path>`, the id its name and the row's number.

    `start` and `end` are the window of the file that `duration` and `answer` are relative to: the same file occurs with
    several of them.

    Raises DataError naming file, row and field.
    """
    samples = []
    for k, (where, row) in enumerate(listed_rows(source.annotations)):
        file = PurePosixPath(text(row, "path", where))
        answer = text(row, "answer", where)
        match = _SPAN.fullmatch(answer)
        if match is None:
            raise DataError(f"{where}, field 'answer': got {answer!r}, expected 'start-end' in seconds")
        samples.append(
            Sample(
                id=f"{file.stem}#{k}",
                video=str(Path(source.videos) / file.name),
                duration=number(row, "duration", where),
                query=text(row, "question", where),
                spans=((float(match[1]), float(match[2])),),
                video_start=optional_number(row, "start", where),
                video_end=optional_number(row, "end", where),
            )
        )
    return samples
