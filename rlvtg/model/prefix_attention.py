"""Attention in which branches share what lies before them: each token sees the tokens on its way down from the root.

A packed row holds the segments of one or more trees, parents before children, and a `Plan` says which segment stands
behind which. A model that `share_prefix` has prepared takes the plan as the keyword `prefix_plan` beside the packed
row. It is an ordinary call of the model, so PEFT, checkpointing, DDP and ZeRO see nothing new; and a call without a
plan runs stock attention.

Source: tree attention by one variable-length call over gathered keys, as in TRL's asynchronous GRPO for text; written
for M-RoPE positions, video and CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "prefix_tree"
"""The implementation's name in transformers, for the text part alone; the vision tower keeps its own."""


@dataclass(frozen=True)
class Plan:
    """The segments of a packed row of N tokens, and what each of them sees.

    Attributes:
        offsets: S + 1 places in the row; segment s lies at `offsets[s]` to `offsets[s + 1]`.
        paths: for each segment, the segments from its root to itself; it sees them in this order, causally.
        keys: (K,) the places in the row that the segments see, one segment's after another's.
        query_ends: (S + 1,) int32, how many tokens the first s segments have.
        key_ends: (S + 1,) int32, how many places the first s segments see.
    """

    offsets: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    keys: torch.Tensor
    query_ends: torch.Tensor
    key_ends: torch.Tensor

    def seen(self, segment: int) -> torch.Tensor:
        """The places in the row that a segment sees: all of its ancestors' and its own."""
        return _places(self.offsets, self.paths[segment])


def plan(lengths: Sequence[int], parents: Sequence[int | None], device: torch.device | str = "cpu") -> Plan:
    """The plan of segments that lie in a row one after another.

    Args:
        lengths: tokens of each segment, at least one.
        parents: the segment that each one stands behind, which comes before it; None for a root.
        device: where the row will be.

    Raises:
        ValueError: an empty segment, or one that comes before its parent.
    """
    offsets, paths = [0], list[tuple[int, ...]]()
    for segment, (length, parent) in enumerate(zip(lengths, parents, strict=True)):
        if length < 1 or (parent is not None and not 0 <= parent < segment):
            raise ValueError(
                f"segment {segment} has {length} tokens and parent {parent}; want tokens and an earlier parent"
            )
        offsets.append(offsets[-1] + length)
        paths.append((segment,) if parent is None else (*paths[parent], segment))
    keys = [_places(offsets, path) for path in paths]
    key_ends = torch.tensor([0, *map(len, keys)]).cumsum(0)
    return Plan(
        tuple(offsets),
        tuple(paths),
        torch.cat(keys).to(device),
        torch.tensor(offsets, dtype=torch.int32, device=device),
        key_ends.to(device, torch.int32),
    )


def _places(offsets: Sequence[int], path: Sequence[int]) -> torch.Tensor:
    return torch.cat([torch.arange(offsets[segment], offsets[segment + 1]) for segment in path])


def share_prefix(model: PreTrainedModel) -> None:
    """Teach `model` (not a PEFT wrapper) the keyword `prefix_plan`, if its text part runs sdpa; safe to repeat.

    A call with a plan of a model that cannot follow it is refused: stock attention would ignore the plan silently.
    """
    if model.config.get_text_config()._attn_implementation == "sdpa":
        model.set_attn_implementation({"text_config": NAME})
    backbone = model.base_model
    if _refuse_unsupported not in backbone._forward_pre_hooks.values():
        backbone.register_forward_pre_hook(_refuse_unsupported, with_kwargs=True)


def obstacle(model: torch.nn.Module) -> str | None:
    """Why `model` (or the model in a wrapper) cannot share a prefix with the numbers unchanged, or None if it can."""
    text = next(part for name, part in model.named_modules() if f".{name}".endswith(".language_model"))
    config = text.config
    if config._attn_implementation != NAME:
        return f"its text part runs {config._attn_implementation} attention, want sdpa"
    if "sliding_attention" in config.layer_types:
        return "it has layers with a sliding window, which would have to slide along each branch"
    dropout = max(
        [config.attention_dropout, *(part.p for part in model.modules() if isinstance(part, torch.nn.Dropout))]
    )
    if dropout:
        return f"it has dropout {dropout:g}, which would be drawn once for the whole group"
    return None


