"""What a stage leaves for the world: a LoRA adapter for PEFT, and a merged model directory for transformers.

Both hold the processor, the chat template, a generation config and a model card. The merged directory holds plain
Qwen2.5-VL weights: no wrapper prefixes in its keys, and nothing of this library is needed to load it. The adapter is
for the model that the run began with, or for the result of the last stage that trained all weights: what stages and
rounds with LoRA have trained before is part of it (see `joined_adapter.py`).
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from peft import PeftModel
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, ProcessorMixin

from rlvtg.disk import whole_folder, writing
from rlvtg.joined_adapter import join
from rlvtg.model.family import family

ADAPTER, MERGED = "adapter", "merged"
ADAPTER_CONFIG, DONE = "adapter_config.json", "done.json"
CARD = "README.md"
NO_CARDS: Mapping[str, str] = MappingProxyType({})


def export(
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    folder: str | os.PathLike[str],
    kinds: Sequence[str],
    cards: Mapping[str, str] = NO_CARDS,
) -> dict[str, Path]:
    """Write `adapter/` and/or `merged/` below `folder`; each appears whole, in the place of an older one.

    The merge happens in place: export the adapter and use the adapted model before.

    Args:
        model: the trained model, unwrapped from accelerate.
        processor: saved beside the weights.
        folder: the stage's folder.
        kinds: `adapter`, `merged` or both.
        cards: the model card by kind; none is written where there is none.

    Returns:
        The folders written, by kind.

    Raises:
        ValueError: an adapter is asked for, but the stage trained none.
        DiskError: the disk does not take them.
    """
    written = {}
    if ADAPTER in kinds:
        if not isinstance(model, PeftModel):
            raise ValueError("export: adapter was asked for, but the stage trained no LoRA adapter; allowed: merged")
        written[ADAPTER] = Path(folder) / ADAPTER
        write(model, processor, written[ADAPTER], cards.get(ADAPTER))
    if MERGED in kinds:
        merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
        written[MERGED] = Path(folder) / MERGED
        write(merged, processor, written[MERGED], cards.get(MERGED))
    return written


def generation_config(config: PreTrainedConfig, own: GenerationConfig) -> GenerationConfig:
    """How an exported model generates unless told otherwise: greedily, and never a vision token.

    So it was evaluated; what the released model had of its own (sampling, a repetition penalty) was not trained with.

    Args:
        config: of the model.
        own: the model's generation config, whose ids of special tokens are kept.
    """
    return GenerationConfig(
        do_sample=False,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
        suppress_tokens=sorted(set(family(config).vision_token_ids)),
    )


def adapter_of(base: str) -> Path | None:
    """The adapter that a stage or a round left beside its merged weights, if `base` is the folder of these."""
    stage = Path(base).parent
    is_one = Path(base).name == MERGED and (stage / DONE).is_file() and (stage / ADAPTER / ADAPTER_CONFIG).is_file()
    return stage / ADAPTER if is_one else None


def base_and_rank(base: str, rank: int) -> tuple[str, int]:
    """The model that an adapter trained on the model `base` with this rank is exported for, and its rank there."""
    earlier = adapter_of(base)
    if earlier is None:
        return base, rank
    config = json.loads((earlier / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return str(config["base_model_name_or_path"]), config["r"] + rank


def join_earlier(folder: Path) -> None:
    """Make an adapter in `folder` one with what was trained before it; nothing to do for a model."""
    config = folder / ADAPTER_CONFIG
    if config.is_file():
        earlier = adapter_of(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])
        if earlier is not None:
            join(earlier, folder)


def write(model: PreTrainedModel | PeftModel, processor: ProcessorMixin, folder: Path, card: str | None) -> None:
    """Write one folder, an adapter's or a model's, which appears whole; DiskError if the disk does not take it."""
    with writing(folder), whole_folder(folder) as made:
        model.save_pretrained(made)
        join_earlier(made)
        processor.save_pretrained(made)
        generation_config(model.config, model.generation_config).save_pretrained(made)
        if card is not None:
            (made / CARD).write_text(card, encoding="utf-8")
