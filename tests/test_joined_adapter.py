"""Adapters of stages that follow each other become one, for the model that all began with."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from rlvtg.export import adapter_of, base_and_rank, export
from rlvtg.export_run import export_run
from rlvtg.joined_adapter import join
from rlvtg.model import tiny
from rlvtg.model.load import load_model, load_processor
from tests.test_rounds import ROUNDS, go

Q, QV, ALL = ["q_proj"], ["q_proj", "v_proj"], "all-linear"


def a_stage(path: Path | str, folder: Path, kinds: list[str], *, target: list[str] | str, r: int, alpha: int) -> None:
    """What a stage leaves that started from the model at `path`; its adapter does something from the start."""
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules=target, init_lora_weights=False)
    export(get_peft_model(load_model(path), config), load_processor(path), folder, kinds)
    (folder / "done.json").write_text("{}")


def adapted(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """The weights of the model that transformers and PEFT make of the two."""
    return PeftModel.from_pretrained(load_model(base), adapter).merge_and_unload().state_dict()


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize(
    ("targets", "ranks", "alphas"),
    [((QV, QV), (4, 4), (8, 8)), ((Q, QV), (2, 4), (8, 3)), ((ALL, Q, QV), (2, 3, 4), (2, 5, 4))],
    ids=["alike", "other layers, ranks and scales", "three stages"],
)
def test_adapters_of_stages_are_exported_as_one_for_what_the_first_of_them_began_with(
    tmp_path: Path, targets: tuple[list[str] | str, ...], ranks: tuple[int, ...], alphas: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    base = tmp_path / "model"
    tiny.make(str(base), seed=0)
    path = base
    for number, (target, r, alpha) in enumerate(zip(targets, ranks, alphas, strict=True)):
        stage = tmp_path / str(number)
        a_stage(path, stage, ["adapter", "merged"], target=target, r=r, alpha=alpha)
        path = stage / "merged"
        config = json.loads((stage / "adapter/adapter_config.json").read_text())
        rank = sum(ranks[: number + 1])
        assert config["base_model_name_or_path"] == str(base)
        assert (config["r"], config["lora_alpha"]) == ((rank, rank) if number else (r, alpha))
        assert distance(load_model(path).state_dict(), adapted(base, stage / "adapter")) < 1e-5
    assert distance(load_model(base).state_dict(), load_model(path).state_dict()) > 1e-2
    assert base_and_rank(str(path), 5) == (str(base), sum(ranks) + 5)


def test_an_adapter_stays_alone_where_the_stage_before_trained_all_weights_or_left_no_adapter(tmp_path: Path) -> None:
    base = tmp_path / "model"
    tiny.make(str(base), seed=0)
    export(load_model(base), load_processor(base), tmp_path / "full", ["merged"])
    (tmp_path / "full/done.json").write_text("{}")
    a_stage(base, tmp_path / "left_none", ["merged"], target=Q, r=2, alpha=2)
    # merged and adapter, but nothing says that a stage has left the two
    a_stage(base, tmp_path / "somebodys", ["adapter", "merged"], target=Q, r=2, alpha=2)
    (tmp_path / "somebodys/done.json").unlink()
    for before in ("full", "left_none", "somebodys"):
        path = tmp_path / before / "merged"
        assert adapter_of(str(path)) is None and base_and_rank(str(path), 5) == (str(path), 5)
        a_stage(path, tmp_path / "next", ["adapter"], target=QV, r=2, alpha=2)
        config = json.loads((tmp_path / "next/adapter/adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["r"]) == (str(path), 2)
    assert adapter_of("Qwen/Qwen2.5-VL-7B-Instruct") is None


def test_half_precision_adapters_stay_in_half_precision(tmp_path: Path) -> None:
    base = tmp_path / "model"
    tiny.make(str(base), seed=0)
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        config = LoraConfig(r=2, lora_alpha=4, target_modules=Q, init_lora_weights=False)
        get_peft_model(load_model(base).bfloat16(), config, autocast_adapter_dtype=False).save_pretrained(folder)
    join(*folders)
    weights = load_file(folders[1] / "adapter_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert {value.shape[0 if "lora_A" in name else 1] for name, value in weights.items()} == {4}


@pytest.mark.slow
def test_the_adapter_of_rounds_needs_none_of_the_models_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = ("stages.rl.lora={r: 2, lora_alpha: 4}", "stages.rl.learning_rate=1e-2")
    run = go(tmp_path, monkeypatch, *ROUNDS, *lora, "stages.rl.export=[adapter, merged]")
    assert not list(run.glob("rl/round_*/merged"))
    assert [folder.parent.name for folder in run.glob("rl/round_*/adapter")] == ["round_2"]  # checkpoints add to it
    config = json.loads((run / "rl/adapter/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("data/small/model", 6)
    base, merged = Path("data/small/model"), load_model(run / "rl/merged").state_dict()
    assert distance(merged, adapted(base, run / "rl/adapter")) < 1e-5
    assert distance(merged, load_model(base).state_dict()) > 1e-3
    card = (run / "rl/adapter/README.md").read_text()
    assert "--max-lora-rank 8 " in card and "runs/" not in card
    [last] = (run / "rl/round_3").glob("checkpoint-*")
    for checkpoint in (None, str(last.relative_to(run))):
        folders = [
            export_run(run, kind=kind, checkpoint=checkpoint, output=tmp_path / f"{kind}-{checkpoint is None}").folder
            for kind in ("adapter", "merged")
        ]
        assert distance(merged, adapted(base, folders[0])) < 1e-5
        assert distance(merged, load_model(folders[1]).state_dict()) < 1e-5
