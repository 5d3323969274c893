"""The policy's weights in vLLM's engine, and rollouts with them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from rlvtg.model.inputs import Encoder, Inputs
from rlvtg.recipe import GrpoStage, Recipe, RecipeError
from rlvtg.rollout.engine import Engine, Sampled
from rlvtg.rollout.request import request, video_limits
from rlvtg.training.weights import whole_weights


class EngineRollout:
    """What stands where TRL has its `VLLMGeneration`: before a rollout with new weights TRL calls `sync_weights`.

    Args:
        engine: of this process.
        model: the policy, unwrapped.
        encoder: the run's encoder.
    """

    def __init__(self, engine: Engine, model: PreTrainedModel | PeftModel, encoder: Encoder) -> None:
        self.engine, self.model, self.encoder = engine, model, encoder
        self.rest()

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


def engine_of(recipe: Recipe, stage: GrpoStage, path: str, encoder: Encoder) -> Engine:
    """The engine of a stage that starts from the model at `path`, as the recipe has it.

    Raises:
        RecipeError: the model's prompts cannot be given to vLLM.
    """
    family, own = encoder.family, stage.engine
    if family.writes_stamps:
        raise RecipeError(
            f"use_vllm: vLLM writes stamps of its own into prompts of {family.name}, which need not be those that the "
            "policy sees; want use_vllm false"
        )
    steps = stage.steps_per_generation or stage.gradient_accumulation_steps
    settings = {
        "dtype": "bfloat16" if recipe.bf16 else "float32",
        "gpu_memory_utilization": stage.vllm_gpu_memory_utilization,
        "max_model_len": stage.vllm_max_model_length,
        "enable_sleep_mode": stage.vllm_enable_sleep_mode,
        "max_num_seqs": stage.per_device_train_batch_size * steps,  # all completions of a rollout at once
        "limit_mm_per_prompt": video_limits(encoder.settings, family),
        "seed": recipe.seed,
    }
    return Engine(path, vision_token_ids=family.vision_token_ids, settings=settings | own)
