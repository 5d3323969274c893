"""The shared prompt is exact: values and every gradient equal the plain path's, and planted faults are seen."""

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder, batch
from rlvtg.training.prefix import packed, unpacked
from tests.tiny_qwen import model_and_processor, row, video_settings, write_video

G, C = 4, 7


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / "a.mp4", seconds=8), write_video(folder / "b.mp4", seconds=4, seed=1)]


@pytest.fixture
def tiny():
    model, processor = model_and_processor()
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    return model, processor


def a_batch(tiny, videos, **settings):
    """Two groups with prompts of different length and ragged completions."""
    model, processor = tiny
    encode = Encoder(processor, family(model.config), video_settings(**settings))
    prompts = [encode(row(videos[0])), encode(row(videos[1], "b"))]
    torch.manual_seed(0)
    completions = torch.randint(20, 250, (2 * G, C))
    lengths = torch.tensor([1, 3, 7, 5, 2, 7, 4, 6])
    mask = (torch.arange(C) < lengths[:, None]).long()
    return [prompt for prompt in prompts for _ in range(G)], completions.masked_fill(mask == 0, 0), mask


def plain(model, rows, completions, mask):
    call = batch(rows, completions, mask, pad_token_id=0)
    labels = call["input_ids"].clone()
    labels[:, :-C] = -100
    labels[:, -C:] = completions.masked_fill(mask == 0, -100)
    made = model(**call, labels=labels, fused_lm_head=True)
    return made.log_probs[:, -C:], made.entropy[:, -C:]


def shared(model, rows, completions, mask, spoil=lambda call: call):
    made = model(**spoil(packed(rows, completions, mask, pad_token_id=0)), fused_lm_head=True)
    return unpacked(made.log_probs, completions), unpacked(made.entropy, completions)


def gradients(model, log_probs):
    torch.manual_seed(1)
    weights = torch.randn(log_probs.shape)
    model.zero_grad()
    (log_probs * weights).sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("settings", [{"fps": 2.0}, {"fps": 1.6}, {"fps": 1.0, "time": "text"}])
@pytest.mark.parametrize("checkpointing", [None, False, True], ids=["no checkpointing", "checkpointing", "reentrant"])
def test_log_probabilities_entropies_and_gradients_equal_the_plain_path(tiny, videos, settings, checkpointing):
    model, _ = tiny
    if checkpointing is not None:
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        model.enable_input_require_grads()
    rows, completions, mask = a_batch(tiny, videos, **settings)
    ours, our_entropy = shared(model, rows, completions, mask)
    theirs, their_entropy = plain(model, rows, completions, mask)
    assert (ours - theirs).abs().max() < 1e-5
    assert (our_entropy - their_entropy).abs().max() < 1e-4
    assert theirs[mask == 0].abs().max() == 0 and ours[mask == 0].abs().max() == 0
    expected, found = gradients(model, theirs), gradients(model, ours)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7, name


def spoilt_mask(call):
    """Siblings see each other."""
    length = call["attention_mask"].shape[-1]
    return call | {"attention_mask": call["attention_mask"] | torch.ones(length, length, dtype=torch.bool).tril()}


def spoilt_positions(call):
    """The second completion goes on where the first one ends."""
    positions = call["position_ids"].clone()
    positions[:, :, -(G - 1) * C :] += C
    return call | {"position_ids": positions}


def flat_positions(call):
    """One position per token, as for text."""
    return call | {"position_ids": torch.arange(call["input_ids"].shape[1]).expand_as(call["position_ids"])}


def other_pixels(call):
    """The videos of the groups are swapped for another one."""
    return call | {"pixel_values_videos": call["pixel_values_videos"].flip(0)}


@pytest.mark.parametrize("spoil", [spoilt_mask, spoilt_positions, flat_positions, other_pixels])
def test_a_planted_fault_shows_in_the_log_probabilities(tiny, videos, spoil):
    model, _ = tiny
    rows, completions, mask = a_batch(tiny, videos, fps=2.0)
    with torch.no_grad():
        right, _ = shared(model, rows, completions, mask)
        wrong, _ = shared(model, rows, completions, mask, spoil)
    assert (right - wrong).abs().max() > 1e-3


def test_the_prompt_is_run_once_for_its_group(tiny, videos):
    model, _ = tiny
    rows, completions, mask = a_batch(tiny, videos, fps=2.0)
    shapes = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    shared(model, rows, completions, mask)
    hook.remove()
    assert shapes == [(2, max(len(row.input_ids) for row in rows) - 1 + G * C)]


def test_a_torn_group_is_refused(tiny, videos):
    rows, completions, mask = a_batch(tiny, videos, fps=2.0)
    with pytest.raises(ValueError, match="groups are whole"):
        packed([*rows[:3], *rows[4:], rows[0]], completions, mask, pad_token_id=0)
