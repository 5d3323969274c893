"""A real server of the library, over HTTP on loopback, around something that only shows what reaches an engine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

from rlvtg.rollout.engine import Sampled
from rlvtg.rollout.server import Server, Service

FACTS = {"family": "qwen2_5_vl", "text_config.hidden_size": 64}


class Shown:
    """What reached the engine. It says the first token of a prompt n times, and does what a test has it do first."""

    def __init__(self, dtype):
        self.dtype, self.version = dtype, "0"
        self.requests, self.sampling, self.weights = [], [], []
        self.first = lambda: None

    def generate(self, requests, **sampling):
        self.first()
        self.requests.append(requests)
        self.sampling.append(sampling)
        return [
            [Sampled([request.token_ids[0], k], [-0.25, -0.5]) for k in range(sampling["n"])] for request in requests
        ]

    def load_folder(self, folder):
        loaded = {name: value for file in sorted(folder.iterdir()) for name, value in load_file(file).items()}
        self.first()
        self.weights.append(loaded)


@contextmanager
def serving(
    folder, *, host="127.0.0.1", token=None, make=None, dtype=torch.float32, **about
) -> Iterator[SimpleNamespace]:
    """A server on a free port, with the engine that it shows its requests to."""
    engine = Shown(dtype)
    facts = {"model": "a/model", "facts": FACTS}
    service = Service(make or (lambda: engine), facts | about, folder / "weights")
    ready = threading.Event()
    threading.Thread(target=service.run, args=(ready.set,), daemon=True).start()
    with Server(service, host, 0, token) as server:
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        if make is None:
            assert ready.wait(10)
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", port=port, engine=engine, server=server, ready=ready)
        server.shutdown()
