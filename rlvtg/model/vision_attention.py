"""Attention of the vision tower in a few calls instead of one for each chunk of patches; the numbers are the same.

The towers attend within frames, and Qwen2.5-VL's within windows of a frame too. Outside flash attention transformers
runs one sdpa call for each such chunk, thousands for a video. Here chunks of equal length go through one call together.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

# The tower hands over all chunks at once, with their ends, where the name of the implementation has "flash" in it.
NAME = "chunks_as_flash"


def batch_chunks(model: PreTrainedModel) -> None:
    """Let the vision tower of `model` (not a PEFT wrapper) use it, if it runs sdpa; safe to repeat."""
    config = model.config.vision_config
    if config._attn_implementation == "sdpa":
        config._attn_implementation = NAME


def chunk_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' own signature, each token over the tokens of its chunk.

    Args:
        module: the attention layer.
        query: (1, H, N, D), as are `key` and `value`.
        attention_mask: not looked at; the chunks say who sees whom.
        cu_seq_lens_q: (chunks + 1,) where in N each chunk begins, and N.
        scaling: of the scores.
        dropout: of the weights.
        kwargs: what flash attention is told besides.

    Returns:
        (1, N, H, D), and None in the place of the weights.
    """
    ends = cu_seq_lens_q.tolist()
    # a video whose size is not a whole number of windows has empty ones
    chunks = [(start, end) for start, end in zip(ends, ends[1:], strict=False) if end > start]
    length = chunks[0][1] - chunks[0][0]
    if all(end - start == length for start, end in chunks):
        return _attend(query, key, value, length, dropout, scaling).transpose(0, 1)[None], None
    found = torch.empty_like(query[0])
    for length in sorted({end - start for start, end in chunks}):
        starts = torch.tensor([start for start, end in chunks if end - start == length], device=query.device)
        places = (starts[:, None] + torch.arange(length, device=query.device)).flatten()
        own = [states.index_select(2, places) for states in (query, key, value)]
        found = found.index_copy(1, places, _attend(own[0], own[1], own[2], length, dropout, scaling))
    return found.transpose(0, 1)[None], None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, length: int, dropout: float, scaling: float | None
) -> torch.Tensor:
    """Attention (H, N, D) of N tokens that are chunks of `length`, one after another."""
    heads, count, width = query.shape[1:]
    chunked = [states.view(heads, -1, length, width).transpose(0, 1) for states in (query, key, value)]
    found = scaled_dot_product_attention(chunked[0], chunked[1], chunked[2], dropout_p=dropout, scale=scaling)
    return found.transpose(0, 1).reshape(heads, count, width)


AttentionInterface.register(NAME, chunk_attention)
