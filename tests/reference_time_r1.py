"""Which of our functions stands for each recorded function of Time-R1 and TimeZero (arXiv 2503.13377)."""

from dataclasses import dataclass, field

from rlvtg.data.difficulty import gaussian_weight, in_window
from rlvtg.evaluation.protocol import answer_iou, protocol, summary
from rlvtg.reward import bind, find
from rlvtg.text.grammar import grammar
from rlvtg.text.option import last_bracketed_letter
from rlvtg.text.span import timestamp_iou
from rlvtg.training.advantage import group_advantages

METRICS = ("timestep_pair", "think_length", "keyword_usage", "paragraph_structure")
GRAMMARS = {
    "eval_extract_answer": "time_r1_eval",
    "timezero_eval_parse": "timezero_eval",
    "filter_extract_answer_force": "time_r1_force",
}


@dataclass
class Spec:
    """One reward of a recipe."""

    weight: float = 1.0
    args: dict = field(default_factory=dict)
    tasks: list[str] | None = None


def score(reward, completion, kwargs):
    """What our function gives where Time-R1's `reward` was called with these inputs."""
    if reward == "iou":
        return find("tiou")([completion], [[kwargs["solution"]]])[0]
    if reward == "iou_v2":
        return timestamp_tiou(completion, kwargs["solution"], kwargs.get("durations"))
    if reward == "iou_batch":
        return find("tiou")(completion, [[span] for span in kwargs["solution"]])
    if reward == "iou_v2_batch":
        durations = kwargs.get("durations") or [None] * len(completion)
        return list(map(timestamp_tiou, completion, kwargs["solution"], durations))
    if reward == "format":
        return find("think_format")([completion])[0]
    if reward == "total_iou_v2_plus_format":
        return score("iou_v2", completion, kwargs) + score("format", completion, kwargs)
    if reward.removeprefix("metric_reward_") in METRICS:
        return find(reward.removeprefix("metric_reward_"))([completion])[0]
    if reward == "mqa_answer":
        spec = Spec(args={"letter": "videochat_r1"}, tasks=["mqa"])
        (bound,) = bind({"option_accuracy": spec}, ["answer", "task"])
        return bound(completions=[completion], answer=[kwargs["solution"]], task=[kwargs["task_type"]])[0]
    if reward in GRAMMARS:
        spans = grammar(GRAMMARS[reward]).parse(completion)
        return list(spans[0]) if spans else [None, None]
    if reward == "eval_extract_answer_mcq":
        letter = last_bracketed_letter(completion)
        return None if letter is None else ord(letter) - ord("A")
    if reward in ("eval_iou", "difficulty_score"):
        predicted = [] if None in kwargs["pred"] else [tuple(kwargs["pred"])]
        iou = answer_iou(predicted, [tuple(kwargs["target"])], protocol("time_r1"))
        return 100 * iou if reward == "difficulty_score" else iou
    if reward == "eval_calc_score":
        metrics = summary(kwargs["ious"], protocol("time_r1"))
        scores = {name.removeprefix("R1@"): 100 * share for name, share in metrics.items()}
        return scores | {"avg": sum(scores.values()) / len(scores)}
    if reward == "grpo_advantage":
        size = kwargs.get("num_generations", len(kwargs["rewards"]))
        groups = [kwargs["rewards"][start : start + size] for start in range(0, len(kwargs["rewards"]), size)]
        return [advantage for group in groups for advantage in group_advantages(group)]
    if reward == "data_gaussian_weight_unnormalised":
        return gaussian_weight(kwargs["difficulty"] / 100, kwargs.get("center", 0.3), kwargs.get("std_dev", 0.2))
    if reward == "data_filter_0070_keep":
        return in_window(kwargs["difficulty"] / 100)
    raise ValueError(f"Time-R1 has no recorded function {reward!r}")


def timestamp_tiou(completion, span, duration):
    """The reward; for a video without a length, which it refuses by name, the value under it, which is 0.0."""
    if duration is not None and duration > 0:
        return find("timestamp_tiou")([completion], [[span]], [duration])[0]
    predicted = grammar("to").parse(completion)
    return timestamp_iou(predicted[0], tuple(span), 0.0) if predicted else 0.0
