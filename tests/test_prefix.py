"""The shared prompt is exact: values and every gradient equal the plain path's, and planted faults are seen."""

import copy
from itertools import pairwise

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2_5_VLForConditionalGeneration
from trl.trainer.utils import add_fused_lm_head

from rlvtg.model import prefix_attention
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder, batch
from rlvtg.model.load import prepare
from rlvtg.model.prefix_attention import plan
from rlvtg.training.prefix import at_least, packed, slices, unpacked
from tests.tiny_qwen import OTHERS, SHOWN, model_and_processor, row, video_settings, write_video

C = 7
LENGTHS = (1, 3, 7, 5, 2, 7, 4, 6, 1, 2)  # of completions; repeated as needed


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / "a.mp4", seconds=8), write_video(folder / "b.mp4", seconds=4, seed=1)]


def with_head(model):
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    return model


@pytest.fixture
def tiny():
    model, processor = model_and_processor()
    return with_head(model), processor


def with_real_heads(processor):
    """Heads of 128 with the M-RoPE sections of the released models, and fewer heads for keys than for queries."""
    config = copy.deepcopy(model_and_processor()[0].config)
    text = config.text_config
    text.hidden_size, text.num_attention_heads, text.num_key_value_heads, text.num_hidden_layers = 256, 2, 1, 2
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [16, 24, 24]}
    config.vision_config.out_hidden_size = 256
    config.text_config._attn_implementation = config.vision_config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    prepare(model)
    return with_head(model)


def two_groups(videos):
    """Prompts of different length about two videos, and groups of different size."""
    return [(row(videos[0]), 4), (row(videos[1], "b"), 3)]


def two_levels(videos):
    """Three queries of one video, one of them as long as another, and another video."""
    return [
        (row(videos[0]), 3),
        (row(videos[0], "when is the picture blue?"), 2),
        (row(videos[1], "b"), 2),
        (row(videos[0], "yellow"), 3),
    ]


def query_first(videos):
    """Two queries of one video that stand before it, so that they share no video tokens."""
    found = []
    for query, size in (("red", 2), ("a blue circle", 3)):
        prompt = [{"role": "user", "content": [{"type": "text", "text": query}, {"type": "video"}]}]
        found.append((row(videos[0], query, prompt=prompt), size))
    return found


def a_batch(tiny, groups, lengths=LENGTHS, **settings):
    """Rows with ragged completions: prompts (B), completions (B, C) and their mask."""
    model, processor = tiny
    encode = Encoder(processor, family(model.config), video_settings(**({"fps": 2.0} | settings)))
    rows = [prompt for asked, size in groups for prompt in [encode(asked)] * size]
    torch.manual_seed(0)
    completions = torch.randint(20, 250, (len(rows), C))
    mask = (torch.arange(C) < torch.tensor([lengths[k % len(lengths)] for k in range(len(rows))])[:, None]).long()
    return rows, completions.masked_fill(mask == 0, 0), mask


def plain(model, rows, completions, mask):
    """Stock attention over full rows, each with its own prompt and its own pixels."""
    call = batch(rows, completions, mask, pad_token_id=0)
    del call["video_rows"]
    call["pixel_values_videos"] = torch.cat([one.video.pixel_values for one in rows])
    call["video_grid_thw"] = torch.cat([one.video.grids for one in rows])
    labels = torch.cat([torch.full_like(call["input_ids"][:, :-C], -100), completions.masked_fill(mask == 0, -100)], 1)
    text = model.config.get_text_config()
    text._attn_implementation = "sdpa"
    try:
        made = model(**call, labels=labels, fused_lm_head=True)
        return made.log_probs[:, -C:], made.entropy[:, -C:], gradients(model, made.log_probs[:, -C:])
    finally:
        text._attn_implementation = prefix_attention.NAME


def shared(model, rows, completions, mask, spoil=lambda call: call):
    call, places = packed(rows, completions, mask, video_token_id=family(model.config).video_token_id)
    made = model(**spoil(call), fused_lm_head=True)
    log_probs = unpacked(made.log_probs, places)
    return log_probs, unpacked(made.entropy, places), gradients(model, log_probs)


