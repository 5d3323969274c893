"""The demo's model: a Qwen2.5-VL of some 0.4 M parameters with random weights, its own tokenizer and chat template.

It is saved to a folder and loaded with `from_pretrained`, as anybody's model is. Sizes and initialisation were chosen
so that it learns the demo's task on one CPU core; the architecture, the processor and the file formats are
Qwen2.5-VL's. A Qwen2-VL or Qwen3-VL is made in the same way, to try a recipe of theirs with.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.video_processing_utils import BaseVideoProcessor

from rlvtg.disk import whole_folder

# The words of the demo's queries.
WORDS = ("blue", "yellow")

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# Qwen's turn markers. A vision item is its pad alone: with one item for every two frames, start and end markers would
# make the prompts of this small model half as long again.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|video_pad|>"
    "{% elif part['type'] == 'image' %}<|image_pad|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Qwen3-VL's processor writes the markers itself, around every temporal patch, and so must the template.
WITH_MARKERS = CHAT_TEMPLATE.replace("<|video_pad|>", "<|vision_start|><|video_pad|><|vision_end|>")


@dataclass(frozen=True)
class Maker:
    """What a family's tiny model and processor are made of."""

    config: type[PreTrainedConfig]
    processor: type[ProcessorMixin]
    video_processor: type[BaseVideoProcessor]
    patch_size: int
    rope: dict[str, Any]
    vision: dict[str, Any]
    width_of_output: str = "out_hidden_size"  # of the vision tower, in the family's words
    text: dict[str, Any] = field(default_factory=dict)
    chat_template: str = CHAT_TEMPLATE


QWEN2_5 = "qwen2_5_vl"
MAKERS = {
    "qwen2_vl": Maker(
        config=Qwen2VLConfig,
        processor=Qwen2VLProcessor,
        video_processor=Qwen2VLVideoProcessor,
        patch_size=14,
        rope={"mrope_section": [4, 6, 6]},
        vision={"depth": 1, "embed_dim": 48, "mlp_ratio": 2},
        width_of_output="hidden_size",
    ),
    QWEN2_5: Maker(
        config=Qwen2_5_VLConfig,
        processor=Qwen2_5_VLProcessor,
        video_processor=Qwen2VLVideoProcessor,
        patch_size=14,
        rope={"mrope_section": [4, 6, 6]},
        vision={
            "depth": 1,
            "hidden_size": 48,
            "intermediate_size": 96,
            "window_size": 112,
            "fullatt_block_indexes": [0],
            "tokens_per_second": 2,
        },
    ),
    "qwen3_vl": Maker(
        config=Qwen3VLConfig,
        processor=Qwen3VLProcessor,
        video_processor=Qwen3VLVideoProcessor,
        patch_size=16,
        rope={"mrope_section": [6, 5, 5], "mrope_interleaved": True},
        vision={
            "depth": 2,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
        },
        text={"head_dim": 32},
        chat_template=WITH_MARKERS,
    ),
}


def make(folder: str | os.PathLike[str], seed: int = 0, family: str | None = None) -> None:
    """Save a freshly initialised model with its processor to `folder`, unless a model is there already.

    Args:
        folder: where.
        seed: of the weights.
        family: a key of MAKERS; None is a Qwen2.5-VL.
    """
    folder = Path(folder)
    if (folder / "config.json").exists():
        return
    processor = tiny_processor(family or QWEN2_5)
    model = tiny_model(processor.tokenizer, seed=seed, family=family or QWEN2_5)
    with whole_folder(folder) as made:
        processor.save_pretrained(made)
        model.save_pretrained(made)


def tiny_processor(family: str = QWEN2_5) -> ProcessorMixin:
    """A processor of the family around a byte-level BPE that knows the demo's words; other text falls back to bytes."""
    maker = MAKERS[family]
    unit = maker.patch_size * 2
    size = {"shortest_edge": unit**2, "longest_edge": unit**2 * 768}
    sizes = {"size": dict(size), "patch_size": maker.patch_size}
    return maker.processor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=_tokenizer(),
        video_processor=maker.video_processor(**sizes, cap_pixels_per_frame=False),
        chat_template=maker.chat_template,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    # digits stand alone, so that a number is read and written figure by figure
    words = Regex(r"\d|</?\w+>| ?\p{L}+|\s|[^\s\p{L}\d]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [
        f"user\n assistant\n a {color} circle, a {color} circle nothing <think></think><answer>07 to 12</answer>"
        for color in WORDS
    ] * 20
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        padding_side="left",
    )


def tiny_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int = 0,
    family: str = QWEN2_5,
    hidden_size: int = 64,
    layers: int = 4,
    initializer_range: float = 0.06,
) -> PreTrainedModel:
    """A model of the family with random weights (float32) whose vocabulary is `tokenizer`'s; its heads are of 32."""
    maker = MAKERS[family]
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    heads = hidden_size // 32
    config = maker.config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden_size,
            "intermediate_size": 3 * hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 4096,
            "initializer_range": initializer_range,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, **maker.rope},
            "tie_word_embeddings": True,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            **maker.text,
        },
        vision_config={
            "num_heads": 4,
            "patch_size": maker.patch_size,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "initializer_range": initializer_range,
            maker.width_of_output: hidden_size,
            **maker.vision,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    # The seed is this model's own: the caller's random state is left where it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config)
    model.generation_config = GenerationConfig(
        bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"]
    )
    return model
