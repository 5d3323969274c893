"""Charades-STA as it was published (arXiv 1705.02101; jiyanggao/TALL): `VIDEO START END##SENTENCE` on each line."""

import math
import re
from collections import Counter

from rlvtg.data.annotation import read_text
from rlvtg.data.sample import DataError, Sample
from rlvtg.data.video_file import video_file
from rlvtg.recipe import Source

_NUMBER = r"-?\d+(?:\.\d+)?"
_LINE = re.compile(rf"(\S+) +({_NUMBER}) +({_NUMBER}) *##(.*)")


def read(source: Source) -> list[Sample]:
    """One sample per line, `id#k` for the k-th of a video. Empty lines are no rows. The format has no durations.

    Raises DataError naming file and line.
    """
    samples = []
    count: Counter[str] = Counter()
    for number_of_line, line in enumerate(read_text(source.annotations).split("\n"), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"{source.annotations}, line {number_of_line}: got {line.strip()[:60]!r}, "
                "expected 'VIDEO START END##SENTENCE' with times in seconds"
            )
        video, start, end, sentence = match.groups()
        samples.append(
            Sample(
                id=f"{video}#{count[video]}",
                video=video_file(source.videos, video),
                duration=math.nan,
                query=sentence,
                spans=((float(start), float(end)),),
            )
        )
        count[video] += 1
    return samples
