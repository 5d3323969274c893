import pytest
import torch
from transformers import AutoModelForImageTextToText

from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.model.pads import forbid_vision_tokens
from rlvtg.recipe import FAMILIES
from rlvtg.rollout.hf import rollout
from tests.tiny_qwen import QWEN2_5, SHOWN, model_and_processor, row, video_settings, write_video


def a_model_that_wants_pads(tmp_path, kind=QWEN2_5):
    """Its output layer gives vision tokens by far the largest logits."""
    model, processor = model_and_processor(family=kind)
    ids = list(family(model.config).vision_token_ids)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.lm_head.weight[ids] *= 300
    encode = Encoder(processor, family(model.config), video_settings(1.0, **SHOWN[kind]))
    return model, encode(row(write_video(tmp_path / "a.mp4"))), ids


def sample(model, inputs, count):
    from transformers import GenerationConfig

    config = GenerationConfig(do_sample=True, max_new_tokens=20, pad_token_id=0, eos_token_id=2)
    torch.manual_seed(0)
    return {token for ids in rollout(model, [inputs], config, num_generations=count) for token in ids}


@pytest.mark.parametrize("kind", FAMILIES)
def test_vision_tokens_are_never_sampled_even_by_a_model_that_wants_nothing_else(tmp_path, kind):
    model, inputs, ids = a_model_that_wants_pads(tmp_path, kind)
    assert not sample(model, inputs, 32) & set(ids)


def test_without_the_bias_the_same_model_samples_them(tmp_path):
    model, inputs, ids = a_model_that_wants_pads(tmp_path)
    model.lm_head.bias.zero_()
    assert sample(model, inputs, 32) & set(ids)


def test_the_policy_gives_them_probability_zero_and_renormalises(tmp_path):
    model, inputs, ids = a_model_that_wants_pads(tmp_path)
    with torch.no_grad():
        logits = model(inputs.input_ids[None], position_ids=inputs.position_ids[:, None],
                       pixel_values_videos=inputs.video.pixel_values, video_grid_thw=inputs.video.grids,
                       video_rows=[[0]]).logits[0, -1]  # fmt: skip
    probabilities = logits.softmax(-1)
    assert probabilities[ids].tolist() == [0.0] * len(ids)
    assert abs(float(probabilities.sum()) - 1) < 1e-5


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_bias_is_not_saved_and_does_not_change_a_model_that_is_loaded_again(tmp_path, kind):
    model, _ = model_and_processor(family=kind)
    forbid_vision_tokens(model)  # a second time
    model.save_pretrained(tmp_path / "m")
    loaded, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert loaded.lm_head.bias is None
    assert not report["unexpected_keys"] and not report["missing_keys"]
