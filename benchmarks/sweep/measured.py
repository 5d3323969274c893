"""What a finished run reached, from its folder: metrics, and the IoUs of each query for paired differences."""

import json
from pathlib import Path
from typing import Any

from rlvtg.evaluation.metrics import ious, read_spans
from rlvtg.evaluation.predictions import Prediction, read_predictions
from rlvtg.evaluation.protocol import protocol
from rlvtg.text.span_set import is_usable, set_iou

KEPT = ("n", "mIoU", "mIoU_low", "mIoU_high", "R1@0.5", "mF1", "parse_failure_rate")


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` has come to its end."""
    return (folder / "metrics.json").exists()


def measured(folder: Path) -> dict[str, Any]:
    """The metrics of the run's one stage, `videos`, `ids` and IoUs of its queries in order, and its rewards.

    `iou` is of the first span, `set_iou` of all spans together with all annotated ones, as the reward `multi_span_tiou`
    has it. `constant` is the mIoU of the best constant answer, which looks at no video. `rewards` are the
    first and the last logged mean of each reward of a GRPO stage.
    """
    [place] = (path.parent for path in folder.glob("evaluation/*/metrics.json"))
    metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
    history = json.loads((folder / place.name / "log_history.json").read_text(encoding="utf-8"))
    together = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    predictions = read_predictions(place / "predictions.jsonl")
    rewards: dict[str, list[float]] = {}
    for entry in history["log"]:
        for key, value in entry.items():
            if key.startswith("rewards/") and key.endswith("/mean"):
                rewards.setdefault(key.split("/")[1], []).append(round(value, 4))
    return {
        **{key: metrics[key] for key in KEPT},
        "constant": next((row["mIoU"] for name, row in together.items() if name.startswith("always ")), None),
        "steps": history["log"][-1]["step"],
        "rewards": {name: [values[0], values[-1]] for name, values in rewards.items()},
        "ids": [prediction["id"] for prediction in predictions],
        "videos": [Path(prediction["video"]).stem for prediction in predictions],
        "iou": [round(iou or 0.0, 6) for iou in ious(predictions, protocol("rlvtg"))],
        "set_iou": [round(_set_iou(prediction), 6) for prediction in predictions],
    }


def _set_iou(prediction: Prediction) -> float:
    predicted = read_spans(prediction, protocol("rlvtg"))
    return set_iou(predicted, [(start, end) for start, end in prediction["spans"]]) if is_usable(predicted) else 0.0
