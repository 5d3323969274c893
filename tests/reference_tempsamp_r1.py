"""Which of our functions equals each reference function of TempSamp-R1 (ZhangZikun6666/TempSamp-R1@55a9228)."""

import re
from dataclasses import dataclass, field
from typing import Any

from rlvtg.evaluation.protocol import answer_iou, protocol
from rlvtg.reward import bind
from rlvtg.text.grammar import grammar
from rlvtg.text.shaping import shaped_iou
from rlvtg.training.advantage import anchored_advantages, group_advantages
from rlvtg.training.experts import controlled_reward, expert_completion


@dataclass
class Spec:
    weight: float
    args: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = None


def release_rewards(env):
    """The release's IoU, its shaped IoU and its format reward, set up by its environment variables."""
    shaping = {
        "tau": float(env.get("GTPO_REWARD_SHAPING_THRESHOLD", 0.8)),
        "a2": float(env.get("GTPO_REWARD_SHAPING_ALPHA", 1.0)),
    }
    shaped = env.get("GTPO_REWARD_SHAPING") == "1"
    strict = env.get("TIMELENS_STRICT_FORMAT") == "1"
    specs = {
        "tiou": Spec(0.0 if shaped else 1.0, tasks=["grounding"]),
        "shaped_tiou": Spec(1.0 if shaped else 0.0, shaping, tasks=["grounding"]),
        "span_format": Spec(0.1, {"strict": strict}, tasks=["grounding"]),
    }
    return bind(specs, ["id", "spans", "task"], grammar="tempsamp_r1"), shaped, shaping


def compute_score(completion, ground_truth, env):
    rewards, shaped, shaping = release_rewards(env)
    spans = grammar("tempsamp_r1").parse(ground_truth)
    # Four numbers make a box there, which is another task: no reward of ours is for it, and an answer of two numbers
    # gets IoU and format 0 there, the IoU being shaped all the same.
    is_box = len(re.findall(r"\d+(?:\.\d+)?", ground_truth)) >= 4
    if not spans and not is_box:
        return {"overall": 0.0, "iou": 0.0, "iou_raw": 0.0, "format": 0.0}
    row = {"completions": [completion], "spans": [spans], "id": ["v1"], "task": ["box" if is_box else "grounding"]}
    values = [reward(**row)[0] for reward in rewards]
    raw, bent, form = [0.0, shaped_iou(0.0, **shaping), 0.0] if is_box else values
    overall = sum(reward.weight * value for reward, value in zip(rewards, [raw, bent, form], strict=True))
    return {"overall": overall, "iou": bent if shaped else raw, "iou_raw": raw, "format": form}


def score(reward, completion, kwargs):
    """Our value for one recorded row; ValueError for a reference function that TempSamp-R1 does not have."""
    match reward:
        case "compute_score" | "compute_score_shaped":
            return compute_score(completion or "", kwargs["ground_truth"] or "", kwargs.get("env", {}))
        case "format_loose" | "format_strict":
            strict = reward == "format_strict"
            [found] = bind({"span_format": Spec(1.0, {"strict": strict})}, ["id"])
            return found(completions=[completion])[0]
        case "transform_rewards":
            return shaped_iou(kwargs["iou"], tau=kwargs["threshold"], a2=kwargs["alpha"])
        case "build_gt_response":
            spans = grammar("tempsamp_r1").parse(kwargs["ground_truth"] or "")
            return expert_completion(spans, "tempsamp_r1") if spans else None
        case "gt_reward_control":
            scale, cap = kwargs["GTPO_GT_REWARD_SCALE"], kwargs["GTPO_GT_REWARD_CAP"]
            return controlled_reward(kwargs["overall"], scale=1.0 if scale is None else scale, cap=cap)
        case "grpo_advantage":
            return group_advantages(kwargs["rewards"], eps=kwargs["eps"])
        case "paper_advantage_anchoring":
            on_policy, off_policy = anchored_advantages(kwargs["on_policy_rewards"], anchor=kwargs["lambda_off"])
            return {"on_policy": on_policy, "off_policy": off_policy}
        case "eval_extract_and_iou":
            rules = protocol("tempsamp_r1")
            spans = grammar(rules.grammar).parse(completion)
            # An answer that cannot be read is a span behind the video there, which is not rounded.
            behind = [kwargs["duration"] + 10, kwargs["duration"] + 20]
            pred = [round(time) for time in spans[0]] if spans else behind
            return {"spans": spans, "pred": pred, "iou": answer_iou(spans, [tuple(kwargs["gt_span"])], rules)}
    raise ValueError(f"TempSamp-R1 has no recorded reward called {reward!r}")
