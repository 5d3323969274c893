"""Which of our functions stands for each recorded function of VideoChat-R1 and R1.5 (arXiv 2504.06958, 2509.21100)."""

import json

from rlvtg.reward import find
from rlvtg.text.grammar import grammar


def score(reward, completion, kwargs):
    """What our function gives where VideoChat's `reward` was called with these inputs."""
    if reward == "src_eval.parse_timestamp_output":
        spans = grammar("videochat_r1_eval").parse(completion)
        return list(spans[0]) if spans else [None, None]
    source, _, name = reward.partition(".")
    if reward.startswith("r1.5."):
        source, name = "r1.5", reward.removeprefix("r1.5.").partition("(")[0]
    if (source, name) not in CALLS:
        raise ValueError(f"VideoChat-R1 has no recorded function {reward!r}")
    function, columns, knobs = CALLS[source, name]
    cells = {column: [cell(kwargs)] for column, cell in columns.items()}
    value = find(function)(completions=[completion], **cells, **knobs)[0]
    return IMAGE_GLUE_WEIGHT * value if name == "igqa_iou" else value


IMAGE_GLUE_WEIGHT = 0.2

TIMES = {"spans": lambda kwargs: [kwargs["solution"]]}
GLUE = {"spans": lambda kwargs: kwargs["solution"]["glue"]}
LETTER = {"answer": lambda kwargs: kwargs["solution"]["answer"]}
BOXES = {"answer": lambda kwargs: json.dumps(kwargs["solution"]["answer"])}
BOX = {"answer": lambda kwargs: json.dumps(kwargs["glue"])}

# (file, function) -> our reward, its columns out of the recorded inputs, its knobs.
CALLS = {
    ("grpo_tg", "iou"): ("tiou", TIMES, {"grammar": "to_ordered", "point": 1.0}),
    ("grpo_tg", "format"): ("think_format", {}, {}),
    ("grpo_tasks", "tg_iou"): ("tiou", TIMES, {"point": 1.0}),
    ("grpo_tasks", "tg_format"): ("think_format", {}, {}),
    ("grpo_tasks", "gqa_iou"): ("set_tiou", GLUE, {"empty": 1.0}),
    ("grpo_tasks", "gqa_format"): ("glue_format", {}, {}),
    ("grpo_tasks", "gqa_reward"): ("option_accuracy", LETTER, {"letter": "videochat_r1"}),
    ("grpo_tasks", "tracking_iou"): ("box_iou", BOXES, {}),
    ("grpo_tasks", "tracking_format"): ("box_format", {}, {}),
    ("r1.5", "tg_iou"): (
        "tiou",
        {"spans": lambda kwargs: [kwargs["glue"]]},
        {"grammar": "tuples_few", "union": "true", "point": 1.0},
    ),
    ("r1.5", "format"): ("answer_format", {}, {}),
    ("r1.5", "tg_format"): ("answer_format", {}, {}),
    ("r1.5", "gqa_iou"): ("set_tiou", {"spans": lambda kwargs: kwargs["glue"]}, {"grammar": "glue_few", "empty": 1.0}),
    ("r1.5", "gqa_format"): ("glue_format", {}, {"think": False, "most": 3}),
    ("r1.5", "gqa_reward"): (
        "option_accuracy",
        {"answer": lambda kwargs: kwargs["answer"]},
        {"letter": "videochat_r1"},
    ),
    ("r1.5", "detection_iou"): ("box_iou", BOX, {"untagged": True}),
    ("r1.5", "igqa_iou"): ("box_iou", BOX, {"block": "glue", "untagged": True}),
    ("r1.5", "igqa_format"): ("box_format", {}, {"boxes": 1, "block": "glue", "think": False}),
    ("r1.5", "tracking_iou"): ("box_iou", BOXES, {}),
    ("r1.5", "tracking_format"): ("box_format", {}, {"think": False}),
}
