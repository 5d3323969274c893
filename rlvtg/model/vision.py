"""A video is encoded once per model call, however many rows are about it, and once per run where that is possible.

transformers wants the pixels of every row, so a group of G completions would run the vision tower G times over the
same frames. With `share_vision` a call may give each video once plus `video_rows`, the indices of the videos of each
row; the features are computed inside the model's own forward (so DDP, ZeRO and checkpointing see an ordinary call)
and repeated. A call that also gives `video_keys`, a digest of the content of each video, takes the features from a
`FeatureCache` if the model has one.

Qwen3-VL's tower makes features for the outputs of the language model's first layers besides those for its input
("deepstack"). The two stand side by side in the features of a video, until the language model is given them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from rlvtg.model.features import FeatureCache, Key, digest
from rlvtg.model.grids import grid_arguments


def share_vision(model: PreTrainedModel | PeftModel, cache: FeatureCache | None = None) -> None:
    """Teach a conditional-generation model, or one in a PEFT wrapper, the keyword `video_rows`; safe to repeat.

    With a `cache`, features are kept there from now on. They are used wherever the weights behind them get no gradient:
    in passes without gradient, and in all passes once these weights are frozen.
    """
    backbone = (model.get_base_model() if isinstance(model, PeftModel) else model).base_model
    sharing = next((hook for hook in backbone._forward_pre_hooks.values() if isinstance(hook, _Sharing)), None)
    if sharing is None:
        sharing = _Sharing()
        backbone.register_forward_pre_hook(sharing, with_kwargs=True)
    if cache is not None:
        sharing.cache, sharing.state = cache, ()


class _Sharing:
    """The hook of one model."""

    def __init__(self) -> None:
        self.cache: FeatureCache | None = None
        self.state: tuple[Any, ...] = ()  # of the weights that `_digest` is of
        self._digest = ""

    def __call__(
        self, backbone: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if "video_rows" not in kwargs:
            return None
        kwargs = dict(kwargs)
        rows, keys = kwargs.pop("video_rows"), kwargs.pop("video_keys", None)
        pixel_values, grids = kwargs.pop("pixel_values_videos"), kwargs.pop("video_grid_thw")
        if self.cache is None or keys is None or _learns(backbone.visual, self.cache.merged):
            # for adapters under checkpointing transformers lets all embeddings ask for gradients, a frozen tower's too
            with torch.set_grad_enabled(_learns(backbone.visual, merged=True)):
                features = _encode(backbone, pixel_values, grids)
        else:
            features = self._kept(self.cache, backbone, pixel_values, grids, keys)
        shared = [features[video] for row in rows for video in row]
        kwargs["mm_encoder_outputs"] = {"video": _handed_over(shared, backbone.visual)}
        return args, kwargs

    def _kept(
        self,
        cache: FeatureCache,
        backbone: torch.nn.Module,
        pixel_values: torch.Tensor,
        grids: torch.Tensor,
        keys: Sequence[str],
    ) -> Sequence[torch.Tensor]:
        """The features of each video, from the cache or encoded and put there."""
        visual = backbone.visual
        whole = {key: self._key(cache, visual, key, pixel_values.device.type) for key in keys}
        found = {key: cache.get(whole[key]) for key in whole}
        missing = [keys.index(key) for key in whole if found[key] is None]
        if missing:
            pieces = pixel_values.split(grids.prod(dim=1).tolist())
            patches = torch.cat([pieces[video] for video in missing])
            with torch.no_grad(), _at_the_merger(visual, passing=cache.merged):
                fresh = _encode(backbone, patches, grids[missing])
            for video, features in zip(missing, fresh, strict=True):
                cache.put(whole[keys[video]], features)
                found[keys[video]] = features
        features = {key: value.to(pixel_values.device) for key, value in found.items() if value is not None}
        if not cache.merged:
            features = dict(zip(features, _merged(list(features.values()), visual), strict=True))
        return [features[key] for key in keys]

    def _key(self, cache: FeatureCache, visual: torch.nn.Module, key: str, device: str) -> Key:
        """What features depend on: the video, the weights behind them and the precision of the pass."""
        weights = [value for _, value in _weights(visual, cache.merged)]
        # hashing all weights takes a second or two; an update, a load or a move changes one of these
        state = tuple((value.data_ptr(), value._version) for value in weights)
        if state != self.state:
            self.state, self._digest = state, digest(weights)
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else visual.dtype
        return key, self._digest, str(precision), "merged" if cache.merged else "tower"


def _weights(visual: torch.nn.Module, merged: bool) -> list[tuple[str, torch.nn.Parameter]]:
    """The weights that kept features depend on."""
    return [(name, value) for name, value in visual.named_parameters() if merged or not name.startswith("merger.")]


def _learns(visual: torch.nn.Module, merged: bool) -> bool:
    """Whether this pass has to give the weights behind kept features a gradient."""
    return torch.is_grad_enabled() and any(value.requires_grad for _, value in _weights(visual, merged))


def _encode(backbone: torch.nn.Module, pixel_values: torch.Tensor, grids: torch.Tensor) -> Sequence[torch.Tensor]:
    """The features (tokens, width) of each video."""
    known = grid_arguments(grids, backbone.visual)
    made = backbone.get_video_features(pixel_values, grids, return_dict=True, **known)
    deep = getattr(made, "deepstack_features", None)
    if not deep:
        return made.pooler_output
    return [torch.cat(parts, dim=1) for parts in zip(made.pooler_output, *deep, strict=True)]


def _deep_widths(visual: torch.nn.Module) -> list[int]:
    """How wide each of the deepstack features is, which are the last columns of a video's features."""
    return [visual.config.out_hidden_size for _ in getattr(visual.config, "deepstack_visual_indexes", ())]


def _merged(kept: Sequence[torch.Tensor], visual: torch.nn.Module) -> list[torch.Tensor]:
    """Kept features of videos, in which what the merger is given stands in the place of what it makes of that."""
    deep = sum(_deep_widths(visual))
    tower = [value[:, : value.shape[1] - deep] for value in kept]
    width = tower[0].shape[1] // visual.config.spatial_merge_size**2
    merged = visual.merger(torch.cat([value.reshape(-1, width) for value in tower])).split([len(each) for each in kept])
    if not deep:
        return list(merged)
    return [torch.cat([made, value[:, -deep:]], dim=1) for made, value in zip(merged, kept, strict=True)]


def _handed_over(features: Sequence[torch.Tensor], visual: torch.nn.Module) -> BaseModelOutputWithPooling:
    """The features of the videos of all rows as the model's own tower gives them."""
    widths = _deep_widths(visual)
    if not widths:
        return BaseModelOutputWithPooling(pooler_output=tuple(features))
    first, *deep = zip(
        *[value.split([value.shape[1] - sum(widths), *widths], dim=1) for value in features], strict=True
    )
    return BaseModelOutputWithDeepstackFeatures(pooler_output=first, deepstack_features=deep)


@contextmanager
def _at_the_merger(visual: torch.nn.Module, *, passing: bool) -> Iterator[None]:
    """Meanwhile, unless `passing`, the merger gives on what it is given: merge_size**2 patches in a row for each token.

    So the tower itself brings them from its window order into that of the tokens.
    """
    if passing:
        yield
        return
    hook = visual.merger.register_forward_hook(lambda _, given, made: given[0].reshape(len(made), -1))
    try:
        yield
    finally:
        hook.remove()
