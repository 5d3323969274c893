"""`rlvtg export`: a folder out of a run that answers as the trainer did, with a card; nothing leaves unasked."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import GenerationConfig

from rlvtg.cli import main
from rlvtg.export_check import check_export
from rlvtg.export_run import Exported, export_run
from rlvtg.model.family import family
from rlvtg.model.load import load_config
from rlvtg.model_card import model_card
from rlvtg.recipe import GrpoStage, Lora, Recipe, RewardSpec, Source, written
from tests.small_run import Run, small_run

PROCESSOR = {"chat_template.jinja", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
OTHERS = PROCESSOR | {"README.md", "generation_config.json"}
MODEL = OTHERS | {"config.json", "model.safetensors"}
ADAPTER = OTHERS | {"adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Run:
    made = small_run(tmp_path_factory)
    monkeypatch.chdir(made.place)
    return made


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = load_file(one), load_file(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "place", "files"),
    [
        ([], "rl-merged", MODEL),
        (["--kind", "adapter"], "rl-adapter", ADAPTER),
        (["--stage", "cold_start", "--output", "out/mine"], "out/mine", MODEL),
    ],
)
def test_what_is_exported_gives_the_answers_of_the_runs_evaluation(
    run: Run, argv: list[str], place: str, files: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "runs/tiny", *argv, "--check", "--rows", "6"]) == 0
    folder, found = capsys.readouterr().out.splitlines()
    assert folder == (place if "/" in place else f"runs/tiny/export/{place}") and names(Path(folder)) == files
    assert found.startswith(f"{folder}: 6 of 6 greedy answers are the trainer's to the letter (float32, plain transf")


@pytest.mark.slow
def test_an_export_that_answers_otherwise_is_told_with_the_first_difference(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.folder / "evaluation/cold_start", tmp_path / "run/evaluation/rl")
    for name in ("recipe.yaml", "videos.jsonl"):
        shutil.copy(run.folder / name, tmp_path / "run")
    exported = export_run(run.folder, output=tmp_path / "out")
    text, is_same = check_export(replace(exported, run=tmp_path / "run"), 6)
    assert not is_same
    assert " differ; the first is row " in text and "\n  trainer:  '" in text and "\n  exported: '" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint", "kind", "file", "same_as"),
    [
        ("cold_start/checkpoint-3", "merged", "model", "cold_start/merged/model"),
        ("rl/checkpoint-2", "merged", "model", "rl/merged/model"),
        ("rl/checkpoint-2", "adapter", "adapter_model", "rl/adapter/adapter_model"),
    ],
)
def test_a_checkpoint_is_exported_without_what_is_the_trainers(
    run: Run, tmp_path: Path, checkpoint: str, kind: str, file: str, same_as: str
) -> None:
    exported = export_run(run.folder, checkpoint=checkpoint, kind=kind, output=tmp_path / "out")
    assert exported == Exported(tmp_path / "out", kind, run.folder, checkpoint.split("/")[0], exported.recipe)
    assert names(exported.folder) == (MODEL if kind == "merged" else ADAPTER)
    assert same_weights(exported.folder / f"{file}.safetensors", run.folder / f"{same_as}.safetensors")
    assert "These weights have not been evaluated." in (exported.folder / "README.md").read_text()


@pytest.mark.slow
def test_the_generation_config_of_an_export_is_greedy_and_forbids_vision_tokens(run: Run, tmp_path: Path) -> None:
    folders = [run.folder / "rl" / kind for kind in ("adapter", "merged")]
    folders.append(export_run(run.folder, checkpoint="rl/checkpoint-1", kind="adapter", output=tmp_path / "out").folder)
    for folder in folders:
        config = GenerationConfig.from_pretrained(folder)
        vision = family(load_config(run.folder / "rl/merged")).vision_token_ids
        assert (config.do_sample, config.suppress_tokens) == (False, sorted(set(vision)))
        assert (config.eos_token_id, config.pad_token_id) == (2, 0)


@pytest.mark.slow
def test_a_card_tells_recipe_data_rewards_protocol_and_numbers_and_no_folder(run: Run) -> None:
    for kind in ("adapter", "merged"):
        text = (run.folder / "rl" / kind / "README.md").read_text()
        head = yaml.safe_load(text.split("---\n")[1])
        assert head["library_name"] == {"adapter": "peft", "merged": "transformers"}[kind]
        assert {"video-temporal-grounding", "grpo", "lora"} <= set(head["tags"]) and "base_model" not in head
        for label in ("before", "cold_start", "rl"):
            metrics = json.loads((run.folder / f"evaluation/{label}/metrics.json").read_text())
            assert f"| {label} | {metrics['mIoU']:.3f} |" in text and f"| {metrics['n']} |\n" in text
        for part in (
            "**A tiny made model**", "| `letters` | 1 |", "| `asked` | 0 (logged only) |", "LoRA (r 8, alpha 64)",
            "Protocol `rlvtg`", "6 queries of `test.json`; greedy decoding, at most 16 tokens; float32",
            "Time is told by a stamp in the text before each pair of frames (`{:02.0f}`)", "transformers 5.3 to 5.23",
            "num_generations: 8",
        ):  # fmt: skip
            assert part in text, part
        assert "data/small" not in text and "runs/" not in text and str(run.place) not in text


def test_a_card_for_a_model_of_the_hub_names_it_and_how_to_serve_the_adapter() -> None:
    source = Source(annotations="/data/people/alice/charades_train.txt", videos="/data/people/alice/videos")
    stage = GrpoStage(
        "grpo", "rl", rewards={"/data/people/alice/mine.py:early": RewardSpec(args={"by": 1.5})}, num_generations=8,
        learning_rate=1e-6, lr_scheduler_type="cosine", per_device_train_batch_size=8, beta=0.04, loss_type="grpo",
        scale_rewards="group", epsilon=0.2, num_iterations=1, temperature=1.0, max_completion_length=200,
        lora=Lora(r=64), freeze=["visual"],
    )  # fmt: skip
    recipe = Recipe(
        name="mine", model="Qwen/Qwen2.5-VL-7B-Instruct", data={"rl": source, "test": source},
        prompt="{video}When: {query}", grammar="to", stages={"rl": stage}, cache_dir="/data/people/alice/cache",
    )  # fmt: skip
    text = model_card(recipe, "rl", "adapter", {}, base=recipe.model, rank=64)
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["base_model"], head["base_model_relation"]) == ("Qwen/Qwen2.5-VL-7B-Instruct", "adapter")
    assert "alice" not in text and "| `mine.py:early` | 1 | by 1.5 | all |" in text
    assert "vllm serve Qwen/Qwen2.5-VL-7B-Instruct --enable-lora --max-lora-rank 64 --lora-modules" in text
    assert "LoRA (r 64, alpha 128) but `visual`" in text and "**A tiny made model**" not in text
    assert "by the temporal rotary positions alone" in text
    joined = model_card(recipe, "rl", "adapter", {}, base=recipe.model, rank=384)
    assert "--max-lora-rank 512 --lora-modules" in joined
    too_wide = model_card(recipe, "rl", "adapter", {}, base=recipe.model, rank=640)
    assert "vLLM takes adapters of ranks up to 512, and this one has 640" in too_wide and "vllm serve" not in too_wide
    own = model_card(recipe, "rl", "adapter", {}, base="/data/people/alice/sft/merged", rank=64)
    assert "vllm serve BASE --enable-lora" in own and "a folder of where it was trained" in own and "alice" not in own
    assert "base_model:" not in own and "A LoRA adapter for a model trained from [Qwen/Qwen2.5-VL-7B" in own


@pytest.mark.slow
def test_a_run_is_exported_where_its_data_is_not_any_more(run: Run, tmp_path: Path) -> None:
    for name in ("recipe.yaml", "rl/merged", "rl/done.json", "evaluation/rl/metrics.json"):
        source, target = run.folder / name, tmp_path / "moved" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    recipe = written(tmp_path / "moved/recipe.yaml")
    assert recipe.name == "tiny" and recipe.stages["rl"].lora == Lora(r=8, lora_alpha=64)
    exported = export_run(tmp_path / "moved")
    assert same_weights(exported.folder / "model.safetensors", run.folder / "rl/merged/model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere"], "nowhere is not the folder of a run: it has no recipe.yaml"),
        (["runs/tiny", "--stage", "sft"], "--stage: got 'sft', allowed: cold_start, rl"),
        (["runs/tiny", "--stage", "cold_start", "--kind", "adapter"], "--kind: got adapter, but runs/tiny/cold_start"),
        (["runs/tiny", "--checkpoint", "rl/checkpoint-7"], "runs/tiny has no rl/checkpoint-7; there is cold_start/che"),
        (["runs/tiny", "--checkpoint", "../tiny/rl/checkpoint-2"], "runs/tiny has no ../tiny/rl/checkpoint-2"),
        (["runs/tiny", "--output", "runs/tiny"], "--output: runs/tiny is there already"),
        (["runs/tiny", "--kind", "adapter", "--push", "me/mine"], "--push: the adapter's base model runs/tiny/cold_st"),
        (["runs/tiny", "--push", "me/mine"], "--push: me/mine: "),  # the tests are offline
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    run: Run, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *argv]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ") and said in error
