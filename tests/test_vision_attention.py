"""The vision tower in few calls: the features and gradients of one call for each window and frame."""

import pytest
import torch
from torch.nn import functional
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from rlvtg.model import vision_attention
from rlvtg.model.grids import grid_arguments
from rlvtg.model.patch_embedding import PatchProjection
from rlvtg.model.tiny import QWEN2_5
from rlvtg.recipe import FAMILIES
from tests.tiny_qwen import model_and_processor

# one of many small clips, one whose size is no whole number of windows, several of different size
GRIDS = [[[1, 2, 2]] * 12, [[2, 10, 14]], [[3, 8, 8], [1, 2, 2], [2, 12, 6], [1, 2, 2]]]


def tower(family=QWEN2_5):
    visual = model_and_processor(family=family)[0].model.visual
    if family == QWEN2_5:
        visual.config.window_size, visual.window_size = 56, 56
    return visual


def features(visual, grids, implementation, **known):
    visual.config._attn_implementation = implementation
    stock = implementation == "sdpa"
    assert isinstance(visual.patch_embed.proj, PatchProjection)  # as the model was prepared
    visual.patch_embed.proj.__class__ = torch.nn.Conv3d if stock else PatchProjection
    torch.manual_seed(0)
    pixels = torch.randn(int(grids.prod(dim=1).sum()), 3 * 2 * visual.config.patch_size**2)
    visual.zero_grad()
    made = visual(pixels, grids, **known)
    found = torch.cat([made.pooler_output, *getattr(made, "deepstack_features", ())], dim=1)
    (found * torch.randn(found.shape)).sum().backward()
    visual.patch_embed.proj.__class__ = PatchProjection
    return found.detach(), {name: value.grad.clone() for name, value in visual.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("grids", GRIDS, ids=["alike", "cut windows", "mixed"])
def test_features_and_gradients_are_those_of_a_call_for_each_chunk(monkeypatch, grids, family):
    visual, grids = tower(family), torch.tensor(grids)
    expected = features(visual, grids, "sdpa")
    calls = []
    plain = vision_attention.scaled_dot_product_attention
    monkeypatch.setattr(
        vision_attention,
        "scaled_dot_product_attention",
        lambda *args, **kwargs: calls.append(1) or plain(*args, **kwargs),
    )
    found = features(visual, grids, vision_attention.NAME, **grid_arguments(grids, visual))
    assert (found[0] - expected[0]).abs().max() < 1e-5 * max(1.0, float(expected[0].abs().max()))
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name
    assert 0 < len(calls) <= 5 * len(visual.blocks)


@pytest.mark.parametrize("grids", GRIDS, ids=["alike", "cut windows", "mixed"])
def test_what_is_worked_out_for_each_size_is_what_the_tower_would_compute(grids):
    visual, grids = tower(), torch.tensor(grids)
    known, config = grid_arguments(grids, visual), visual.config
    window, ends = get_vision_window_index(grids, config.spatial_merge_size, config.window_size, config.patch_size)
    assert torch.equal(known["window_index"], window)
    assert torch.equal(known["cu_window_seqlens"], ends) and known["cu_window_seqlens"].dtype == ends.dtype
    assert torch.equal(known["position_ids"], get_vision_position_ids(grids, config.spatial_merge_size))


@pytest.mark.parametrize("grids", GRIDS, ids=["alike", "cut windows", "mixed"])
def test_so_are_the_learned_positions_of_qwen3_vl(grids):
    visual, grids = tower("qwen3_vl"), torch.tensor(grids)
    known = grid_arguments(grids, visual)
    indices, weights = get_vision_interpolation_indices_and_weights(
        grids, num_grid_per_side=6, mode="bilinear", align_corners=True, spatial_merge_size=2
    )
    assert torch.equal(known["interp_indices"], indices) and torch.equal(known["interp_weights"], weights)
    assert torch.equal(known["position_ids"], get_vision_position_ids(grids, 2))
    assert grid_arguments(grids, tower("qwen2_vl")).keys() == {"position_ids"}


def test_a_chunk_sees_itself_alone():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 9, 8)
    ends = torch.tensor([0, 2, 2, 6, 9], dtype=torch.int32)
    found, _ = vision_attention.chunk_attention(None, query, key, value, None, cu_seq_lens_q=ends, scaling=0.3)
    for start, end in ((0, 2), (2, 6), (6, 9)):
        part = [states[:, :, start:end] for states in (query, key, value)]
        expected = functional.scaled_dot_product_attention(*part, scale=0.3)
        assert (found[:, start:end] - expected.transpose(1, 2)).abs().max() < 1e-6
