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
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "prefix_tree"
"""The implementation's name in transformers, for the text part alone; the vision tower keeps its own."""


PADDING = 0.25
"""Of the work of the segments that go through one call together, how much more may be done for padding."""
SMALL = 20_000
"""Pairs of a query and a key for which a call of their own is not worth it."""


@dataclass(frozen=True)
class Part:
    """Segments that go through one attention call together, padded to the longest.

    Attributes:
        queries: (B, Q) the places in the row of each segment's tokens.
        keys: (B, K) the places in the row that each segment sees: its ancestors', then its own.
        mask: (B or 1, 1, Q, K) which key a query sees; None where that is all up to itself, counted from the first.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    mask: torch.Tensor | None


@dataclass(frozen=True)
class Plan:
    """The segments of a packed row of N tokens, and what each of them sees.

    One call for segments of any length (CUDA in half precision) takes `keys`, `query_ends` and `key_ends`, any other
    device `parts` and `order`. Each is made when it is first asked for, so that only what is used is made and moved.

    Attributes:
        offsets: S + 1 places in the row; segment s lies at `offsets[s]` to `offsets[s + 1]`.
        paths: for each segment, the segments from its root to itself; it sees them in this order, causally.
        scored: (T,) the places in the row whose outputs are wanted; the head is not given the others.
        device: where the row is.
    """

    offsets: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    scored: torch.Tensor
    device: torch.device

    def seen(self, segment: int) -> torch.Tensor:
        """The places in the row that a segment sees: all of its ancestors' and its own."""
        return self._seen[segment]

    @cached_property
    def keys(self) -> torch.Tensor:
        """(K,) the places in the row that the segments see, one segment's after another's."""
        return torch.cat(self._seen).to(self.device)

    @cached_property
    def query_ends(self) -> torch.Tensor:
        """(S + 1,) int32, how many tokens the first s segments have."""
        return torch.tensor(self.offsets, dtype=torch.int32).to(self.device)

    @cached_property
    def key_ends(self) -> torch.Tensor:
        """(S + 1,) int32, how many places the first s segments see."""
        return torch.tensor([0, *map(len, self._seen)]).cumsum(0, dtype=torch.int32).to(self.device)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All segments, dealt out to calls of their own."""
        return tuple(_on(part, self.device) for _, part in self._parts)

    @cached_property
    def order(self) -> torch.Tensor:
        """(N,) where in the parts' queries, one part's after another's, each token of the row is."""
        order = torch.empty(self.offsets[-1], dtype=torch.long)
        begin = 0
        for members, part in self._parts:
            for row, segment in enumerate(members):
                first = begin + row * part.queries.shape[1]
                own = slice(self.offsets[segment], self.offsets[segment + 1])
                order[own] = torch.arange(first, first + own.stop - own.start)
            begin += part.queries.numel()
        return order.to(self.device)

    @cached_property
    def _seen(self) -> list[torch.Tensor]:
        seen = list[torch.Tensor]()
        for segment, path in enumerate(self.paths):
            own = torch.arange(self.offsets[segment], self.offsets[segment + 1])
            seen.append(own if len(path) == 1 else torch.cat([seen[path[-2]], own]))
        return seen

    @cached_property
    def _parts(self) -> list[tuple[list[int], Part]]:
        lengths = [end - start for start, end in zip(self.offsets, self.offsets[1:], strict=False)]
        return _parts(lengths, self._seen)


