"""The demo's model: a Qwen2.5-VL of some 0.4 M parameters with random weights, its own tokenizer and chat template.

It is saved to a folder and loaded with `from_pretrained`, as anybody's model is. Sizes and initialisation were chosen
so that it learns the demo's task on one CPU core; the architecture, the processor and the file formats are
Qwen2.5-VL's.
"""

import os
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

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


def make(folder: str | os.PathLike[str], seed: int = 0) -> None:
    """Save a freshly initialised model with its processor to `folder`, unless a model is there already."""
    folder = Path(folder)
    if (folder / "config.json").exists():
        return
    processor = tiny_processor()
    model = tiny_model(processor.tokenizer, seed=seed)
    with whole_folder(folder) as made:
        processor.save_pretrained(made)
        model.save_pretrained(made)


def tiny_processor() -> Qwen2_5_VLProcessor:
    """A Qwen2.5-VL processor around a byte-level BPE that knows the demo's words; other text falls back to bytes."""
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 768}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=dict(size)),
        tokenizer=_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(size=dict(size), cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
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
    hidden_size: int = 64,
    layers: int = 4,
    initializer_range: float = 0.06,
) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL with random weights (float32) whose vocabulary is `tokenizer`'s; heads of 32, 14-pixel patches."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    heads = hidden_size // 32
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden_size,
            "intermediate_size": 3 * hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 4096,
            "initializer_range": initializer_range,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
            "tie_word_embeddings": True,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 1,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_heads": 4,
            "out_hidden_size": hidden_size,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0],
            "tokens_per_second": 2,
            "initializer_range": initializer_range,
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
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"]
    )
    return model
