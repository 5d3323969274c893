"""Groups whose rewards are all equal, which teach nothing: sampled again, or left out of the loss as whole groups.

Leaving out means that a step learns what it would have learnt from the other groups alone. Its tokens are masked, and
the loss is scaled by what its average was taken over.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Group = TypeVar("Group")

TOKEN_MEANS = ("dapo", "cispo", "vespo")
"""Losses of TRL 1.16 that are a mean over the tokens of a generation batch."""


def resample(
    groups: Sequence[Group],
    is_flat: Callable[[Group], bool],
    again: Callable[[list[int]], list[Group]],
    most: Callable[[int], int],
    max_resamples: int,
) -> tuple[list[Group], int]:
    """The groups, with those that are flat replaced by new ones for the same prompts until they are not.

    Every process samples as many groups as the one that needs most, so that all make the same calls; what a process
    samples beyond its need is thrown away.

    Args:
        groups: P groups of this process.
        is_flat: whether a group's rewards are all equal.
        again: new groups for these prompts (indices below P), in their order.
        most: a number of this process -> the largest of all processes.
        max_resamples: how often a group is sampled again at most; what is flat then, stays.

    Returns:
        P groups, and how many have been sampled again to be used, each time counted.
    """
    found, made = list(groups), 0
    for _ in range(max_resamples):
        flat = [place for place, group in enumerate(found) if is_flat(group)]
        needed = most(len(flat))
        if not needed:
            break
        others = [place for place in range(len(found)) if place not in flat]
        for place, group in zip(flat, again([*flat, *others[: needed - len(flat)]]), strict=False):
            found[place] = group
        made += len(flat)
    return found, made


def weighed(micro_batches: Sequence[Mapping[str, Any]], loss_type: str) -> tuple[float, float]:
    """What the loss of a generation batch is averaged over in this process: with and without what is left out.

    Rows for means over completions, tokens for means over all tokens, micro-batches for bnpo, which takes the mean over
    the tokens of each.

    Args:
        micro_batches: each with `kept` (B,) and `completion_mask` (B, C), in which what is left out is masked, and
            `tokens`, the number of tokens of each completion (B,) before that.
        loss_type: TRL's name.
    """
    if loss_type in TOKEN_MEANS:
        return sum(float(batch["tokens"].sum()) for batch in micro_batches), sum(
            float(batch["completion_mask"].sum()) for batch in micro_batches
        )
    if loss_type == "bnpo":
        return len(micro_batches), sum(bool(batch["kept"].any()) for batch in micro_batches)
    return sum(len(batch["kept"]) for batch in micro_batches), sum(
        float(batch["kept"].sum()) for batch in micro_batches
    )
