"""The demo's model is saved and loaded as anybody's model is."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from rlvtg.data.tiny import COLORS
from rlvtg.model.tiny import SPECIAL_TOKENS, make, tiny_model, tiny_processor

PROCESSOR = tiny_processor()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make(folder)
    return folder


def test_a_saved_model_is_loaded_with_from_pretrained(saved: Path) -> None:
    loaded, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        saved, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    fresh = dict(tiny_model(PROCESSOR.tokenizer).named_parameters())
    assert {name: torch.equal(value, fresh[name]) for name, value in loaded.named_parameters()} == dict.fromkeys(
        fresh, True
    )
    assert 300_000 < sum(value.numel() for value in loaded.parameters()) < 500_000
    assert loaded.generation_config.eos_token_id == PROCESSOR.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_saved_processor_is_loaded_and_renders_and_counts_as_before(saved: Path) -> None:
    loaded = AutoProcessor.from_pretrained(saved)
    assert type(loaded) is type(PROCESSOR)
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "a red circle"}]}]
    for processor in (loaded, PROCESSOR):
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text == "<|im_start|>user\n<|video_pad|>a red circle<|im_end|>\n<|im_start|>assistant\n"
    assert loaded.tokenizer.get_vocab() == PROCESSOR.tokenizer.get_vocab()
    frames = torch.randint(0, 255, (4, 3, 28, 56), dtype=torch.uint8)
    one, other = (
        processor.video_processor([frames], do_resize=False, do_sample_frames=False, return_tensors="pt")
        for processor in (loaded, PROCESSOR)
    )
    assert one["video_grid_thw"].tolist() == [[2, 2, 4]]
    assert torch.equal(one["pixel_values_videos"], other["pixel_values_videos"])


def test_a_model_that_is_there_is_left_as_it_is(saved: Path) -> None:
    before = (saved / "model.safetensors").read_bytes()
    make(saved, seed=1)
    assert (saved / "model.safetensors").read_bytes() == before


def test_the_seed_decides_the_weights_and_the_callers_random_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    one, again, other = (tiny_model(PROCESSOR.tokenizer, seed=seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one, again) and not torch.equal(one, other)


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    # a marker of the chat format is a token of its own and no text
    ids = PROCESSOR.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert PROCESSOR.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize(
    "text", ["naïve 模型 🙂 x̣̂", "\x00\x1f  \t\r\n  ", "12.50 to 07", "</think><answer>", *SPECIAL_TOKENS]
)
def test_awkward_texts_come_back_too(text: str) -> None:
    assert PROCESSOR.tokenizer.decode(PROCESSOR.tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_demos_words_are_tokens_and_figures_stand_alone() -> None:
    def tokens(text: str) -> list[str]:
        return [PROCESSOR.decode([token]) for token in PROCESSOR.tokenizer(text, add_special_tokens=False)["input_ids"]]

    for color in COLORS:
        assert tokens(f"a {color} circle") == ["a", f" {color}", " circle"]
    assert tokens("<think>") == ["<think>"]
    assert tokens("<answer>07 to 12</answer>") == ["<answer>", "0", "7", " to", " ", "1", "2", "</answer>"]
