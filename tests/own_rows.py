"""Recipes about rows of one's own, which a test writes beside them, and such rows."""

import json
from pathlib import Path
from typing import Any

RECIPE = """
model: some/model
data:
  own: {reader: jsonl, annotations: own.jsonl, videos: videos}
prompt: "{video}When is {query}?"
grammar: to
evaluation: {data: own}
stages:
  cold_start:
    kind: sft
    data: own
    completion: "{start:.0f} to {end:.0f}"
    learning_rate: 1.0e-4
    lr_scheduler_type: constant
    per_device_train_batch_size: 2
"""

# What a GRPO stage has to state besides its data and rewards, and the sizes of its groups and batches.
OBJECTIVE = """\
    kind: grpo
    beta: 0.0
    loss_type: dapo
    scale_rewards: none
    epsilon: 0.2
    num_iterations: 1
    temperature: 1.0
    max_completion_length: 8
    learning_rate: 1.0e-4
    lr_scheduler_type: constant
"""


def row(name: str, video: str = "a.mp4", **columns: Any) -> dict[str, Any]:
    """A row about a video of 10 s."""
    return {"id": name, "video": video, "duration": 10.0, "query": "a dog", "spans": [[1.0, 3.0]], **columns}


def write(*rows: dict[str, Any], name: str = "own") -> None:
    """The data `name` of a recipe, in the working directory."""
    Path(f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