def _refuse_unsupported(backbone: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    name = backbone.config.get_text_config()._attn_implementation
    if kwargs.get("prefix_plan") is not None and name != NAME:
        raise ValueError(f"got a prefix plan for a model whose text part runs {name} attention, want sdpa")


def prefix_tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    prefix_plan: Plan | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' own signature: stock sdpa without a plan, along the plan's paths with one.

    Args:
        module: the attention layer.
        query: (1, H, N, D) with a plan.
        key: (1, H_kv, N, D) with a plan, H_kv a divisor of H.
        value: as `key`.
        attention_mask: for stock sdpa alone.
        prefix_plan: of the packed row.
        dropout: must be 0 with a plan.
        scaling: of the scores.
        sliding_window: must be None with a plan.
        kwargs: for stock sdpa alone.

    Returns:
        (1, N, H, D), and None in the place of the weights.

    Raises:
        ValueError: a plan with dropout, with a sliding window, or of another row.
    """
    if prefix_plan is None:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            sliding_window=sliding_window,
            **kwargs,
        )
    if dropout or sliding_window is not None:
        raise ValueError(
            f"a shared prefix allows no dropout and no sliding window, got dropout {dropout:g} and "
            f"sliding window {sliding_window}; set share_prefix to false"
        )
    tokens = prefix_plan.offsets[-1]
    if query.shape[0] != 1 or query.shape[2] != tokens or key.shape[2] != tokens:
        raise ValueError(
            f"a plan of {tokens} tokens needs one row of as many, got queries {tuple(query.shape)} and keys "
            f"{tuple(key.shape)}"
        )
    if query.is_cuda and torch.is_autocast_enabled("cuda"):
        # rotary embeddings leave queries and keys in float32; stock sdpa is cast by autocast, this call is not
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    has_kernel = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and torch.__version__ >= (2, 13)
    along = _in_one_call if has_kernel else _by_segment
    return along(query, key, value, prefix_plan, scaling), None


def _by_segment(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: Plan, scaling: float | None
) -> torch.Tensor:
    """One sdpa call for each segment: any device and dtype, memory in proportion to the tokens."""
    grouped = query.shape[1] != key.shape[1]
    found = []
    for segment, path in enumerate(plan.paths):
        own = query[:, :, plan.offsets[segment] : plan.offsets[segment + 1]]
        keys, values = _along(key, plan, path), _along(value, plan, path)
        count, width = own.shape[2], keys.shape[2]
        # a segment's last token sees all; sdpa's own causal mask would let its first token see the first key alone
        mask = (
            None
            if count == width
            else torch.ones(count, width, dtype=torch.bool, device=own.device).tril(width - count)
        )
        found.append(
            scaled_dot_product_attention(
                own, keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(found, dim=2).transpose(1, 2)


def _along(states: torch.Tensor, plan: Plan, path: Sequence[int]) -> torch.Tensor:
    """Keys or values (1, H_kv, n, D) of the segments of a path."""
    return torch.cat([states[:, :, plan.offsets[segment] : plan.offsets[segment + 1]] for segment in path], dim=2)


def _in_one_call(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: Plan, scaling: float | None
) -> torch.Tensor:
    """One variable-length flash call, causal from the end of each segment; CUDA, float16 or bfloat16, torch 2.13."""
    from torch.nn.attention.varlen import varlen_attn

    found = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1).index_select(0, plan.keys),
        value[0].transpose(0, 1).index_select(0, plan.keys),
        plan.query_ends,
        plan.key_ends,
        max(end - start for start, end in zip(plan.offsets, plan.offsets[1:], strict=False)),
        max(sum(plan.offsets[part + 1] - plan.offsets[part] for part in path) for path in plan.paths),
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found[None]


AttentionInterface.register(NAME, prefix_tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
