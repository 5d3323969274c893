"""What differs between model families: token ids, pixel units and the clock, from the model's own configuration."""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedConfig

from rlvtg.recipe import RecipeError


@dataclass(frozen=True)
class Family:
    """The facts about a vision-language model that prompts, positions and sampling need.

    Attributes:
        video_token_id: the pad that stands for one merged video token.
        vision_token_ids: every vision token (pads, start, end): text that a completion may never contain.
        patch_size: side of a patch, pixels.
        merge_size: patches per side of a merged token.
        temporal_patch_size: frames in one temporal patch (a grid step).
        tokens_per_second: positions that one second is long on the time axis of M-RoPE.
    """

    video_token_id: int
    vision_token_ids: tuple[int, ...]
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    tokens_per_second: float

    @property
    def pixel_unit(self) -> int:
        """Frame sides are multiples of this many pixels."""
        return self.patch_size * self.merge_size


def _qwen2_5_vl(config: PreTrainedConfig) -> Family:
    vision = config.vision_config
    return Family(
        video_token_id=config.video_token_id,
        vision_token_ids=(
            config.image_token_id,
            config.video_token_id,
            config.vision_start_token_id,
            config.vision_end_token_id,
        ),
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        tokens_per_second=vision.tokens_per_second,
    )


FAMILIES: dict[str, Callable[[PreTrainedConfig], Family]] = {"qwen2_5_vl": _qwen2_5_vl}


def family(config: PreTrainedConfig) -> Family:
    """The family of a model configuration.

    Raises:
        RecipeError: a model type that the library does not know.
    """
    if config.model_type not in FAMILIES:
        raise RecipeError(
            f"model: type {config.model_type!r} is not supported; supported are {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[config.model_type](config)
