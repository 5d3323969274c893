"""Stand-in until colocate's own arrives."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Request:
    """A prompt."""

    token_ids: list[int]
    videos: list[tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Sampled:
    """A completion."""

    token_ids: list[int]
    logprobs: list[float]


class Engine:
    """In-process vLLM."""

    def __init__(self, model_folder: str, *, vision_token_ids: Sequence[int], settings: Mapping[str, Any]) -> None:
        os.environ.update({"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
        from vllm import LLM

        self.vision = list(vision_token_ids)
        self.pads = set(self.vision[:2])
        self.llm = LLM(
            model=model_folder,
            **{
                "dtype": "float32", "max_model_len": 1024, "enforce_eager": True, "max_num_seqs": 8,
                "logprobs_mode": "processed_logprobs", "limit_mm_per_prompt": {"video": 1, "image": 0},
                "mm_processor_kwargs": {"do_resize": False}, **settings,
            },
        )  # fmt: skip

    def generate(
        self, requests: Sequence[Request], *, n: int, temperature: float, top_p: float, top_k: int, max_tokens: int,
        stop_token_ids: Sequence[int], seed: int | None,
    ) -> list[list[Sampled]]:  # fmt: skip
        """Sample."""
        from vllm import SamplingParams

        params = SamplingParams(
            n=n, temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_tokens, seed=seed, logprobs=0,
            stop_token_ids=list(stop_token_ids), logit_bias={token: -100.0 for token in self.vision},
        )  # fmt: skip
        prompts = []
        for request in requests:
            ids = [
                t
                for k, t in enumerate(request.token_ids)
                if not (k and t in self.pads and request.token_ids[k - 1] == t)
            ]
            prompts.append({"prompt_token_ids": ids, "multi_modal_data": {"video": list(request.videos)}})
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        return [
            [Sampled(list(c.token_ids), [next(iter(d.values())).logprob for d in c.logprobs]) for c in output.outputs]
            for output in outputs
        ]

    def load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """New weights."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": [(n, w) for n, w in weights]})
        self.llm.reset_prefix_cache()
        self.llm.reset_mm_cache()
        self.llm.llm_engine.reset_encoder_cache()

    def sleep(self) -> None:
        """Nothing."""

    def wake(self) -> None:
        """Nothing."""
