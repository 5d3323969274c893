"""Recorded inputs and outputs of the papers' own code, and which of our functions must equal each.

`tests/data/<method>.jsonl` holds one object per line: method, reward (the reference function's name), completion,
kwargs, value and note. Each `tests/reference_<method>.py` has a `score(reward, completion, kwargs)` of its own, which
works for any row with the method's reward names, recorded here or not.
"""

import importlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:  # imported from elsewhere than pytest, which puts it there itself
    sys.path.insert(0, str(HERE))

METHODS = ("invert4tvg", "museg", "tempsamp_r1", "time_r1", "timelens", "timelens2", "videochat_r1")


def score(method, reward, completion, kwargs):
    """What our function gives where the reference function `reward` of `method` was called with these inputs.

    `completion` is a text, a list of texts for `*_batch`, or None; the value has the shape of the recorded one (a
    number, bool, text, None, list or dict).
    """
    if method not in METHODS:
        raise ValueError(f"got method {method!r}, want one of {', '.join(METHODS)}")
    return importlib.import_module(f"reference_{method}").score(reward, completion, kwargs)


def cases(method, *notes):
    """The recorded rows of a method whose note is one of `notes` ("", "defect", "reconstruction")."""
    lines = (HERE / "data" / f"{method}.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    return [row for row in rows if row["note"] in notes]
