"""A group shares its prompt: the policy runs a prompt once for all of its completions, exactly.

The completions of a group stand behind one another in a single row, `prompt[:-1]` and then for each completion the last
prompt token and the completion without its last token. A mask lets a completion see the prompt and itself, and each
completion's positions start anew where the prompt ends. Every branch starts with the last prompt token because one
position cannot have G different next tokens; so every label has a position of its own.

Tokens of a group of G completions of length C behind a prompt of length P: P - 1 + G * C instead of G * (P + C).
Source: shared-prefix attention as in PrefixGrouper (arXiv 2506.05433); written for M-RoPE and video.
"""

from collections.abc import Sequence
from typing import Any

import torch

from rlvtg.model.inputs import Inputs, batch


def packed(
    rows: Sequence[Inputs], completions: torch.Tensor, completion_mask: torch.Tensor, *, pad_token_id: int
) -> dict[str, Any]:
    """Keyword arguments of one model call over B / G rows, one for each group of `rows`.

    Args:
        rows: B prompts; the completions of a group are neighbours and hold the same `Inputs` object.
        completions: (B, C) token ids.
        completion_mask: (B, C) ones where a completion has tokens.
        pad_token_id: fills the padding.

    Returns:
        `input_ids` (N, L), a 4-D boolean `attention_mask` (N, 1, L, L), `position_ids` (3, N, L), `shift_labels` (N, L)
        and the videos, for N groups; L is the longest prompt - 1 + G * C. The labels of a group are its last G * C.

    Raises:
        ValueError: the groups are not of one size.
    """
    starts = [index for index, row in enumerate(rows) if index == 0 or row is not rows[index - 1]]
    prompts = [rows[index] for index in starts]
    group, rest = divmod(len(rows), len(prompts))
    if rest or starts != list(range(0, len(rows), group)):
        raise ValueError(f"got groups that start at rows {starts} of {len(rows)}; groups are whole and of one size")
    count, length = len(prompts), completions.shape[1]
    branches = completions.view(count, group, length)
    alive = completion_mask.view(count, group, length).bool()
    device = completions.device

    call = batch(prompts, completions[:count, :0], completion_mask[:count, :0], pad_token_id=pad_token_id)
    shared, width = call["input_ids"][:, :-1], call["input_ids"].shape[1] - 1
    last = call["input_ids"][:, -1:, None].expand(-1, group, 1)
    branch_ids = torch.cat([last, branches[:, :, :-1]], dim=2).flatten(1)
    # the last prompt token is the first of a branch, at its own position; the completion goes on from there
    begin = torch.stack([prompt.position_ids[:, -1] for prompt in prompts], dim=1).to(device)
    follow = torch.tensor([prompt.next_position for prompt in prompts], device=device).expand(3, -1)
    steps = follow[..., None] + torch.arange(length - 1, device=device)
    branch_positions = torch.cat([begin[..., None], steps], dim=2).repeat(1, 1, group)

    owner = torch.arange(group, device=device).repeat_interleave(length)  # which completion a branch token is of
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril().repeat(group, group)
    within = causal & (owner[:, None] == owner[None])
    prompt_alive = call["attention_mask"][:, :-1].bool()
    # a branch token is there if it is the last prompt token or a token of the completion
    there = torch.cat([torch.ones_like(alive[:, :, :1]), alive[:, :, :-1]], dim=2).flatten(1)
    total = width + group * length
    mask = torch.zeros(count, total, total, dtype=torch.bool, device=device)
    mask[:, :width, :width] = torch.ones(width, width, dtype=torch.bool, device=device).tril() & prompt_alive[:, None]
    mask[:, width:, :width] = prompt_alive[:, None]
    mask[:, width:, width:] = within & there[:, None]
    mask |= torch.eye(total, dtype=torch.bool, device=device)  # padding sees itself: a row of nothing would be NaN

    labels = torch.full((count, total), -100, device=device)
    labels[:, width:] = branches.masked_fill(~alive, -100).flatten(1)
    return call | {
        "input_ids": torch.cat([shared, branch_ids], dim=1),
        "attention_mask": mask[:, None],
        "position_ids": torch.cat([call["position_ids"][:, :, :-1], branch_positions], dim=2),
        "shift_labels": labels,
    }


def unpacked(values: torch.Tensor | None, completions: torch.Tensor) -> torch.Tensor | None:
    """Per-token values (N, L) of a packed call as (B, C), in the order of the completions."""
    if values is None:
        return None
    count, length = completions.shape
    return values[:, -(count // len(values)) * length :].reshape(count, length)
