"""What torch really allocates: the peak of all tensors' bytes, and a model that is large enough for them to matter."""

import gc
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForImageTextToText, GenerationConfig

from rlvtg.model.tiny import tiny_model, tiny_processor


def peak_bytes(act: Callable[[], object]) -> int:
    """The most bytes of tensors on the CPU at one time while `act` runs, beyond those that were there before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        made = act()
    del made
    events = profiled.profiler.kineto_results.events()
    allocated = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    peak = total = 0
    for _, size in allocated:
        total += size
        peak = max(peak, total)
    return peak


def save_model(folder: Path) -> None:
    """Save a Qwen2.5-VL with random weights in float32 (4.3 million) and its processor."""
    processor = tiny_processor()
    config = tiny_model(processor.tokenizer, layers=1).config
    text, tower = config.text_config, config.vision_config
    text.hidden_size, text.num_hidden_layers, text.intermediate_size = 256, 4, 688
    text.num_attention_heads, text.num_key_value_heads = 4, 2
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    text.layer_types = ["full_attention"] * 4
    tower.depth, tower.num_heads, tower.hidden_size, tower.intermediate_size = 4, 4, 128, 344
    tower.fullatt_block_indexes, tower.out_hidden_size = [1, 3], 256
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    ids = {name: getattr(text, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
