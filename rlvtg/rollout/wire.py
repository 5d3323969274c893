"""What a trainer and its vLLM server say to each other, as bytes. HTTP carries it; nothing here knows HTTP or vLLM.

Every body with numbers in it is one safetensors file, which holds arrays without loss and cannot hold code: the frames
of prompts (uint8, as they were decoded) and weights. What is not an array stands in the file's own header as JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rlvtg.rollout.engine import Request, Sampled

PROTOCOL = 1
"""Of what is said here and to which addresses; both sides must know the same."""

# `__metadata__` of a safetensors file maps texts to texts; ours has this one key.
_KEY = "rlvtg"
_MOST_COMPLETIONS = 4096


class WireError(ValueError):
    """Bytes that are not what they should be; the message is one sentence for whoever sent them."""


@dataclass(frozen=True)
class Sampling:
    """How to sample: the arguments of `Engine.generate` besides its requests."""

    n: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    seed: int | None


def pack_requests(requests: Sequence[Request], sampling: Sampling, weights: str) -> bytes:
    """Prompts with their frames, to be completed with the weights of that name. Frames that are one array go once."""
    arrays: dict[str, np.ndarray] = {}
    names: dict[int, str] = {}
    prompts = []
    for request in requests:
        videos = []
        for frames, metadata in request.videos:
            name = names.setdefault(id(frames), str(len(names)))
            arrays[name] = np.ascontiguousarray(frames)
            videos.append({"frames": name, "metadata": dict(metadata)})
        prompts.append({"token_ids": list(request.token_ids), "videos": videos, "name": request.name})
    header = {"prompts": prompts, "sampling": asdict(sampling), "weights": weights}
    return save(arrays, metadata={_KEY: json.dumps(header, allow_nan=False)})


def unpack_requests(body: bytes) -> tuple[list[Request], Sampling, str]:
    """(prompts, how to sample, the name of the weights to do it with).

    Raises:
        WireError: anything else.
    """
    try:
        arrays = load(body)
        size = int.from_bytes(body[:8], "little")
        header = json.loads(json.loads(body[8 : 8 + size])["__metadata__"][_KEY])
    except SafetensorError as error:
        raise WireError(f"the body is not a safetensors file: {error}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WireError(f"the body has no readable header {_KEY!r} with prompts") from error
    found = _object(header, "the header", {"prompts", "sampling", "weights"})
    requests = [_request(prompt, k, arrays) for k, prompt in enumerate(_list(found["prompts"], "prompts"))]
    return requests, _sampling(found["sampling"]), _text(found["weights"], "weights")


def pack_samples(samples: Sequence[Sequence[Sampled]]) -> bytes:
    """The completions of each prompt, as JSON, which gives every float back as it was; NaN is null there."""
    groups = [
        [
            {"token_ids": sample.token_ids, "logprobs": [each if isfinite(each) else None for each in sample.logprobs]}
            for sample in group
        ]
        for group in samples
    ]
    return json.dumps(groups, allow_nan=False).encode()


def unpack_samples(body: bytes) -> list[list[Sampled]]:
    """The completions of each prompt.

    Raises:
        WireError: anything else.
    """
    try:
        groups = json.loads(body)
    except ValueError as error:
        raise WireError("the reply is not JSON") from error
    return [[_sample(sample) for sample in _list(group, "a group")] for group in _list(groups, "the reply")]


def _sample(value: Any) -> Sampled:
    found = _object(value, "a completion", {"token_ids", "logprobs"})
    given = _list(found["logprobs"], "logprobs")
    logprobs = [nan if each is None else _number(each, "logprobs") for each in given]
    ids = _ids(found["token_ids"], "token_ids")
    if len(ids) != len(logprobs):
        raise WireError(f"a completion has {len(ids)} tokens and {len(logprobs)} log-probabilities")
    return Sampled(ids, logprobs)


def _request(value: Any, index: int, arrays: Mapping[str, np.ndarray]) -> Request:
    found = _object(value, f"prompt {index}", {"token_ids", "videos", "name"})
    ids = _ids(found["token_ids"], f"token_ids of prompt {index}")
    if not ids:
        raise WireError(f"prompt {index} has no tokens")
    videos = []
    for video in _list(found["videos"], f"videos of prompt {index}"):
        named = _object(video, f"a video of prompt {index}", {"frames", "metadata"})
        frames = arrays.get(_text(named["frames"], "frames"))
        if frames is None:
            raise WireError(f"prompt {index} has frames {named['frames']!r}, and the body has no such array")
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise WireError(
                f"frames of prompt {index} are {frames.dtype} {frames.shape}, want uint8 (frames, height, width, 3)"
            )
        if not isinstance(named["metadata"], dict):
            raise WireError(f"a video of prompt {index} has no metadata")
        videos.append((frames, named["metadata"]))
    return Request(ids, videos, _text(found["name"], "name"))


def _sampling(value: Any) -> Sampling:
    found = _object(value, "sampling", set(Sampling.__dataclass_fields__))
    whole = {name: _whole(found[name], name, least) for name, least in (("n", 1), ("max_tokens", 1), ("top_k", -1))}
    if whole["n"] > _MOST_COMPLETIONS:
        raise WireError(f"n is {whole['n']}, want {_MOST_COMPLETIONS} at most")
    temperature, top_p = _number(found["temperature"], "temperature"), _number(found["top_p"], "top_p")
    if temperature < 0 or not 0 < top_p <= 1:
        raise WireError(f"temperature is {temperature:g} and top_p {top_p:g}, want 0 or more, and above 0 up to 1")
    seed = None if found["seed"] is None else _whole(found["seed"], "seed", 0)
    stops = tuple(_ids(found["stop_token_ids"], "stop_token_ids"))
    return Sampling(temperature=temperature, top_p=top_p, stop_token_ids=stops, seed=seed, **whole)


def _object(value: Any, what: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        got = f"keys {', '.join(sorted(map(str, value)))}" if isinstance(value, dict) else type(value).__name__
        raise WireError(f"{what} must have the keys {', '.join(sorted(keys))}, got {got}")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise WireError(f"{what} must be a list, got {type(value).__name__}")
    return value


def _ids(value: Any, what: str) -> list[int]:
    return [_whole(each, what, 0) for each in _list(value, what)]


def _whole(value: Any, what: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        raise WireError(f"{what} must be a whole number of at least {least}, got {value!r:.40}")
    return value


def _number(value: Any, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
        raise WireError(f"{what} must be a finite number, got {value!r:.40}")
    return float(value)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise WireError(f"{what} must be a text, got {type(value).__name__}")
    return value


# Of a model's configuration: what weights of another model would not fit.
_SHAPE = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "depth", "num_heads", "patch_size", "spatial_merge_size", "temporal_patch_size",
    "tokens_per_second", "out_hidden_size",
)  # fmt: skip


def model_facts(config: Any) -> dict[str, Any]:
    """What a trainer's model and a server's must have in common, from the configuration of either (transformers)."""
    facts: dict[str, Any] = {"family": config.model_type}
    for part in ("text_config", "vision_config"):
        below = getattr(config, part)
        facts |= {f"{part}.{name}": getattr(below, name) for name in _SHAPE if hasattr(below, name)}
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return facts | {name: getattr(config, name) for name in names}
