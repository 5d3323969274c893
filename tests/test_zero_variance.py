"""Groups whose rewards are all equal: which are sampled again, and what a loss without them is averaged over."""

import pytest
import torch

from rlvtg.training.zero_variance import resample, weighed


def drawing(*rounds):
    """`again` that gives each prompt the next of its groups, and the calls that were made."""
    calls = []

    def again(prompts):
        calls.append(prompts)
        return [rounds[len(calls) - 1][prompt] for prompt in prompts]

    return again, calls


def flat(group):
    return len(set(group)) == 1


def alone(number):
    return number


def test_only_flat_groups_are_sampled_again_and_as_a_whole():
    again, calls = drawing([(5, 5), (5, 6), (5, 7)], [(8, 9), (8, 9), (8, 9)])
    groups, made = resample([(0, 1), (1, 1), (2, 2)], flat, again, alone, 5)
    assert groups == [(0, 1), (5, 6), (5, 7)]
    assert (made, calls) == (2, [[1, 2]])


def test_a_group_that_stays_flat_is_kept_when_the_cap_is_reached():
    again, calls = drawing([(5, 5), (3, 4)], [(6, 6), (0, 0)])
    groups, made = resample([(1, 1), (2, 2)], flat, again, alone, 2)
    assert groups == [(6, 6), (3, 4)]
    assert (made, calls) == (3, [[0, 1], [0]])


def test_a_process_samples_as_often_and_as_much_as_the_one_that_needs_most():
    again, calls = drawing([(8, 9)] * 3, [(8, 9)] * 3)
    needs = iter([3, 1, 0])
    groups, made = resample([(0, 1), (1, 1), (2, 3)], flat, again, lambda _: next(needs), 5)
    assert calls == [[1, 0, 2], [0]]  # what it does not need is thrown away
    assert groups == [(0, 1), (8, 9), (2, 3)]
    assert made == 1


@pytest.mark.parametrize(
    ("loss_type", "want"), [("grpo", (4, 1)), ("dr_grpo", (4, 1)), ("bnpo", (2, 1)), ("dapo", (8, 3))]
)
def test_a_loss_is_weighed_by_what_its_mean_is_taken_over(loss_type, want):
    dropped = {
        "kept": torch.tensor([False, False]),
        "tokens": torch.tensor([2, 2]),
        "completion_mask": torch.tensor([[0, 0, 0], [0, 0, 0]]),
    }
    half = {
        "kept": torch.tensor([True, False]),
        "tokens": torch.tensor([3, 1]),
        "completion_mask": torch.tensor([[1, 1, 1], [0, 0, 0]]),
    }
    assert weighed([dropped, half], loss_type) == want
