"""One of two processes that share a server: `torchrun tests/two_askers.py URL PLACE`."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from rlvtg.rollout.client import ServerError, connect
from rlvtg.rollout.engine import Request
from tests.local_engine import FACTS

SAMPLING = {"n": 2, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 4, "stop_token_ids": [2], "seed": 1}


def main(url: str, place: Path) -> None:
    """Ask for two prompts in the first process and one in the second, and write what this process got."""
    rank = PartialState(cpu=True).process_index
    engine = connect(url, FACTS, timeout=5)
    drawn = []

    def weights():
        for name in ("a", "b.c"):
            drawn.append(name)
            yield name, torch.ones(2) * (rank + 1)

    engine.load(weights())
    video = np.full((2, 28, 28, 3), rank, np.uint8)
    names = [["a", "b"], ["c"]][rank]
    requests = [Request([10 * (rank + 1) + k], [(video, {})], name) for k, name in enumerate(names)]
    found = engine.generate(requests, **SAMPLING)
    try:
        engine.generate([Request([1], [(video.astype(np.float32), {})])], **SAMPLING)
    except ServerError as error:
        said = str(error)
    told = {"first": [group[0].token_ids[0] for group in found], "drawn": len(drawn), "error": said}
    (place / f"{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
