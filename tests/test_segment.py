import numpy as np
import pytest

from rlvtg.video.segment import released_segment_frames, segment_frames

TIMES = np.arange(60) / 2


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [
        (5.0, 10.0, (10, 20)),
        (-1.0, 10.0, (0, 20)),
        (25.0, 40.0, (50, 60)),
        (29.9, 30.0, (58, 60)),
        (5.1, 5.2, (11, 13)),
        (0.0, 0.1, (0, 2)),
        (5.1, 6.0, (11, 13)),
    ],
)
def test_a_segment_has_the_frames_that_start_in_it_and_at_least_two(start, end, frames):
    assert segment_frames(TIMES, 30.0, start, end) == frames


def test_a_video_of_one_frame_shows_it():
    assert segment_frames(np.zeros(1), 0.5, 0.0, 10.0) == (0, 1)


@pytest.mark.parametrize(("start", "end"), [(10.0, 5.0), (5.0, 5.0), (35.0, 40.0), (-5.0, -1.0), (0.0, float("nan"))])
def test_a_segment_that_is_none_of_the_video_is_an_error(start, end):
    with pytest.raises(ValueError, match="they share no time"):
        segment_frames(TIMES, 30.0, start, end)


@pytest.mark.parametrize(
    ("total", "fps", "start", "end", "frames"),
    [
        (60, 2.0, 5.0, 10.0, (10, 20)),
        (60, 2.0, 25.0, 40.0, (50, 59)),  # the last frame is lost
        (60, 2.0, 10.0, 5.0, (0, 1)),
        (60, 2.0, 35.0, 40.0, (0, 1)),
        (60, 2.0, 29.9, 30.0, (58, 60)),  # there: 60, 59
        (60, 2.0, 5.0, 5.0, (10, 12)),  # there: 10, 10
        (1, 2.0, 0.0, 10.0, (0, 1)),  # there: 0, 0
    ],
)
def test_the_released_range_is_kept_where_it_has_frames(total, fps, start, end, frames):
    assert released_segment_frames(total, fps, start, end) == frames
