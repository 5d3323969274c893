"""What of a model costs something, from its config.json or from what was published; and its parameters by name."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlvtg.recipe import FAMILIES, RecipeError


@dataclass(frozen=True)
class Shape:
    """The sizes of a model; those of the vision tower begin with `vision`."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_width: int
    intermediate: int
    vocabulary: int
    vision_layers: int
    vision_hidden: int
    vision_intermediate: int
    vision_full: int  # layers of the tower that attend over whole frames; the others within windows
    window: int = 64  # patches in a window
    patch: int = 1176  # numbers in a patch
    merge: int = 4  # patches in a token
    vision_heads: int = 16
    tied: bool = False  # the head is the embedding
    family: str = "qwen2_5_vl"  # one of FAMILIES
    pixel_unit: int = 28  # frame sides are multiples of this many pixels
    deepstack: int = 0  # mergers besides the last one, for the first layers of the language model
    vision_positions: int = 0  # learned positions of the tower

    @property
    def gated_vision(self) -> bool:
        """Whether the tower's feed-forward layers have a gate (three matrices) or not (two)."""
        return self.family == "qwen2_5_vl"


PUBLISHED = {
    "Qwen/Qwen2-VL-2B-Instruct": Shape(
        28, 1536, 12, 2, 128, 8960, 151936, 32, 1280, 5120, 32, tied=True, family="qwen2_vl"
    ),
    "Qwen/Qwen2-VL-7B-Instruct": Shape(28, 3584, 28, 4, 128, 18944, 152064, 32, 1280, 5120, 32, family="qwen2_vl"),
    "Qwen/Qwen2.5-VL-3B-Instruct": Shape(36, 2048, 16, 2, 128, 11008, 151936, 32, 1280, 3420, 4, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": Shape(28, 3584, 28, 4, 128, 18944, 152064, 32, 1280, 3420, 4),
    "Qwen/Qwen3-VL-4B-Instruct": Shape(
        36, 2560, 32, 8, 128, 9728, 151936, 24, 1024, 4096, 24, patch=1536, tied=True, family="qwen3_vl",
        pixel_unit=32, deepstack=3, vision_positions=2304,
    ),
    "Qwen/Qwen3-VL-8B-Instruct": Shape(
        36, 4096, 32, 8, 128, 12288, 151936, 27, 1152, 4304, 27, patch=1536, family="qwen3_vl",
        pixel_unit=32, deepstack=3, vision_positions=2304,
    ),
}  # fmt: skip
"""Shapes of models by hub id, so that no hub need be reached. Source: config.json of each model on huggingface.co."""


def shape(model: str) -> Shape:
    """The shape of a model: of the folder `model` with a config.json, or of a hub id in PUBLISHED.

    Raises:
        RecipeError: neither, or a configuration of another kind of model.
    """
    config = Path(model) / "config.json"
    if config.is_file():
        return shape_of(json.loads(config.read_text(encoding="utf-8")))
    if model in PUBLISHED:
        return PUBLISHED[model]
    raise RecipeError(
        f"model: the shape of {model} is not known here; want a folder with its config.json, or one of "
        f"{', '.join(PUBLISHED)}"
    )


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json describes, with the language model's sizes below `text_config` or at the top.

    Raises:
        RecipeError: another kind of model, or a size that is missing.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise RecipeError(f"model: type {family!r} is not supported; supported are {', '.join(FAMILIES)}")
    text = config.get("text_config") or config
    vision = config.get("vision_config", {})
    try:
        # Qwen2-VL calls the width of the tower embed_dim, and the width of what it hands over hidden_size
        width = vision["embed_dim" if family == "qwen2_vl" else "hidden_size"]
        wide = int(width * vision["mlp_ratio"]) if family == "qwen2_vl" else vision["intermediate_size"]
        side, merge = vision["patch_size"], vision["spatial_merge_size"]
        channels = vision.get("in_channels", vision.get("in_chans", 3))
        full = len(vision["fullatt_block_indexes"]) if family == "qwen2_5_vl" else vision["depth"]
        tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        return Shape(
            layers=text["num_hidden_layers"],
            hidden=text["hidden_size"],
            heads=text["num_attention_heads"],
            key_heads=text["num_key_value_heads"],
            head_width=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
            intermediate=text["intermediate_size"],
            vocabulary=text["vocab_size"],
            vision_layers=vision["depth"],
            vision_hidden=width,
            vision_intermediate=wide,
            vision_full=full,
            window=(vision["window_size"] // side) ** 2 if family == "qwen2_5_vl" else 0,
            patch=channels * vision["temporal_patch_size"] * side**2,
            merge=merge**2,
            vision_heads=vision["num_heads"],
            tied=bool(tied),
            family=str(family),
            pixel_unit=side * merge,
            deepstack=len(vision.get("deepstack_visual_indexes", ())),
            vision_positions=vision.get("num_position_embeddings", 0),
        )
    except KeyError as error:
        raise RecipeError(f"model: its config.json does not say {error.args[0]}") from None


@dataclass(frozen=True)
class Layer:
    """One module that has weights: its name as recipes write it (without the leading `model.`), and their numbers."""

    name: str
    weights: int
    biases: int = 0
    linear: tuple[int, int] | None = None  # (inputs, outputs), of what an adapter can be put on

    @property
    def parameters(self) -> int:
        """Weights and biases together."""
        return self.weights + self.biases


def _linear(name: str, inputs: int, outputs: int, bias: bool) -> Layer:
    return Layer(name, inputs * outputs, outputs if bias else 0, (inputs, outputs))


@lru_cache(maxsize=16)
def layers(shape: Shape) -> tuple[Layer, ...]:
    """Every module of the model that has weights, as transformers 5 names them; a tied head is not one."""
    return (*_tower(shape), *_language_model(shape))


def _language_model(shape: Shape) -> Iterator[Layer]:
    h, attended = shape.hidden, shape.heads * shape.head_width
    keys = shape.key_heads * shape.head_width
    bias, normed = shape.family != "qwen3_vl", shape.family == "qwen3_vl"
    yield Layer("language_model.embed_tokens", shape.vocabulary * h)
    for number in range(shape.layers):
        at = f"language_model.layers.{number}"
        yield _linear(f"{at}.self_attn.q_proj", h, attended, bias)
        yield _linear(f"{at}.self_attn.k_proj", h, keys, bias)
        yield _linear(f"{at}.self_attn.v_proj", h, keys, bias)
        yield _linear(f"{at}.self_attn.o_proj", attended, h, False)
        if normed:
            yield Layer(f"{at}.self_attn.q_norm", shape.head_width)
            yield Layer(f"{at}.self_attn.k_norm", shape.head_width)
        yield _linear(f"{at}.mlp.gate_proj", h, shape.intermediate, False)
        yield _linear(f"{at}.mlp.up_proj", h, shape.intermediate, False)
        yield _linear(f"{at}.mlp.down_proj", shape.intermediate, h, False)
        yield Layer(f"{at}.input_layernorm", h)
        yield Layer(f"{at}.post_attention_layernorm", h)
    yield Layer("language_model.norm", h)
    if not shape.tied:
        yield Layer("lm_head", shape.vocabulary * h)


def _tower(shape: Shape) -> Iterator[Layer]:
    v, wide, merged = shape.vision_hidden, shape.vision_intermediate, shape.merge * shape.vision_hidden
    shifted = v if shape.family != "qwen2_5_vl" else 0  # a layer norm has a bias, an RMS norm has none
    yield Layer("visual.patch_embed.proj", shape.patch * v, v if shape.family == "qwen3_vl" else 0)
    if shape.vision_positions:
        yield Layer("visual.pos_embed", shape.vision_positions * v)
    for number in range(shape.vision_layers):
        at = f"visual.blocks.{number}"
        yield Layer(f"{at}.norm1", v, shifted)
        yield Layer(f"{at}.norm2", v, shifted)
        yield _linear(f"{at}.attn.qkv", v, 3 * v, True)
        yield _linear(f"{at}.attn.proj", v, v, True)
        if shape.gated_vision:
            yield _linear(f"{at}.mlp.gate_proj", v, wide, True)
            yield _linear(f"{at}.mlp.up_proj", v, wide, True)
            yield _linear(f"{at}.mlp.down_proj", wide, v, True)
        else:
            first, second = ("linear_fc1", "linear_fc2") if shape.family == "qwen3_vl" else ("fc1", "fc2")
            yield _linear(f"{at}.mlp.{first}", v, wide, True)
            yield _linear(f"{at}.mlp.{second}", wide, v, True)
    if shape.family == "qwen3_vl":
        for at, normed in [("visual.merger", v)] + [
            (f"visual.deepstack_merger_list.{number}", merged) for number in range(shape.deepstack)
        ]:
            yield Layer(f"{at}.norm", normed, normed)
            yield _linear(f"{at}.linear_fc1", merged, merged, True)
            yield _linear(f"{at}.linear_fc2", merged, shape.hidden, True)
    else:
        yield Layer("visual.merger.ln_q", v, shifted)
        yield _linear("visual.merger.mlp.0", merged, merged, True)
        yield _linear("visual.merger.mlp.2", merged, shape.hidden, True)


def parameters(shape: Shape) -> int:
    """How many parameters the model has; a tied head counts once."""
    return sum(layer.parameters for layer in layers(shape))
