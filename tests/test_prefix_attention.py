"""The attention of a prefix tree, against dense attention with a mask that is written down token by token."""

import json

import pytest
import torch
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention

from rlvtg.model import prefix_attention, vision_attention
from rlvtg.model.prefix_attention import obstacle, plan, prefix_tree_attention, share_prefix
from tests.tiny_qwen import model_and_processor

# two trees: a root with two branches and a stem with two of its own, and a root with one branch
LENGTHS = (5, 3, 1, 4, 2, 6, 7, 2)
PARENTS = (None, 0, 0, 0, 3, 3, None, 6)


def dense_mask():
    """(N, N): a token sees itself and what lies before it in its own segment and in all those above."""
    owner = [segment for segment, length in enumerate(LENGTHS) for _ in range(length)]

    def above(segment):
        return () if segment is None else (segment, *above(PARENTS[segment]))

    return torch.tensor(
        [
            [key <= token and owner[key] in above(owner[token]) for key in range(len(owner))]
            for token in range(len(owner))
        ]
    )


def states(device="cpu", dtype=torch.float32, heads=4, key_heads=2, size=32):
    torch.manual_seed(0)
    shapes = [(1, count, sum(LENGTHS), size) for count in (heads, key_heads, key_heads)]
    return [torch.randn(shape).to(device, dtype).requires_grad_() for shape in shapes]


def with_gradients(attend, query, key, value):
    found = attend(query, key, value)
    torch.manual_seed(1)
    weights = torch.randn(found.shape).to(found)
    return [found.detach(), *torch.autograd.grad((found * weights).sum(), (query, key, value))]


def dense(query, key, value):
    mask = dense_mask().to(query.device)
    return scaled_dot_product_attention(query, key, value, mask, scale=0.2, enable_gqa=True).transpose(1, 2)


def ours(query, key, value):
    tree = plan(LENGTHS, PARENTS, query.device)
    return prefix_tree_attention(None, query, key, value, None, prefix_plan=tree, scaling=0.2)[0]


