"""The advantages of one group."""

import math
import subprocess
import sys

import pytest

from rlvtg.training.advantage import alike, anchored_advantages, batch_advantages, group_advantages


def near(values, want, within=1e-6):
    assert len(values) == len(want)
    assert all(math.isclose(value, w, abs_tol=within) for value, w in zip(values, want, strict=True)), values


def test_rewards_are_centred_and_divided_by_the_unbiased_deviation():
    near(group_advantages([0.6, 0.7, 0.5, 1.0], eps=1e-6), [-0.462908, 0.0, -0.925816, 1.388724])


def test_rewards_are_only_centred_without_scale():
    near(group_advantages([0.0, 1.0, 0.5], scale=False), [-0.5, 0.5, 0.0])


def test_the_deviation_of_nearly_equal_rewards_is_damped_by_eps():
    assert math.isclose(group_advantages([0, 0, 0, 0.001])[3], 1.25, rel_tol=1e-3)
    assert math.isclose(group_advantages([0, 0, 0, 0.001], eps=1e-6)[3], 1.497, rel_tol=1e-3)


def test_a_group_of_two_values_is_the_same_however_far_they_are_apart():
    near(group_advantages([0.1] * 7 + [1.1], eps=1e-6), [-0.353553] * 7 + [2.474872], 1e-5)
    near(group_advantages([0.19] * 7 + [0.9], eps=1e-6), [-0.353553] * 7 + [2.474872], 1e-5)


@pytest.mark.parametrize("rewards", [[0.1] * 3, [1.1] * 8, [0.7], [-2.0, -2.0]])
def test_equal_rewards_say_nothing(rewards):
    assert group_advantages(rewards) == [0.0] * len(rewards)
    assert anchored_advantages(rewards) == ([0.0] * len(rewards), 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_named(value):
    with pytest.raises(ValueError, match=f"got reward {value!r} for completion 1"):
        group_advantages([0.0, value, 1.0])
    with pytest.raises(ValueError, match="for completion 1"):
        anchored_advantages([0.0, value, 1.0])


def test_an_empty_group_is_refused():
    with pytest.raises(ValueError, match="no rewards"):
        group_advantages([])


def test_the_off_policy_completion_is_anchored_to_the_best_of_the_others():
    on_policy, off_policy = anchored_advantages([0.6, 0.7, 0.5])
    near(on_policy, [0.0, 0.99999, -0.99999])
    assert math.isclose(off_policy, 1.199988, abs_tol=1e-6)
    assert math.isclose(anchored_advantages([0.0, 0.0, 0.2])[1], 1.385629, abs_tol=1e-6)
    assert math.isclose(anchored_advantages([0.0, 0.0, 0.2], anchor=2.0)[1], 2 * 1.154691, abs_tol=1e-5)


def test_rewards_that_only_rounding_tells_apart_are_alike():
    assert alike([1.0, 1.0 + 6e-8]) and alike([0.3]) and alike([]) and alike([None, 0.5, None, 0.5])
    assert group_advantages([1.0, 1.0 + 6e-8], eps=1e-6) == [0.0, 0.0]
    assert not alike([0.0, 0.001]) and not alike([None, 0.5, 0.501])


def test_every_group_of_a_batch_is_normalised_by_itself_or_by_the_batch():
    rewards = [0.0, 1.0, 4.0, 8.0]
    near(batch_advantages(rewards, 2), [*group_advantages([0.0, 1.0]), *group_advantages([4.0, 8.0])])
    near(batch_advantages(rewards, 2, scale_rewards="none"), [-0.5, 0.5, -2.0, 2.0])
    deviation = math.sqrt((3.25**2 + 2.25**2 + 0.75**2 + 4.75**2) / 3)
    near(
        batch_advantages(rewards, 2, scale_rewards="batch", eps=0.1),
        [x / (deviation + 0.1) for x in (-0.5, 0.5, -2, 2)],
    )


def test_a_completion_that_no_reward_applies_to_counts_for_nothing():
    near(batch_advantages([None, 0.0, 1.0, None], 4, scale_rewards="none"), [0.0, -0.5, 0.5, 0.0])
    assert batch_advantages([None, 3.0, None, None], 2) == [0.0] * 4
    assert batch_advantages([None, None, 7.0], 3, anchor=1.2) == [0.0] * 3
    near(batch_advantages([0.0, None, 1.0, None], 4, anchor=2.0, eps=1e-6), [-0.707106, 0.0, 0.707106, 1.414212], 1e-5)


def test_advantages_and_experts_need_no_torch():
    code = "import sys, rlvtg.training.advantage, rlvtg.training.experts; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "False"
