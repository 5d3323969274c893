"""What an evaluation takes: a tiny model, its encoder and five rows; and a process that dies on the way."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import PreTrainedModel

from rlvtg.evaluation.predictions import Prediction
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from tests.tiny_qwen import model_and_processor, row, video_settings, write_video


class Desk:
    """A model, its encoder and five rows on two videos, which are made in `place`."""

    def __init__(self, place: Path) -> None:
        self.model, processor = model_and_processor()
        self.encoder = Encoder(processor, family(self.model.config), video_settings())
        videos = [write_video(place / f"{name}.mp4", seed=seed) for seed, name in enumerate("ab")]
        queries = ["a red circle", "a blue one", "it stops", "it goes", "all at once"]
        self.rows = [row(videos[k % 2], query) for k, query in enumerate(queries)]


class KilledError(Exception):
    """What stands for a kill."""


def counted(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, last: int | None = None) -> list[int]:
    """The sizes of the batches that the module's function `name`, which is like `predict`, answers from now on.

    KilledError before the batch number `last`, counted from 0.
    """
    sizes: list[int] = []
    true = getattr(module, name)

    def watched(model: PreTrainedModel, encoder: Encoder, batches: Any, **settings: Any) -> Iterator[list[Prediction]]:
        for batch, made in zip(batches, true(model, encoder, batches, **settings), strict=True):
            if len(sizes) == last:
                raise KilledError
            sizes.append(len(batch))
            yield made

    monkeypatch.setattr(module, name, watched)
    return sizes