def varlen_by_its_contract(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """What the CUDA kernel documents, in plain torch: sequence after sequence, causal from the last token back."""
    assert window_size == (-1, 0) and cu_q.dtype == cu_k.dtype == torch.int32
    found = []
    for (a, b), (c, d) in zip(cu_q.unfold(0, 2, 1).tolist(), cu_k.unfold(0, 2, 1).tolist(), strict=True):
        assert b - a <= max_q and d - c <= max_k
        mask = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
        one = [part.transpose(0, 1)[None] for part in (query[a:b], key[c:d], value[c:d])]
        found.append(scaled_dot_product_attention(*one, mask, scale=scale, enable_gqa=enable_gqa)[0].transpose(0, 1))
    return torch.cat(found)


# The kernel for CUDA runs where there is a GPU and is not collected elsewhere.
DEVICES = [("cpu", torch.float32, 1e-5), ("cpu", torch.bfloat16, 3e-2)]
if torch.cuda.is_available():
    DEVICES += [("cuda", torch.float32, 1e-4), ("cuda", torch.float16, 5e-3), ("cuda", torch.bfloat16, 3e-2)]


@pytest.mark.parametrize("small", [0, prefix_attention.SMALL], ids=["parts alike", "parts padded"])
@pytest.mark.parametrize(("device", "dtype", "tolerance"), DEVICES)
def test_outputs_and_gradients_equal_those_of_dense_attention(monkeypatch, device, dtype, tolerance, small):
    monkeypatch.setattr(prefix_attention, "SMALL", small)
    assert len(plan(LENGTHS, PARENTS).parts) == (2 if small else 6)
    expected = with_gradients(dense, *states())
    found = with_gradients(ours, *states(device, dtype))
    for one, other in zip(found, expected, strict=True):
        assert (one.float().cpu() - other).norm() <= tolerance * other.norm()


def test_the_one_call_for_cuda_asks_its_kernel_for_the_same(monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", varlen_by_its_contract)
    tree = plan(LENGTHS, PARENTS)
    found = with_gradients(lambda q, k, v: prefix_attention._in_one_call(q, k, v, tree, 0.2), *states())
    for one, other in zip(found, with_gradients(dense, *states()), strict=True):
        assert (one - other).abs().max() < 1e-5


def test_a_segment_sees_its_own_and_all_above():
    tree = plan([2, 1, 3], [None, 0, 0])
    assert [tree.seen(segment).tolist() for segment in range(3)] == [[0, 1], [0, 1, 2], [0, 1, 3, 4, 5]]
    assert tree.keys.tolist() == [0, 1, 0, 1, 2, 0, 1, 3, 4, 5]
    assert (tree.query_ends.tolist(), tree.key_ends.tolist()) == ([0, 2, 3, 6], [0, 2, 5, 10])


def test_a_plan_makes_only_what_is_asked_of_it():
    tree = plan(LENGTHS, PARENTS)
    prefix_tree_attention(None, *states(), None, prefix_plan=tree)
    assert {"parts", "order"} <= vars(tree).keys() and not {"keys", "query_ends", "key_ends"} & vars(tree).keys()


@pytest.mark.parametrize(("lengths", "parents"), [([2, 0], [None, 0]), ([2, 1], [1, None]), ([2, 1], [None, 1])])
def test_an_empty_segment_or_a_late_parent_is_refused(lengths, parents):
    with pytest.raises(ValueError, match="want tokens and an earlier parent"):
        plan(lengths, parents)


@pytest.mark.parametrize("option", [{"dropout": 0.1}, {"sliding_window": 4}])
def test_dropout_and_sliding_windows_are_refused(option):
    with pytest.raises(ValueError, match="no dropout and no sliding window"):
        prefix_tree_attention(None, *states(), None, prefix_plan=plan(LENGTHS, PARENTS), **option)


def test_a_plan_of_another_row_is_refused():
    with pytest.raises(ValueError, match="a plan of 3 tokens needs one row of as many"):
        prefix_tree_attention(None, *states(), None, prefix_plan=plan([3], [None]))


def text_call():
    ids = torch.arange(20, 32).view(1, -1)
    return {"input_ids": ids, "position_ids": torch.arange(12).expand(3, 1, 12)}


def test_a_call_without_a_plan_is_the_stock_call_bit_for_bit():
    model, _ = model_and_processor()
    calls = [text_call(), text_call() | {"attention_mask": torch.tensor([[0] * 3 + [1] * 9])}]
    with torch.no_grad():
        ours = [model(**call).logits for call in calls]
        greedy = model.generate(**text_call(), max_new_tokens=4, do_sample=False)
        model.config.text_config._attn_implementation = "sdpa"
        stock = [model(**call).logits for call in calls]
        assert torch.equal(greedy, model.generate(**text_call(), max_new_tokens=4, do_sample=False))
    assert all(torch.equal(one, other) for one, other in zip(ours, stock, strict=True))


def test_the_vision_tower_does_not_use_it_and_nothing_is_saved(tmp_path):
    model, _ = model_and_processor()
    share_prefix(model)
    config = model.config
    assert config.text_config._attn_implementation == prefix_attention.NAME
    assert config._attn_implementation == "sdpa"
    assert config.vision_config._attn_implementation == vision_attention.NAME
    model.save_pretrained(tmp_path)
    written = json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert prefix_attention.NAME not in written and vision_attention.NAME not in written


def test_what_stands_in_the_way_is_said():
    model, _ = model_and_processor()
    text = model.model.language_model.config
    assert obstacle(model) is None
    text.attention_dropout = 0.1
    assert "dropout 0.1" in obstacle(model)
    text.layer_types = ["sliding_attention"] * len(text.layer_types)
    assert "sliding window" in obstacle(model)
    text._attn_implementation = "eager"
    assert "eager" in obstacle(model)
    with pytest.raises(ValueError, match="eager attention, want sdpa"):
        model(**text_call(), prefix_plan=plan([12], [None]))
