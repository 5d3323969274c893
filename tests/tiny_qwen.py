"""A tiny real model of each family with a real processor, and real mp4 files, for the tests."""

from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import av
import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from rlvtg.model.inputs import Inputs
from rlvtg.model.load import prepare
from rlvtg.model.tiny import QWEN2_5, tiny_model, tiny_processor
from rlvtg.recipe import FAMILIES, Video

# The weights are scaled up: at the usual initialisation the logits are so flat that a real error looks like rounding.
SCALE = 1.7

OTHERS = [family for family in FAMILIES if family != QWEN2_5]
# How each family is told the time: two of them need text for it.
SHOWN: dict[str, dict[str, Any]] = {QWEN2_5: {}} | {family: {"time": "text"} for family in OTHERS}


def model_and_processor(
    scale: float = SCALE, seed: int = 0, family: str = QWEN2_5, **sizes: Any
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A prepared float32 model in eval mode, and its processor."""
    processor = tiny_processor(family)
    model = tiny_model(processor.tokenizer, seed=seed, family=family, **sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    prepare(model)
    return model.eval(), processor


def write_video(
    path: Path, *, seconds: float = 8, rate: int = 8, width: int = 112, height: int = 84, seed: int = 0
) -> str:
    """An h264 file of slowly changing colours; returns its path."""
    colors = np.random.default_rng(seed).integers(0, 255, (int(seconds) + 2, 2, 2, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(int(seconds * rate)):
            corners = colors[index // rate].astype(np.uint8)
            picture = corners.repeat(height // 2, axis=0).repeat(width // 2, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def save(
    folder: Path, seconds: Sequence[float], scale: float = SCALE, family: str = QWEN2_5
) -> tuple[Path, ProcessorMixin, list[str]]:
    """(`folder` with a model and its processor in `folder/model`, the processor, videos as long as `seconds` says)."""
    model, processor = model_and_processor(scale, family=family)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    names = ascii_lowercase[: len(seconds)]
    videos = [write_video(folder / f"{names[k]}.mp4", seconds=each, seed=k) for k, each in enumerate(seconds)]
    return folder, processor, videos


def video_settings(fps: float = 2.0, **changes: Any) -> Video:
    """Small frames, positions as time, at `fps`."""
    settings = {
        "fps": fps,
        "min_frames": 4,
        "max_frames": 64,
        "min_pixels": 784,
        "max_pixels": 3136,
        "sampling": "interval",
    }
    return Video(**(settings | changes))


def row(video: str, query: str = "a red circle appears", **columns: Any) -> dict[str, Any]:
    """A dataset row that asks `query` about `video`."""
    prompt = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": query}]}]
    given = {
        "id": f"{Path(video).stem} {query}",
        "video": video,
        "query": query,
        "duration": 8.0,
        "spans": [[2.0, 5.0]],
    }
    return given | {"prompt": prompt, "video_start": None, "video_end": None} | columns


def plain_log_probabilities(model: PreTrainedModel, prompt: Inputs, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (C,) of a completion behind its prompt: one row, its own pixels, nothing shared."""
    places = prompt.next_position + torch.arange(len(ids)).expand(3, -1)
    with torch.no_grad():
        logits = model(
            input_ids=torch.cat([prompt.input_ids, ids])[None],
            position_ids=torch.cat([prompt.position_ids, places], dim=1)[:, None],
            pixel_values_videos=prompt.video.pixel_values,
            video_grid_thw=prompt.video.grids,
        ).logits[0, -len(ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
