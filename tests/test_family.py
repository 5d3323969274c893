"""Which families there are, and that what is known of one comes from the model's configuration."""

import pytest
from transformers import AutoConfig, AutoProcessor, LlamaConfig

from rlvtg.data_check import pixel_unit
from rlvtg.model.family import STAMPING, family
from rlvtg.model.load import load_config, load_model
from rlvtg.model.tiny import MAKERS, make
from rlvtg.recipe import CLOCKLESS, FAMILIES, RecipeError
from tests.tiny_qwen import SHOWN


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_folder_of_any_name_is_loaded_as_what_its_configuration_says(tmp_path, kind):
    folder = tmp_path / "qwen2_5_vl-3b"  # not what most of them are
    make(folder, family=kind)
    model = load_model(folder)
    assert model.config.model_type == kind == family(load_config(folder)).name
    assert type(AutoProcessor.from_pretrained(folder)) is MAKERS[kind].processor


def test_the_pixel_unit_and_the_clock_are_those_of_the_configuration():
    facts = {kind: family(AutoConfig.for_model(kind)) for kind in FAMILIES}
    assert {kind: each.pixel_unit for kind, each in facts.items()} == {
        "qwen2_vl": 28, "qwen2_5_vl": 28, "qwen3_vl": 32,
    }  # fmt: skip
    assert {kind for kind, each in facts.items() if each.tokens_per_second is None} == set(CLOCKLESS)
    assert {kind for kind, each in facts.items() if each.has_stamps("overlay")} == set(STAMPING)
    assert MAKERS.keys() == SHOWN.keys() == set(FAMILIES)


def test_what_is_not_supported_is_one_sentence():
    with pytest.raises(RecipeError, match="type 'llama' is not supported; supported are qwen2_vl, qwen2_5_vl, qwen3"):
        family(LlamaConfig())
    config = AutoConfig.for_model("qwen3_vl")
    with pytest.raises(RecipeError, match="type 'qwen3_vl', but the recipe is for qwen2_vl; want such a model, or fam"):
        family(config, "qwen2_vl")
    config.vision_config.temporal_patch_size = 3
    with pytest.raises(RecipeError, match="model: 3 frames in a temporal patch; supported are 2"):
        family(config)


def test_videos_are_decoded_ahead_in_the_size_of_the_model_that_was_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert pixel_unit("own/model") == 28
    revision = "0" * 40
    make(tmp_path / "models--own--model" / "snapshots" / revision, family="qwen3_vl")
    (tmp_path / "models--own--model" / "refs").mkdir()
    (tmp_path / "models--own--model" / "refs" / "main").write_text(revision)
    assert pixel_unit("own/model") == 32
    assert pixel_unit(str(tmp_path / "models--own--model" / "snapshots" / revision)) == 32
