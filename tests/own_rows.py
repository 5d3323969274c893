"""A recipe about rows of one's own, which a test writes beside it, and such rows."""

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


def row(name: str, video: str = "a.mp4", **columns: Any) -> dict[str, Any]:
    """A row about a video of 10 s."""
    return {"id": name, "video": video, "duration": 10.0, "query": "a dog", "spans": [[1.0, 3.0]], **columns}


def write(*rows: dict[str, Any]) -> None:
    """The data of the recipe, in the working directory."""
    Path("own.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
