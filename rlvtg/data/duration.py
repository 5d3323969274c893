"""Durations that an annotation format does not state.

A reader may not invent one: it gives `math.nan`, which means "take it from the file", and until that is done the row
is bad.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rlvtg.data.sample import Sample


def filled(samples: Sequence[Sample], lengths: Mapping[str, float]) -> list[Sample]:
    """The samples, those whose duration is nan with that of their file, or of their window of it.

    `lengths` has seconds by `Sample.video`. A sample whose video it does not know stays as it is.
    """
    return [_filled(sample, lengths) if math.isnan(sample.duration) else sample for sample in samples]


def _filled(sample: Sample, lengths: Mapping[str, float]) -> Sample:
    end = lengths.get(sample.video) if sample.video_end is None else sample.video_end
    return sample if end is None else replace(sample, duration=end - (sample.video_start or 0.0))
