"""One thread, no network, no chatter: settled here, before any test file can import torch or a Hugging Face library."""

import os

SETTINGS = {
    # torch and its BLAS read these when they are loaded; more threads than cores makes small models many times slower.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "MPLBACKEND": "Agg",
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)

import gc  # noqa: E402

import pytest  # noqa: E402

import rlvtg  # noqa: E402, F401  (before any test imports torchvision: see rlvtg/cpu_only_torch.py)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: accelerate collects garbage at every start of a training, and is spared all this."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs that name no folder for their clips do not keep them in that of the user, nor find any there."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
