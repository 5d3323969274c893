import pytest

from rlvtg.data.difficulty import gaussian_weight, in_window


@pytest.mark.parametrize(("iou", "weight"), [(0.0, 0.32465246735834974), (0.3, 1.0), (0.7, 0.1353352832366127)])
def test_rows_of_middling_difficulty_weigh_most(iou, weight):
    assert gaussian_weight(iou) == pytest.approx(weight, rel=1e-9)


def test_the_bell_can_be_moved_and_widened():
    assert gaussian_weight(0.5, mu=0.5, sigma=0.1) == 1.0
    assert gaussian_weight(0.6, mu=0.5, sigma=0.1) == pytest.approx(gaussian_weight(0.5))


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan")])
def test_a_bell_without_width_is_an_error(sigma):
    with pytest.raises(ValueError, match="sigma must be > 0"):
        gaussian_weight(0.3, sigma=sigma)


def test_the_window_is_open_below_and_closed_above():
    assert [in_window(iou) for iou in [0.0, 1e-9, 0.3, 0.7, 0.7000001, 1.0]] == [False, True, True, True, False, False]
    assert in_window(0.2, low=0.2) is False and in_window(0.9, high=0.9) is True
