"""One annotated query about one video."""

from dataclasses import dataclass


class DataError(Exception):
    """Annotations that cannot be used, with the place and the reason."""


@dataclass(frozen=True)
class Sample:
    """A query and when in the video it happens. All times are seconds.

    With `video_start` and `video_end` only that window of the file is the video: `duration` is the window's length and
    `spans` are relative to its start.
    """

    id: str
    video: str  # path of the file
    duration: float  # nan: not stated, to be taken from the file
    query: str
    spans: tuple[tuple[float, float], ...]
    task: str = "grounding"
    completion: str | None = None  # an expert's whole answer, for supervised training
    video_start: float | None = None
    video_end: float | None = None
    answer: str | None = None  # what other tasks ask for: an option's letter, a caption
    options: tuple[str, ...] | None = None  # of a multiple-choice question, which is the query
    verb: str | None = None  # of the query, for the tasks that ask for it
    masked_query: str | None = None  # the query without its verb
