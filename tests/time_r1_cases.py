"""The recorded Time-R1 cases of tests/data: what the paper's own reward functions return for given completions."""

import json
from pathlib import Path
from typing import Any

CASES = [json.loads(line) for line in (Path(__file__).parent / "data" / "time_r1.jsonl").read_text().splitlines()]


def cases(*rewards: str, defect: bool = False) -> list[dict[str, Any]]:
    """Cases of the named reference functions: the well-defined ones, or the ones the reference gets wrong."""
    return [c for c in CASES if c["reward"] in rewards and c["note"] == ("defect" if defect else "")]


def as_columns(case: dict[str, Any]) -> dict[str, list[Any]]:
    """A case, single or batched, as the columns that a reward is called with."""
    batched = isinstance(case["completion"], list)
    columns = {"completions": case["completion"]} if batched else {"completions": [case["completion"]]}
    if "solution" in case["kwargs"]:
        solution = case["kwargs"]["solution"] if batched else [case["kwargs"]["solution"]]
        columns["spans"] = [[span] for span in solution]
    if "durations" in case["kwargs"]:
        columns["duration"] = case["kwargs"]["durations"] if batched else [case["kwargs"]["durations"]]
    return columns


def as_values(case: dict[str, Any]) -> list[float]:
    return case["value"] if isinstance(case["value"], list) else [case["value"]]