def gradients(model, log_probs):
    torch.manual_seed(1)
    weights = torch.randn(log_probs.shape)
    model.zero_grad()
    if log_probs.requires_grad:
        (log_probs * weights).sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def faults(found, expected):
    """What of log-probabilities, entropies and gradients differs by more than rounding."""
    wrong = [
        name
        for name, ours, theirs in zip(("log-probabilities", "entropies"), found, expected, strict=False)
        if not (ours - theirs).abs().max() < 1e-5
    ]
    assert found[2].keys() == expected[2].keys()
    return wrong + [
        name
        for name, gradient in expected[2].items()
        if not (found[2][name] - gradient).norm() <= 1e-4 * gradient.norm()
    ]


def checkpointed(model, reentrant):
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()


@pytest.mark.parametrize(
    ("groups", "settings"),
    [
        (two_groups, {}),
        (two_groups, {"fps": 1.6}),
        (two_groups, {"fps": 1.0, "time": "text"}),
        (two_levels, {}),
        (two_levels, {"fps": 1.0, "time": "text"}),
        (query_first, {}),
    ],
    ids=["two groups", "fraction of a second", "text timestamps", "two levels", "levels, timestamps", "query first"],
)
def test_log_probabilities_entropies_and_gradients_equal_the_plain_path(tiny, videos, groups, settings):
    work = a_batch(tiny, groups(videos), **settings)
    expected = plain(tiny[0], *work)
    assert expected[2].keys() == {name for name, _ in tiny[0].named_parameters()}
    assert faults(shared(tiny[0], *work), expected) == []


@pytest.fixture(params=OTHERS)
def other(request):
    """A model and processor of another family, and how it is told the time."""
    model, processor = model_and_processor(family=request.param)
    return (with_head(model), processor), SHOWN[request.param]


@pytest.mark.parametrize(
    ("groups", "settings"),
    [(two_groups, {"fps": 1.6}), (two_levels, {}), (two_levels, {"time": "overlay"}), (query_first, {})],
    ids=["two groups", "two levels", "overlay", "query first"],
)
def test_so_they_do_in_other_families(other, videos, groups, settings):
    tiny, shown = other
    work = a_batch(tiny, groups(videos), **(shown | settings))
    expected = plain(tiny[0], *work)
    assert expected[2].keys() == {name for name, _ in tiny[0].named_parameters()}
    assert faults(shared(tiny[0], *work), expected) == []


