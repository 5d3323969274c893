import numpy as np
import pytest

from rlvtg.video.overlay import numbered

GREY = np.full((3, 84, 112, 3), 90, dtype=np.uint8)


def reddish(frame):
    """Where a frame of grey has become red."""
    return frame[..., 0].astype(int) - frame[..., 1] > 60


def test_a_number_stands_in_the_bottom_right_corner_and_nowhere_else():
    before = GREY.copy()
    drawn = numbered(GREY, [0.0, 1.0, 2.0], "{:.1f}")
    assert np.array_equal(GREY, before)
    for frame in drawn:
        rows, columns = np.nonzero(reddish(frame))
        assert len(rows) > 10
        assert rows.min() > 84 * 0.75 and columns.min() > 112 * 0.6
        assert rows.max() >= 80 and columns.max() >= 108
        assert np.array_equal(frame[:60], GREY[0, :60])


def test_frames_differ_by_their_number_only_if_the_format_shows_it():
    first, second, third = numbered(GREY, [0.0, 0.01, 7.0], "{:.1f}")
    assert np.array_equal(first, second) and not np.array_equal(first, third)
    first, second, _ = numbered(GREY, [0.0, 0.01, 7.0], "{index}")
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("width", [28, 56, 448])
def test_a_long_number_fits_any_width(width):
    frames = np.zeros((1, 56, width, 3), dtype=np.uint8)
    rows, columns = np.nonzero(reddish(numbered(frames, [123456.789], "{:.3f}")[0]))
    assert len(columns) and (columns.min() > 0 or width < 50)
    last = numbered(frames, [123456.789], "{:.3f}")[0]
    other = numbered(frames, [923456.789], "{:.3f}")[0]
    assert not np.array_equal(last, other)  # the first digit is not cut off
