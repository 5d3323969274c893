"""What differs between model families: token ids, pixel units and where time is, from the model's own configuration.

Qwen2.5-VL holds seconds in its positions. Qwen3-VL's processor writes them as text before each temporal patch, and its
positions hold none. Qwen2-VL holds them nowhere: its positions count temporal patches.
"""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from rlvtg.recipe import FAMILIES, RecipeError
from rlvtg.video.sampling import FRAMES_PER_PATCH

STAMPING = ("qwen3_vl",)
"""Families whose processor writes the second of each temporal patch before it."""


@dataclass(frozen=True)
class Family:
    """The facts about a vision-language model that prompts, positions and sampling need.

    Attributes:
        name: one of FAMILIES.
        video_token_id: the pad that stands for one merged video token.
        vision_token_ids: every vision token (pads, start, end): text that a completion may never contain.
        patch_size: side of a patch, pixels.
        merge_size: patches per side of a merged token.
        temporal_patch_size: frames in one temporal patch (a grid step).
        tokens_per_second: positions that one second is long on the time axis of M-RoPE; None where that axis counts
            temporal patches.
    """

    name: str
    video_token_id: int
    vision_token_ids: tuple[int, ...]
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    tokens_per_second: float | None

    @property
    def pixel_unit(self) -> int:
        """Frame sides are multiples of this many pixels."""
        return self.patch_size * self.merge_size

    @property
    def writes_stamps(self) -> bool:
        """Whether the family's own processor writes the second of each temporal patch before it."""
        return self.name in STAMPING

    def has_stamps(self, time: str) -> bool:
        """Whether under `video.time` each temporal patch is a video of its own, behind a stamp in the text."""
        return time == "text" or self.writes_stamps


def family(config: PreTrainedConfig, wanted: str | None = None) -> Family:
    """The family of a model configuration.

    Args:
        config: of a model.
        wanted: the family that a recipe is for; None if it is for any.

    Raises:
        RecipeError: a model type that the library does not know or the recipe is not for, or temporal patches of
            another length than the frames are sampled for.
    """
    name = config.model_type
    if name not in FAMILIES:
        raise RecipeError(f"model: type {name!r} is not supported; supported are {', '.join(FAMILIES)}")
    if wanted is not None and name != wanted:
        raise RecipeError(f"model: type {name!r}, but the recipe is for {wanted}; want such a model, or family {name}")
    vision: PreTrainedConfig = config.vision_config
    if vision.temporal_patch_size != FRAMES_PER_PATCH:
        raise RecipeError(
            f"model: {vision.temporal_patch_size} frames in a temporal patch; supported are {FRAMES_PER_PATCH}"
        )
    return Family(
        name=name,
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
        tokens_per_second=getattr(vision, "tokens_per_second", None),
    )