def plan(
    lengths: Sequence[int],
    parents: Sequence[int | None],
    device: torch.device | str = "cpu",
    scored: torch.Tensor | None = None,
) -> Plan:
    """The plan of segments that lie in a row one after another.

    Args:
        lengths: tokens of each segment, at least one.
        parents: the segment that each one stands behind, which comes before it; None for a root.
        device: where the row will be.
        scored: the places in the row whose outputs are wanted; None is all.

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
    wanted = torch.arange(offsets[-1]) if scored is None else scored
    return Plan(tuple(offsets), tuple(paths), wanted.to(device), torch.device(device))


def _parts(lengths: Sequence[int], keys: Sequence[torch.Tensor]) -> list[tuple[list[int], Part]]:
    """The segments dealt out to parts: roots with roots, and what differs much in length not together."""
    behind = [len(seen) - length for seen, length in zip(keys, lengths, strict=True)]
    parts: list[list[int]] = []
    work = longest = widest = 0
    for segment in sorted(range(len(lengths)), key=lambda index: (behind[index], lengths[index])):
        seen = behind[segment] + lengths[segment]
        own = work + lengths[segment] * seen
        most, widest_seen = max(longest, lengths[segment]), max(widest, seen)
        if parts and bool(behind[parts[-1][0]]) == bool(behind[segment]):
            padding = (len(parts[-1]) + 1) * most * widest_seen - own
            if padding <= max(PADDING * own, SMALL):
                parts[-1].append(segment)
                work, longest, widest = own, most, widest_seen
                continue
        parts.append([segment])
        work, longest, widest = lengths[segment] * seen, lengths[segment], seen
    return [(members, _part(members, lengths, keys)) for members in parts]


def _part(members: Sequence[int], lengths: Sequence[int], keys: Sequence[torch.Tensor]) -> Part:
    # places that pad come last and so are seen by what pads alone
    seen = pad_sequence([keys[segment] for segment in members], batch_first=True)
    own = pad_sequence([keys[segment][-lengths[segment] :] for segment in members], batch_first=True)
    behind = torch.tensor([len(keys[segment]) - lengths[segment] for segment in members])
    if not behind.any():
        return Part(own, seen, None)
    if bool((behind == behind[0]).all()):
        behind = behind[:1]
    last = behind[:, None] + torch.arange(own.shape[1])  # the last key that each query sees
    return Part(own, seen, (torch.arange(seen.shape[1]) <= last[..., None])[:, None])


def _on(part: Part, device: torch.device | str) -> Part:
    return Part(part.queries.to(device), part.keys.to(device), None if part.mask is None else part.mask.to(device))


def share_prefix(model: PreTrainedModel) -> None:
    """Teach `model` (not a PEFT wrapper) the keyword `prefix_plan`, if its text part runs sdpa; safe to repeat.

    A call with a plan of a model that cannot follow it is refused: stock attention would ignore the plan silently.
    """
    if model.config.get_text_config()._attn_implementation == "sdpa":
        model.set_attn_implementation({"text_config": NAME})
    backbone = model.base_model
    if _refuse_unsupported not in backbone._forward_pre_hooks.values():
        backbone.register_forward_pre_hook(_refuse_unsupported, with_kwargs=True)
        backbone.register_forward_hook(_leave_out_unscored, with_kwargs=True)


def obstacle(model: torch.nn.Module) -> str | None:
    """Why `model` (or the model in a wrapper) cannot share a prefix with the numbers unchanged, or None if it can."""
    text = next(part for name, part in model.named_modules() if f".{name}".endswith(".language_model"))
    config = text.config
    if config._attn_implementation != NAME:
        return f"its text part runs {config._attn_implementation} attention, want sdpa"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):  # Qwen3-VL's has none
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


def _leave_out_unscored(backbone: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """The head is given the places that predict a token of a completion, not the prompts."""
    if kwargs.get("prefix_plan") is not None:
        output.last_hidden_state = output.last_hidden_state[:, kwargs["prefix_plan"].scored]
    return output


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
    along = _in_one_call if has_kernel else _by_part
    return along(query, key, value, prefix_plan, scaling), None


def _by_part(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: Plan, scaling: float | None
) -> torch.Tensor:
    """One sdpa call for each part: any device and dtype."""
    found = [_attend(part, query, key, value, scaling) for part in plan.parts]
    return torch.cat(found).index_select(0, plan.order)[None]


def _attend(
    part: Part, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """What the queries of a part find, (B * Q, H, D)."""
    own, keys, values = _at(query, part.queries), _at(key, part.keys), _at(value, part.keys)
    is_grouped = query.shape[1] != key.shape[1]
    if is_grouped and query.is_cuda and (part.mask is not None or query.dtype == torch.float32):
        # of CUDA's kernels flash alone knows groups of heads, and it takes neither a mask nor float32; without this
        # the whole (Q, K) matrix of scores would be written down
        repeats = query.shape[1] // key.shape[1]
        keys, values, is_grouped = *(states.repeat_interleave(repeats, 1) for states in (keys, values)), False
    found = scaled_dot_product_attention(
        own, keys, values, attn_mask=part.mask, is_causal=part.mask is None, scale=scaling, enable_gqa=is_grouped
    )
    return found.transpose(1, 2).flatten(0, 1)


def _at(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The states (1, H, N, D) at places (B, n), as (B, H, n, D)."""
    heads, width = states.shape[1], states.shape[3]
    return states[0].index_select(1, places.flatten()).view(heads, *places.shape, width).transpose(0, 1)


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
