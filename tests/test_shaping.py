import math

import pytest

from rlvtg.text.shaping import shaped_iou


@pytest.mark.parametrize(
    ("value", "knobs", "shaped"),
    [
        (0.0, {}, 0.086764),
        (0.5, {}, 0.596390),
        (0.8, {}, 0.8),
        (1.0, {}, 0.801823),
        (1.1, {}, 0.802624),
        (0.0, {"tau": 0.5}, 0.122459),
        (0.0, {"a2": 2.0}, 0.181281),
        (0.4, {"a2": 0.0}, 0.4),
        (0.4, {"a2": -1.0}, 0.4),
        (0.4, {"a2": 1e6}, 0.8),
        (0.4, {"a2": 1e-12}, 0.4),
        (1.0, {"tau": 0.0, "a1": 1.0}, 0.693147),
    ],
)
def test_shaped_iou_of_the_paper_and_of_odd_knobs(value, knobs, shaped):
    assert shaped_iou(value, **knobs) == pytest.approx(shaped, abs=1e-6)


def test_shaped_iou_is_continuous_and_increasing():
    values = [shaped_iou(step / 1000) for step in range(1001)]
    assert all(0 < after - before < 0.0015 for before, after in zip(values, values[1:], strict=False))


@pytest.mark.parametrize("tau", [-0.1, 1.1, math.nan])
def test_shaped_iou_refuses_a_bend_that_no_iou_can_reach(tau):
    with pytest.raises(ValueError, match="want the IoU, from 0 to 1"):
        shaped_iou(0.5, tau=tau)
