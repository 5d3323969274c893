"""Which of our functions equals each recorded function of MCG-NJU/TimeLens2@a5ce450.

A reward there is a sum that a text states: `twass1,tiou,parse_penalty`, or `tiou:1.0,format:0.2` with weights.
"""

import json

import numpy as np
import torch

from rewards.multi_span_giou import multi_span_giou
from rewards.multi_span_tiou import multi_span_tiou
from rewards.ngiou import ngiou
from rewards.parse_penalty import parse_penalty
from rewards.thinking_format import thinking_format
from rewards.wasserstein import wasserstein
from rlvtg.data.selection import rollout_weights
from rlvtg.text.grammar import grammar

TERMS = {
    "tiou": (multi_span_tiou, {}),
    "tgiou": (multi_span_giou, {}),
    "ngiou": (ngiou, {}),
    "twass": (wasserstein, {}),
    "r2twass": (wasserstein, {"order": 2, "divisor": "both"}),
    "format": (thinking_format, {}),
    "parse_penalty": (parse_penalty, {}),
}
DEFAULT_BETA = 3.0


def terms(spec):
    """(weight, reward function, knobs) of each part of a comma list."""
    found = []
    for part in filter(None, map(str.strip, spec.split(","))):
        name, _, weight = (text.strip() for text in part.partition(":"))
        stem = name.rstrip("0123456789.")
        if stem not in TERMS or (stem != name and "twass" not in stem):
            raise ValueError(f"got the reward {name!r}; timelens2 has {', '.join(TERMS)}, extract_time, ...")
        function, knobs = TERMS[stem]
        if "twass" in stem:
            knobs = {**knobs, "beta": float(name[len(stem) :] or DEFAULT_BETA)}
        found.append((float(weight or 1.0), function, {"grammar": "json_list", **knobs}))
    if not found:
        raise ValueError(f"got the reward {spec!r}; timelens2 has {', '.join(TERMS)}, extract_time, ...")
    return found


def spans_of(span):
    return span if isinstance(span[0], (list, tuple)) else [span]


def total(spec, text, span):
    return sum(
        weight * reward(completions=[text], spans=[spans_of(span)], **knobs)[0] for weight, reward, knobs in terms(spec)
    )


def of_rollouts(spec, anno):
    """The rewards of recorded predictions. Terms that look at the text have none there."""
    spec = ",".join(part for part in spec.split(",") if part.split(":")[0].strip() not in ("format", "parse_penalty"))
    rollouts = anno.get("rollout_intervals") or []
    # A reversed span is not swapped once it is a recorded prediction, but makes it worthless.
    texts = ["" if any(start >= end for start, end in spans) else json.dumps(spans) for spans in rollouts]
    return [total(spec, text, anno["span"]) if spec else 0.0 for text in texts]


def sample_weights(annos, default_spec, eps=1e-8, std_power=2.0, mean_power=0.0, mean_spec=None):
    def rewards(spec):
        return [of_rollouts(anno.get("reward", default_spec) if spec is None else spec, anno) for anno in annos]

    means = [float(np.mean(row)) if len(row) > 1 else 0.0 for row in rewards(mean_spec)]
    weights = rollout_weights(rewards(None), means, std_power=std_power, mean_power=mean_power, eps=eps)
    single = torch.tensor(weights, dtype=torch.float32)  # as there, to the last bit
    return (single / single.sum()).tolist()


def score(reward, completion, kwargs):
    if reward == "extract_time":
        return grammar("json_list").parse(completion)
    if reward == "build_sample_weights":
        return sample_weights(**kwargs)
    return total(reward, completion, kwargs["span"])
