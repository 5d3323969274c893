"""The script that is to show what a GPU does, run on the CPU with a tiny shape: the same code, no claim about speed."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from rlvtg.model.family import family

LINE = {"way": "part by part", "dtype": "bfloat16", "difference": 1.0, "tolerance": 0.03}
DEVICE = {"name": "NVIDIA H100 80GB HBM3", "peak_tflops": 989.0, "memory_gib": 79.6, "product_tflops": 700.0}
STEP = {
    "share_prefix": True, "prompt": 2026, "group": 8, "completion": 256.0, "step_seconds": 4.0, "rollout_seconds": 3.0,
    "update_seconds": 1.0, "rollout_tokens_per_second": 683.0, "update_tokens_per_second": 18256.0,
    "step_tokens_per_second": 4564.0, "update_mfu": 0.31, "step_mfu": 0.08, "peak_gib": 66.25,
}  # fmt: skip


@pytest.mark.slow
def test_every_part_runs_and_keeps_its_tolerances(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # the script sets it; here it is taken back
    kept, page = tmp_path / "gpu.json", tmp_path / "gpu.md"
    asked = ["--shape", "tiny", "--device", "cpu", "--steps", "1", "--json", str(kept), "--page", str(page)]
    assert gpu.main(asked) == 0
    found = json.loads(kept.read_text())
    assert [line["way"] for line in found["attention"]] == ["part by part"] * 2
    assert len(found["parity"]) == 5 and found["parity"][0]["gradients"] < 1e-5
    assert {line["path"] for line in found["doctor"]} >= {"policy", "shared prefix", "rollout", "sft", "evaluation"}
    shared, plain = found["train"]
    assert shared["update_tflop"] < plain["update_tflop"] and shared["rollout_tflop"] == plain["rollout_tflop"]
    assert shared["difference"] < 0.3 and plain["difference"] is None
    for line in (shared, plain):
        assert len(line["losses"]) == 2 and min(line["gradient_norms"]) > 0
        assert line["step_seconds"] > line["rollout_seconds"] > 0
        assert line["update_mfu"] is line["step_mfu"] is line["peak_gib"] is None
    assert page.read_text() in capsys.readouterr().out
    assert "on: **CPU**" in page.read_text() and "Every tolerance was kept." in page.read_text()


def test_a_page_of_a_gpu_names_it_and_says_what_is_wrong(tmp_path: Path) -> None:
    found = {"shape": "3b", "device": DEVICE | {"versions": {"torch": "2.13.0"}}, "attention": [LINE],
             "train": [STEP, {"share_prefix": False, "fault": "does not fit: CUDA out of memory."}]}  # fmt: skip
    kept, page = tmp_path / "gpu.json", tmp_path / "page.md"
    kept.write_text(json.dumps(found))
    assert gpu.main(["--render", str(kept), "--page", str(page)]) == 1
    text = page.read_text()
    assert "**NVIDIA H100 80GB HBM3**, 80 GiB; torch 2.13.0." in text and "reaches 700 TFLOP/s" in text
    assert "- attention, part by part, bfloat16: 1, tolerance 0.03\n" in text
    assert "- share_prefix False: does not fit: CUDA out of memory.\n" in text
    assert "| 4.00 s | 3.00 s | 1.00 s | 683 | 18256 | 4564 | 31.0% | 8.0% | 66.2 GiB |" in text


def test_an_unknown_device_has_no_peak() -> None:
    assert gpu.peak_of("NVIDIA A100-SXM4-80GB") == 312
    assert gpu.peak_of("NVIDIA H100 80GB HBM3") == gpu.peak_of("NVIDIA H200") == 989
    assert gpu.peak_of("NVIDIA GeForce RTX 4090") is None


def test_the_shape_is_that_of_the_published_model() -> None:
    config = gpu.configured(gpu.SIZES["3b"])
    with torch.device("meta"):
        model = gpu.AutoModelForImageTextToText.from_config(config)
    # Qwen/Qwen2.5-VL-3B-Instruct on the hub: 3.75 billion, of them 0.67 in the vision tower
    assert sum(value.numel() for value in model.parameters()) == 3_754_622_976
    assert config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]
    assert config.vision_config.fullatt_block_indexes == [7, 15, 23, 31]
    assert family(config).tokens_per_second == 2
    assert gpu.SIZES["3b"].shape.layers == config.text_config.num_hidden_layers
