"""Rotary frequencies are in float32 in every prepared model, whatever the precision and whoever loads it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlvtg.model.load import prepare
from rlvtg.model.tiny import make, tiny_model, tiny_processor
from rlvtg.recipe import FAMILIES
from tests.machines import environment, launcher

PROGRAM = """
import rlvtg
import deepspeed
import torch
from trl import SFTConfig

from rlvtg.model.load import load_model
from rlvtg.processes import join
from rlvtg.recipe import Recipe

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # takes a compiler a minute
join(Recipe(name="test", model="model", use_cpu=True, bf16=True))
kept = SFTConfig(output_dir="out", bf16=True, use_cpu=True, per_device_train_batch_size=1, report_to=[])
model = load_model("model")
found = {name: value for name, value in model.named_buffers() if "inv_freq" in name}
torch.save({"dtype": model.dtype, "found": found}, "found.pt")
"""


def frequencies(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.named_buffers() if "inv_freq" in name}


@pytest.mark.parametrize("family", FAMILIES)
def test_frequencies_that_were_rounded_are_made_anew(family: str) -> None:
    tokenizer = tiny_processor(family).tokenizer
    exact = frequencies(tiny_model(tokenizer, family=family))
    model = tiny_model(tokenizer, family=family).to(torch.bfloat16)
    assert any((value != exact[name]).any() for name, value in frequencies(model).items())
    prepare(model)
    found = frequencies(model)
    assert found.keys() == exact.keys()
    assert all(value.dtype == torch.float32 and torch.equal(value, exact[name]) for name, value in found.items())


@pytest.mark.slow
def test_a_model_that_zero3_loads_in_bf16_has_exact_frequencies(tmp_path: Path) -> None:
    make(tmp_path / "model")
    (tmp_path / "load.py").write_text(PROGRAM)
    command = [sys.executable, *launcher("zero3"), "--num_processes", "1", "load.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    told = torch.load(tmp_path / "found.pt")
    assert told["dtype"] == torch.bfloat16
    exact = frequencies(tiny_model(tiny_processor().tokenizer))
    assert told["found"].keys() == exact.keys()
    assert all(torch.equal(value, exact[name]) for name, value in told["found"].items())
