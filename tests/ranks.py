"""The training command, for runs that are to be the same however their prompts are spread over processes.

Launched in the place of rlvtg/train.py by tests/test_ranks.py. What is settled here decides on numbers and on nothing
that processes do together:

- the completions of a prompt are sampled for it alone, from a generator that the prompt seeds;
- Adam's epsilon is large, so that an update follows the gradient: with the usual one the first updates are its sign,
  which rounding decides where a gradient is nothing but rounding;
- ZeRO-3 splits every weight: by default it leaves those of up to 100,000 values whole, and the tiny model has no other;
- DeepSpeed builds no extension for gloo, which takes a compiler a minute and which training does not call.
"""

import json
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlvtg.rollout.hf import rollout
from rlvtg.train import main
from rlvtg.training import grpo, prefix, setup, sft

RANK, RANKS = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")


def seeded(model: Any, prompts: Sequence[Any], config: Any, *, num_generations: int) -> list[list[int]]:
    found = []
    for prompt in prompts:
        torch.manual_seed(zlib.crc32(prompt.input_ids.numpy().tobytes() + prompt.video.pixel_values.numpy().tobytes()))
        found += rollout(model, [prompt], config, num_generations=num_generations)
    if os.environ.get("LOSES_ITS_VIDEOS") == RANK:
        os.chdir("/")  # the paths of the recipe lead nowhere from here
    return found


def noted(dealt: Sequence[list[int]], count: int) -> list[list[int]]:
    """Into how many calls a rank's own rows are sliced, and how many it makes; one line for each pass."""
    made = prefix.at_least(dealt, count)
    with open(f"slices.{RANK}_of_{RANKS}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps([len(dealt), len(made)]) + "\n")
    return made


def with_large_epsilon(*given: Any) -> dict[str, Any]:
    return setup.training_arguments(*given) | {"adam_epsilon": 1e-2}


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    grpo.rollout, grpo.at_least = seeded, noted
    grpo.training_arguments = sft.training_arguments = with_large_epsilon
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed
        from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        DeepSpeedZeRoOffload.mark_persistent_parameters = lambda self, *thresholds: []
    sys.exit(main(sys.argv[1:]))
