"""Advantages of one group: what its rewards say about each of its completions. Plain numbers, no tensors."""

from collections.abc import Sequence
from math import fsum, isclose, isfinite, sqrt


def alike(rewards: Sequence[float | None]) -> bool:
    """Whether the rewards of a group give nothing to compare: fewer than two, or equal up to float32's rounding."""
    known = [reward for reward in rewards if reward is not None]
    return len(known) < 2 or isclose(min(known), max(known), rel_tol=1e-6, abs_tol=1e-8)


def group_advantages(rewards: Sequence[float], *, scale: bool = True, eps: float = 1e-4) -> list[float]:
    """(r - mean) / (std + eps) over one group of G rewards; r - mean without `scale`.

    The standard deviation is the unbiased one (divided by G - 1), as in torch and TRL; one reward alone has none, and
    its advantage is 0. Rewards that are `alike` give zeros, free of rounding.

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
    if alike(rewards):
        return [0.0] * len(rewards)
    mean = fsum(rewards) / len(rewards)
    centred = [reward - mean for reward in rewards]
    return [difference / (_deviation(rewards) + eps) for difference in centred] if scale else centred


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


def batch_advantages(
    rewards: Sequence[float | None],
    num_generations: int,
    *,
    scale_rewards: str = "group",
    eps: float = 1e-4,
    anchor: float | None = None,
) -> list[float]:
    """Advantages of several groups of G completions, one group after the other.

    Args:
        rewards: (P * G,) one for each completion; None where no reward applies, which counts for nothing and has
            advantage 0.
        num_generations: G.
        scale_rewards: what divides r - mean: "group" its group's standard deviation, "batch" that of all rewards,
            "none" nothing.
        eps: added to the standard deviation.
        anchor: if given, the last completion of every group is off-policy (`anchored_advantages`), and `scale_rewards`
            is "group".

    Returns:
        (P * G,); with its defaults what TRL 1.16 gives, up to float32's rounding.

    Raises:
        ValueError: as `group_advantages`.
    """
    known = [reward for reward in rewards if reward is not None]
    divisor = _deviation(known) + eps if scale_rewards == "batch" and not alike(known) else 1.0
    result: list[float] = []
    for start in range(0, len(rewards), num_generations):
        group = rewards[start : start + num_generations]
        on_policy = group if anchor is None else group[:-1]
        places = [place for place, reward in enumerate(on_policy) if reward is not None]
        found = [0.0] * len(group)
        if places:
            given = [reward for reward in on_policy if reward is not None]
            if anchor is None:
                values = group_advantages(given, scale=scale_rewards == "group", eps=eps)
            else:
                values, found[-1] = anchored_advantages(given, anchor=anchor, eps=eps)
            for place, value in zip(places, values, strict=True):
                found[place] = value / divisor
        result += found
    return result


def _deviation(values: Sequence[float]) -> float:
    """The unbiased standard deviation of two or more numbers."""
    mean = fsum(values) / len(values)
    return sqrt(fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
