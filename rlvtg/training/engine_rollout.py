"""The policy's weights in vLLM's engine, and rollouts with them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from rlvtg.model.family import Family
from rlvtg.model.inputs import Encoder, Inputs
from rlvtg.model.load import load_config
from rlvtg.recipe import GrpoStage, Recipe, RecipeError, Stage, Video
from rlvtg.rollout.client import OneForAll, connect
from rlvtg.rollout.engine import Engine, Sampled
from rlvtg.rollout.request import request, video_limits
from rlvtg.rollout.wire import model_facts
from rlvtg.training.weights import whole_weights

_STARTED: dict[str, Engine] = {}
"""An engine takes minutes to start and cannot be ended while its process lives, so the next stage goes on with it."""


class EngineRollout:
    """What stands where TRL has its `VLLMGeneration`: before a rollout with new weights TRL calls `sync_weights`.

    Args:
        engine: of this process, or a server's for all processes.
        model: the policy, unwrapped.
        encoder: the run's encoder.
    """

    def __init__(self, engine: Engine | OneForAll, model: PreTrainedModel | PeftModel, encoder: Encoder) -> None:
        self.engine, self.model, self.encoder = engine, model, encoder
        self.engine.sleep()
        self._is_empty = True  # of this model's weights

    @property
    def is_exact(self) -> bool:
        """Whether the engine computes in float32."""
        return self.engine.is_exact

    def sync_weights(self) -> None:
        """Give the engine the policy's weights; all processes do it together."""
        self.engine.wake()
        self.engine.load(whole_weights(self.model))
        self._is_empty = False

    def sample(
        self,
        rows: Sequence[Mapping[str, Any]],
        prompts: Sequence[Inputs],
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        stop_token_ids: Sequence[int],
    ) -> list[list[Sampled]]:
        """n completions of each of the rows, whose inputs are `prompts`."""
        if self._is_empty:
            self.sync_weights()
        return self.engine.generate(
            [request(row, prompt, self.encoder) for row, prompt in zip(rows, prompts, strict=True)],
            n=n,
            temperature=temperature,
            top_p=1.0,
            top_k=0,
            max_tokens=max_tokens,
            stop_token_ids=stop_token_ids,
            # from the generator whose state checkpoints keep: a run that was resumed samples what it would have
            seed=int(torch.randint(2**31, ())),
        )

    def rest(self) -> None:
        """The device is the training's until the next rollout."""
        self._is_empty = self.engine.sleep()


def engine_of(recipe: Recipe, stage: GrpoStage, path: str, encoder: Encoder) -> Engine | OneForAll:
    """The engine of a stage that starts from the model at `path`, as the recipe has it: in this process, or a server's.

    Raises:
        RecipeError: the model's prompts cannot be given to vLLM, or the server is not there or another model's.
    """
    require_own_stamps(encoder.family)
    if stage.vllm_mode == "server":
        return connect(stage.vllm_server_base_url, model_facts(load_config(path)), timeout=stage.vllm_server_timeout)
    steps = stage.steps_per_generation or stage.gradient_accumulation_steps
    settings = {
        "gpu_memory_utilization": stage.vllm_gpu_memory_utilization,
        "enable_sleep_mode": stage.vllm_enable_sleep_mode,
        "max_num_seqs": stage.per_device_train_batch_size * steps,  # all completions of a rollout at once
    }
    settings |= engine_settings(recipe, stage, encoder.family, encoder.settings)
    shape = {key: value for key, value in load_config(path).to_dict().items() if key != "_name_or_path"}
    key = repr((shape, settings))
    if key not in _STARTED:
        _STARTED[key] = Engine(path, vision_token_ids=encoder.family.vision_token_ids, settings=settings)
    return _STARTED[key]


def engine_settings(recipe: Recipe, stage: GrpoStage, family: Family, video: Video) -> dict[str, Any]:
    """What vLLM is told of a stage's rollouts, wherever its engine is."""
    settings = {
        "dtype": "bfloat16" if recipe.bf16 else "float32",
        "max_model_len": stage.vllm_max_model_length,
        "limit_mm_per_prompt": video_limits(video, family),
        "seed": recipe.seed,
    }
    return settings | stage.engine


def require_servers(recipe: Recipe, stages: Iterable[Stage]) -> None:
    """Wait for the vLLM servers that these stages of the recipe ask, before anything is loaded. All processes do it
    together.

    Raises:
        RecipeError: one is not there, or is another model's.
    """
    for stage in stages:
        if isinstance(stage, GrpoStage) and stage.use_vllm and stage.vllm_mode == "server":
            facts = model_facts(load_config(recipe.model))
            connect(stage.vllm_server_base_url, facts, timeout=stage.vllm_server_timeout)


def require_own_stamps(family: Family) -> None:
    """Raise RecipeError for a family into whose prompts vLLM writes stamps of its own."""
    if family.writes_stamps:
        raise RecipeError(
            f"use_vllm: vLLM writes stamps of its own into prompts of {family.name}, which need not be those that the "
            "policy sees; want use_vllm false"
        )
