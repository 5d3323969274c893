"""The features of videos that were encoded before, for runs that leave the vision encoder as it is."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import torch

from rlvtg.recipe import MERGER, Recipe, trained

Key = tuple[str, ...]


def feature_cache(recipe: Recipe) -> "FeatureCache | None":
    """Where a recipe's models keep the features of videos; None if they do not."""
    if not recipe.video.cache_features:
        return None
    merged = not any(trained(stage, MERGER) for stage in recipe.stages.values())
    return FeatureCache(int(recipe.feature_cache_gb * 2**30), merged=merged)


class FeatureCache:
    """At most `max_bytes` of features in this process's memory; the least recently used go first.

    One cache serves all models of a run. `encodes` counts the videos that went through a vision tower to fill it, and
    `hits` the videos that were found.

    Args:
        max_bytes: the budget.
        merged: keep what the merger makes of the tower's output, one vector for each video token. Without it the output
            itself is kept, which a merger that is trained runs on in every pass: larger by merge_size**2 * (width of
            the tower) / (width of the language model), 1.4 times for Qwen2.5-VL-7B and 2.5 times for 3B. What
            Qwen3-VL's other mergers make for the first layers of the language model is kept in either case.
    """

    def __init__(self, max_bytes: int, *, merged: bool = True) -> None:
        self.max_bytes = max_bytes
        self.merged = merged
        self.encodes = 0
        self.hits = 0
        self.bytes = 0
        self._kept: OrderedDict[Key, torch.Tensor] = OrderedDict()

    def get(self, key: Key) -> torch.Tensor | None:
        """The features (tokens, width) kept under `key`, in the processor's memory; None if there are none."""
        found = self._kept.get(key)
        if found is not None:
            self.hits += 1
            self._kept.move_to_end(key)
        return found

    def put(self, key: Key, features: torch.Tensor) -> None:
        """Keep a copy of freshly encoded features (tokens, width)."""
        self.encodes += 1
        if features.nbytes > self.max_bytes:
            return
        # a copy, since a slice of a batch's features would hold the memory of the whole batch
        self._kept[key] = features.detach().to("cpu", copy=True)
        self.bytes += features.nbytes
        while self.bytes > self.max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= dropped.nbytes


def content_digests(pixel_values: torch.Tensor, grids: torch.Tensor) -> tuple[str, ...]:
    """A digest for each of V videos of what the vision tower is given: its patches and their grid.

    Args:
        pixel_values: (patches, width) of all videos, one behind the other.
        grids: (V, 3) patches in time, height and width.
    """
    pieces = pixel_values.split(grids.prod(dim=1).tolist())
    return tuple(digest([piece, grid]) for piece, grid in zip(pieces, grids, strict=True))


def digest(tensors: Sequence[torch.Tensor]) -> str:
    """A digest of the bytes, shapes and dtypes of tensors."""
    found = hashlib.blake2b(digest_size=20)
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return found.hexdigest()
