"""Patches become vectors by one matrix product: the convolution of the vision tower has as many steps as patches, one.

Its kernel is as large as a patch, and a convolution of that form is several times slower than the product on CPU.
"""

import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel


class PatchProjection(torch.nn.Conv3d):
    """A convolution over inputs of the size of its kernel."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches (N, channels, frames, height, width) as (N, width, 1, 1, 1)."""
        return linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


def multiply_patches(model: PreTrainedModel) -> None:
    """Let the vision tower of `model` (not a PEFT wrapper) do so; weights and their names stay; safe to repeat."""
    model.base_model.visual.patch_embed.proj.__class__ = PatchProjection
