"""Advantages of one group: what its rewards say about each of its completions. Plain numbers, no tensors."""

from collections.abc import Sequence
from math import fsum, isfinite, sqrt


def group_advantages(rewards: Sequence[float], *, scale: bool = True, eps: float = 1e-4) -> list[float]:
    """(r - mean) / (std + eps) over one group of G rewards; r - mean without `scale`.

    The standard deviation is the unbiased one (divided by G - 1), as in torch and TRL; one reward alone has none, and
    its advantage is 0. Rewards that are all equal give zeros, free of rounding.

    Args:
        rewards: (G,) one for each completion of the group, an off-policy one included.
        scale: whether to divide by the standard deviation.
        eps: added to it; 1e-4 in TRL and the methods built on it, 1e-6 in TempSamp-R1's release. It decides how much a
            group of nearly equal rewards counts.

    Returns:
        (G,) in the order of `rewards`.

    Raises:
        ValueError: there is no reward, or one that is not finite and would make the whole group's advantages so.

    Source: GRPO, arXiv 2402.03300.
    """
    if not rewards:
        raise ValueError("got a group of no rewards, want at least one")
    for index, reward in enumerate(rewards):
        if not isfinite(reward):
            raise ValueError(f"got reward {reward!r} for completion {index} of a group, want finite numbers")
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    mean = fsum(rewards) / len(rewards)
    centred = [reward - mean for reward in rewards]
    if not scale:
        return centred
    std = sqrt(fsum(difference * difference for difference in centred) / (len(rewards) - 1))
    return [difference / (std + eps) for difference in centred]


def anchored_advantages(
    on_policy_rewards: Sequence[float], *, anchor: float = 1.2, eps: float = 1e-6
) -> tuple[list[float], float]:
    """Advantages of a group with one off-policy completion, which takes no part in the group's statistics.

    The on-policy rewards are normalised among themselves; the off-policy completion gets `anchor` times the largest of
    their advantages, whatever its own reward: it leads, by a bounded margin. All are 0 where those rewards are equal.

    Args:
        on_policy_rewards: (G - 1,) rewards of the completions that the policy wrote.
        anchor: lambda of the paper's equation 3.
        eps: added to the standard deviation.

    Returns:
        (G - 1,) on-policy advantages, and the off-policy one.

    Raises:
        ValueError: as `group_advantages`.

    Source: TempSamp-R1, arXiv 2509.18056, equation 3.
    """
    on_policy = group_advantages(on_policy_rewards, eps=eps)
    return on_policy, anchor * max(on_policy)
