"""A group shares its prompt: the policy runs a prompt once for all of its completions, exactly.

All rows of a call become one row, a forest without padding: `prompt[:-1]`, and behind it for each completion a branch
of the last prompt token and the completion without its last token. A branch sees its prompt and itself
(`rlvtg.model.prefix_attention`), and its positions start anew where the prompt ends. Every branch starts with the last
prompt token because one position cannot have G different next tokens; so every label has a position of its own.
Prompts that ask about one video and begin alike share that beginning too: the video once, each query once, and the
completions.

Tokens of a group of G completions behind a prompt of length P: P - 1 and the completions' instead of G * P and the
completions'. Source: shared-prefix attention as in PrefixGrouper (arXiv 2506.05433); written for M-RoPE and video.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlvtg.model.inputs import Inputs, VideoInputs
from rlvtg.model.prefix_attention import plan


@dataclass(frozen=True)
class _Tree:
    """Prompts that share their first `trunk` tokens, each with its rows."""

    trunk: int
    prompts: list[tuple[Inputs, list[int]]]

    def prompt_tokens(self) -> int:
        return self.trunk + sum(len(prompt.input_ids) - 1 - self.trunk for prompt, _ in self.prompts)


def packed(
    rows: Sequence[Inputs], completions: torch.Tensor, completion_mask: torch.Tensor, *, video_token_id: int
) -> tuple[dict[str, Any], torch.Tensor]:
    """Keyword arguments of one model call over one row that holds B prompts with their completions.

    Args:
        rows: B prompts; the completions of a group hold the same `Inputs` object, in any order.
        completions: (B, C) token ids.
        completion_mask: (B, C) ones where a completion has tokens, which are its first; there may be none.
        video_token_id: the pad that stands for one merged video token.

    Returns:
        `input_ids` (1, N), `position_ids` (3, 1, N), the videos as in `batch`, `prefix_plan`, and `shift_labels` (1, T)
        of the T tokens of all completions, which alone are scored; and the places (B, C) among those T of each
        completion token, -1 where there is none.

    Raises:
        ValueError: a completion that does not begin at its first token or has gaps.
    """
    lengths = _lengths(completion_mask)
    written = completions.cpu()
    places = torch.full(completions.shape, -1)
    ids: list[torch.Tensor] = []
    positions: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    parents: list[int | None] = []
    videos: dict[int, tuple[VideoInputs, list[int]]] = {}
    video_row: list[int] = []
    scored: list[torch.Tensor] = []
    end = told = 0

    def grow(parent: int | None, tokens: torch.Tensor, where: torch.Tensor) -> int:
        nonlocal end
        ids.append(tokens)
        positions.append(where)
        parents.append(parent)
        end += len(tokens)
        return len(parents) - 1

    for tree in _trees(rows, video_token_id):
        first = tree.prompts[0][0]
        if id(first.video) not in videos:
            count = sum(len(video.grids) for video, _ in videos.values())
            videos[id(first.video)] = (first.video, list(range(count, count + len(first.video.grids))))
        video_row += videos[id(first.video)][1]
        root = grow(None, first.input_ids[: tree.trunk], first.position_ids[:, : tree.trunk])
        for prompt, members in tree.prompts:
            query = slice(tree.trunk, len(prompt.input_ids) - 1)
            has_own = tree.trunk < len(prompt.input_ids) - 1
            stem = grow(root, prompt.input_ids[query], prompt.position_ids[:, query]) if has_own else root
            for row in members:
                length = lengths[row]
                if not length:
                    continue
                places[row, :length] = torch.arange(told, told + length)
                told += length
                scored.append(torch.arange(end, end + length))
                labels.append(written[row, :length])
                follow = prompt.next_position + torch.arange(length - 1).expand(3, -1)
                grow(
                    stem,
                    torch.cat([prompt.input_ids[-1:], written[row, : length - 1]]),
                    torch.cat([prompt.position_ids[:, -1:], follow], dim=1),
                )
    if not scored:  # the head is not run on nothing; this place has no label, and so no part in anything
        scored, labels = [torch.zeros(1, dtype=torch.long)], [torch.full((1,), -100)]
    device = completions.device
    unique = [video for video, _ in videos.values()]
    keys = [digest for video in unique for digest in video.digests]
    call = {
        "input_ids": torch.cat(ids)[None].to(device),
        "position_ids": torch.cat(positions, dim=1)[:, None].to(device),
        "shift_labels": torch.cat(labels)[None].to(device),
        "pixel_values_videos": torch.cat([video.pixel_values for video in unique]).to(device),
        "video_grid_thw": torch.cat([video.grids for video in unique]).to(device),
        "video_rows": [video_row],
        "prefix_plan": plan([len(tokens) for tokens in ids], parents, device, torch.cat(scored)),
    } | ({"video_keys": keys} if len(keys) == sum(len(video.grids) for video in unique) else {})
    return call, places.to(device)


def unpacked(values: torch.Tensor | None, places: torch.Tensor) -> torch.Tensor | None:
    """Per-token values (1, T) of a packed call as (B, C), 0 where a completion has no token."""
    if values is None:
        return None
    # one more value, so that there is one to take where no completion has a token
    padded = torch.cat([values[0], values.new_zeros(1)])
    return padded[places]


def slices(
    rows: Sequence[Inputs], completion_mask: torch.Tensor, max_tokens: int, *, video_token_id: int
) -> list[list[int]]:
    """The rows of a call, dealt out to calls of at most `max_tokens` packed tokens; each runs its own prompts.

    A single completion with its prompt that is longer than that has a call to itself.
    """
    lengths = _lengths(completion_mask)

    def size(members: Sequence[int]) -> int:
        trees = _trees([rows[row] for row in members], video_token_id)
        return sum(tree.prompt_tokens() for tree in trees) + sum(lengths[row] for row in members)

    dealt: list[list[int]] = []
    for tree in _trees(rows, video_token_id):
        for row in (row for _, members in tree.prompts for row in members):
            if dealt and size([*dealt[-1], row]) <= max_tokens:
                dealt[-1].append(row)
            else:
                dealt.append([row])
    return dealt


def at_least(dealt: Sequence[list[int]], count: int) -> list[list[int]]:
    """The same rows in no fewer than `count` slices, so that every process makes as many calls as the others."""
    cut = list(dealt)
    while len(cut) < count:
        longest = max(range(len(cut)), key=lambda index: len(cut[index]))
        half = (len(cut[longest]) + 1) // 2
        cut[longest : longest + 1] = [cut[longest][:half], cut[longest][half:]]
    return cut


def _lengths(completion_mask: torch.Tensor) -> list[int]:
    alive = completion_mask.bool().cpu()
    lengths = alive.sum(dim=1)
    if not torch.equal(alive, torch.arange(alive.shape[1]) < lengths[:, None]):
        raise ValueError("a completion has gaps; its tokens must be the first of its row")
    return lengths.tolist()


def _trees(rows: Sequence[Inputs], video_token_id: int) -> list[_Tree]:
    """Rows by prompt, and prompts by the beginning that they share; all in order of first appearance."""
    prompts: dict[int, tuple[Inputs, list[int]]] = {}
    for index, row in enumerate(rows):
        prompts.setdefault(id(row), (row, []))[1].append(index)
    about: dict[int, list[tuple[Inputs, list[int]]]] = {}
    for prompt, members in prompts.values():
        about.setdefault(id(prompt.video), []).append((prompt, members))
    trees = []
    for several in about.values():
        trunk = _common([prompt for prompt, _ in several])
        has_video = all(video_token_id not in prompt.input_ids[trunk:] for prompt, _ in several)
        if has_video:
            trees.append(_Tree(trunk, several))
        else:
            trees += [_Tree(len(prompt.input_ids) - 1, [(prompt, members)]) for prompt, members in several]
    return trees


def _common(prompts: Sequence[Inputs]) -> int:
    """How many tokens, at the same positions, all prompts begin with; less than the shortest prompt."""
    first = prompts[0]
    length = min(len(prompt.input_ids) for prompt in prompts) - 1
    for prompt in prompts[1:]:
        same = first.input_ids[:length] == prompt.input_ids[:length]
        same &= (first.position_ids[:, :length] == prompt.position_ids[:, :length]).all(dim=0)
        length = int(same.long().cumprod(0).sum())
    return length