def test_checkpointing_and_lora_are_exact_in_other_families(other, videos):
    tiny, shown = other
    torch.manual_seed(0)
    targets = ["q_proj", "v_proj", "up_proj", "qkv", "linear_fc1"]
    model = get_peft_model(tiny[0], LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    work = a_batch(tiny, two_levels(videos), **shown)
    expected = plain(model, *work)
    checkpointed(model, reentrant=False)
    assert faults(shared(model, *work), expected) == []


def test_deepstack_features_of_other_places_show(videos):
    """What Qwen3-VL's tower gives to the first layers of the language model matters, and where."""
    tiny, settings = model_and_processor(family="qwen3_vl"), SHOWN["qwen3_vl"]
    work = a_batch((with_head(tiny[0]), tiny[1]), two_levels(videos), **settings)
    expected = plain(tiny[0], *work)

    def spoil(module, args, kwargs):
        deep = [value.flip(0) for value in kwargs["deepstack_visual_embeds"]]
        return args, kwargs | {"deepstack_visual_embeds": deep}

    hook = tiny[0].model.language_model.register_forward_pre_hook(spoil, with_kwargs=True)
    found = shared(tiny[0], *work)
    hook.remove()
    assert (found[0] - expected[0]).abs().max() > 1e-3
    assert faults(shared(tiny[0], *work), expected) == []


@pytest.mark.parametrize("reentrant", [False, True], ids=["checkpointing", "reentrant"])
@pytest.mark.parametrize("groups", [two_groups, two_levels])
def test_it_is_exact_under_gradient_checkpointing(tiny, videos, groups, reentrant):
    model, _ = tiny
    work = a_batch(tiny, groups(videos))
    expected = plain(model, *work)
    checkpointed(model, reentrant)
    layers = []
    hook = model.model.language_model.layers[0].self_attn.register_forward_pre_hook(lambda *_: layers.append(1))
    assert faults(shared(model, *work), expected) == []
    hook.remove()
    assert len(layers) == 2  # once forward, once more for the gradient


@pytest.mark.parametrize("reentrant", [None, False, True], ids=["no checkpointing", "checkpointing", "reentrant"])
def test_it_is_exact_with_lora_and_with_the_adapter_off(tiny, videos, reentrant):
    torch.manual_seed(0)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "qkv"]
    model = get_peft_model(tiny[0], LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    work = a_batch(tiny, two_levels(videos))
    if reentrant is not None:
        checkpointed(model, reentrant)
    expected = plain(model, *work)
    assert any(".visual." in name for name in expected[2])
    assert faults(shared(model, *work), expected) == []
    with torch.no_grad(), model.disable_adapter():
        off = shared(model, *work)
        assert faults(off, plain(model, *work)) == []
    assert (off[0] - expected[0]).abs().max() > 1e-3


def test_it_is_exact_with_a_frozen_tower(tiny, videos):
    tiny[0].model.visual.requires_grad_(False)
    work = a_batch(tiny, two_levels(videos))
    expected = plain(tiny[0], *work)
    assert not any("visual" in name for name in expected[2])
    assert faults(shared(tiny[0], *work), expected) == []


def test_it_is_exact_with_the_heads_of_the_released_models(tiny, videos):
    model = with_real_heads(tiny[1])
    work = a_batch((model, tiny[1]), two_levels(videos))
    assert faults(shared(model, *work), plain(model, *work)) == []


def test_rows_may_come_in_any_order_and_completions_may_be_empty(tiny, videos):
    rows, completions, mask = a_batch(tiny, two_levels(videos), lengths=(3, 0, 7, 0, 2))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    work = [rows[index] for index in order.tolist()], completions[order], mask[order]
    assert faults(shared(tiny[0], *work), plain(tiny[0], *work)) == []
    nothing = shared(tiny[0], rows, completions, torch.zeros_like(mask))
    assert all(not gradient.any() for gradient in nothing[2].values()) and nothing[2]


# --- planted faults: every one of them must be seen


def siblings_leak(call):
    """A completion sees the completions before it."""
    tree = call["prefix_plan"]
    lengths = [end - start for start, end in pairwise(tree.offsets)]
    return call | {"prefix_plan": plan(lengths, [None, *range(len(lengths) - 1)], scored=tree.scored)}


def positions_keep_counting(call):
    """The second completion goes on where the first one ends."""
    tree, positions = call["prefix_plan"], call["position_ids"].clone()
    for segment in range(2, len(tree.paths)):
        start, end = tree.offsets[segment : segment + 2]
        positions[:, :, start:end] += start - tree.offsets[1]
    return call | {"position_ids": positions}


def flat_positions(call):
    """One position per token of its way down, as for text."""
    tree, positions = call["prefix_plan"], call["position_ids"].clone()
    for segment in range(len(tree.paths)):
        way = tree.seen(segment)
        positions[:, :, way] = torch.arange(len(way)).expand(3, 1, -1)
    return call | {"position_ids": positions}


def other_pixels(call):
    """The patches of the videos are in another order."""
    return call | {"pixel_values_videos": call["pixel_values_videos"].flip(0)}


@pytest.mark.parametrize("spoil", [siblings_leak, positions_keep_counting, flat_positions, other_pixels])
def test_a_planted_fault_shows_in_the_log_probabilities(tiny, videos, spoil):
    work = a_batch(tiny, [(row(videos[0]), 4)])
    expected = plain(tiny[0], *work)
    assert faults(shared(tiny[0], *work), expected) == []
    found = shared(tiny[0], *work, spoil)
    assert faults(found, expected)[0] == "log-probabilities"
    assert (found[0] - expected[0]).abs().max() > 1e-3


def test_a_prefix_without_a_gradient_shows_in_the_gradients_alone(tiny, videos, monkeypatch):
    work = a_batch(tiny, two_levels(videos))
    expected = plain(tiny[0], *work)

    def detached(part, query, key, value, scaling):
        own = torch.zeros(key.shape[2], dtype=torch.bool)
        own[part.queries] = True
        states = [torch.where(own[:, None], kept, kept.detach()) for kept in (key, value)]
        return plain_attend(part, query, *states, scaling)

    plain_attend = prefix_attention._attend
    monkeypatch.setattr(prefix_attention, "_attend", detached)
    wrong = faults(shared(tiny[0], *work), expected)
    assert "log-probabilities" not in wrong and "entropies" not in wrong
    assert {"model.visual.merger.mlp.0.weight", "model.language_model.layers.0.self_attn.k_proj.weight"} <= set(wrong)


# --- how much is run


@pytest.mark.parametrize(
    ("groups", "tokens"),
    [
        # prompt - 1 once, and the completions; nothing is padding
        (two_groups, lambda lengths, trunk: lengths[0] - 1 + lengths[1] - 1),
        # the two of the first video that stand behind the same beginning, and the other video
        (two_levels, lambda lengths, trunk: trunk + lengths[2] - 1 + sum(lengths[k] - 1 - trunk for k in (0, 1, 3))),
        (query_first, lambda lengths, trunk: lengths[0] - 1 + lengths[1] - 1),
    ],
)
def test_what_is_shared_is_run_once_without_padding(tiny, videos, groups, tokens):
    model, _ = tiny
    asked = groups(videos)
    rows, completions, mask = a_batch(tiny, asked)
    video = family(model.config).video_token_id
    prompts = list({id(one): one for one in rows}.values())
    first = prompts[0].input_ids
    same = min(
        int((first[: len(other)] == other[: len(first)]).long().cumprod(0).sum())
        for other in (one.input_ids for one in prompts[1:] if one.video is prompts[0].video)
    ) if groups is two_levels else 0  # fmt: skip
    shapes, patches = [], []
    hooks = [
        model.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
        ),
        model.model.visual.register_forward_pre_hook(lambda _, args: patches.append(len(args[0]))),
    ]
    masks = []
    hooks.append(
        model.model.language_model.layers[0].self_attn.register_forward_pre_hook(
            lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
        )
    )
    with torch.no_grad():
        shared(model, rows, completions, mask)
    for hook in hooks:
        hook.remove()
    assert shapes == [(1, tokens([len(one.input_ids) for one in prompts], same) + int(mask.sum()))]
    assert patches == [sum(len(one.pixel_values) for one in {id(one.video): one.video for one in rows}.values())]
    assert masks == [None]  # nothing of N * N entries is made
    assert groups is not two_levels or int((first[:same] == video).sum()) == int((first == video).sum())


@pytest.mark.parametrize("budget", [1, 120, 10**6])
def test_slices_hold_every_row_once_within_the_budget(tiny, videos, budget):
    rows, completions, mask = a_batch(tiny, two_levels(videos))
    video = family(tiny[0].config).video_token_id
    dealt = slices(rows, mask, budget, video_token_id=video)
    assert sorted(index for part in dealt for index in part) == list(range(len(rows)))
    for part in dealt:
        call, _ = packed([rows[k] for k in part], completions[part], mask[part], video_token_id=video)
        assert call["input_ids"].shape[1] <= budget or len(part) == 1
    assert {1: len(rows), 10**6: 1}.get(budget, len(dealt)) == len(dealt)


def test_slices_are_cut_until_there_are_enough():
    assert at_least([[0, 1, 2, 3], [4]], 1) == [[0, 1, 2, 3], [4]]
    assert at_least([[0, 1, 2, 3], [4]], 4) == [[0], [1], [2, 3], [4]]


def test_a_completion_with_gaps_is_refused(tiny, videos):
    rows, completions, mask = a_batch(tiny, two_groups(videos))
    mask[2, 1] = 0
    with pytest.raises(ValueError, match="gaps"):
        packed(rows, completions, mask, video_token_id=0)
