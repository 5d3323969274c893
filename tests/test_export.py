"""What a stage exports is loaded by PEFT and transformers alone and answers as the trainer's model did."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftConfig, PeftModel
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from rlvtg.export import export
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_config, load_model, load_processor
from rlvtg.model.tiny import make
from rlvtg.recipe import GrpoStage, Lora, Recipe, RewardSpec, SftStage
from rlvtg.reward import bind
from rlvtg.rollout.hf import rollout
from rlvtg.training.grpo import grpo_trainer
from rlvtg.training.setup import generating
from rlvtg.training.sft import sft_trainer
from tests.tiny_qwen import OTHERS, QWEN2_5, SHOWN, row, video_settings, write_video

ROOT = Path(__file__).resolve().parent.parent
LORA = Lora(r=8, lora_alpha=32)
SIZES = {"learning_rate": 2e-2, "lr_scheduler_type": "constant", "per_device_train_batch_size": 8, "max_steps": 2}
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=10, pad_token_id=0, eos_token_id=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of an untrained model, and rows about two videos."""
    return a_base(tmp_path_factory.mktemp("base"))


def a_base(folder, family=QWEN2_5):
    make(folder / "model", family=family)
    videos = [write_video(folder / f"{name}.mp4", seconds=4 + 2 * k, seed=k) for k, name in enumerate("ab")]
    rows = [row(video, query) for video in videos for query in ("a red circle", "when is it blue")]
    return folder / "model", rows


def an_encoder(model):
    kind = family(load_config(model))
    return Encoder(load_processor(model), kind, video_settings(1.0, **SHOWN[kind.name]))


def trained(base, tmp_path, monkeypatch, kind, **changes):
    """A trainer that has taken two large steps."""
    model, rows = base
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def letters(completions, **_):\n"
        "    return [float(sum(map(str.isalpha, c[0]['content']))) for c in completions]\n"
    )
    recipe = Recipe(name="test", model=str(model), bf16=False, use_cpu=True, report_to=[], grammar="to")
    if kind == "sft":
        answers = ["<answer>02 to 05</answer>", "<answer>11 to 12</answer>"] * 2
        rows = [
            {**one, "completion": [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]}
            for one, answer in zip(rows, answers, strict=True)
        ]
        stage = SftStage(kind="sft", data="cold_start", **(SIZES | changes))
        trainer = sft_trainer(recipe, stage, rows, str(model), an_encoder(model), str(tmp_path / "out"))
    else:
        stage = GrpoStage(
            kind="grpo", data="rl", rewards={"mine.py:letters": RewardSpec()}, num_generations=4,
            beta=0.0, loss_type="grpo", scale_rewards="group", epsilon=0.2, num_iterations=1, temperature=1.0,
            max_completion_length=8, **(SIZES | changes),
        )  # fmt: skip
        rewards = bind(stage.rewards, rows[0].keys())
        trainer = grpo_trainer(recipe, stage, rows, rewards, str(model), an_encoder(model), str(tmp_path / "out"))
    trainer.train()
    return trainer


def plainly(model, inputs):
    """Greedy tokens from transformers' own `generate`, which is given ids, positions and pixels."""
    made = []
    for one in inputs:
        with torch.no_grad():
            sequence = model.generate(
                input_ids=one.input_ids[None],
                attention_mask=torch.ones_like(one.input_ids)[None],
                position_ids=one.position_ids[:, None],
                pixel_values_videos=one.video.pixel_values,
                video_grid_thw=one.video.grids,
                generation_config=GREEDY,
            )
        tokens = sequence[0, len(one.input_ids) :].tolist()
        made.append(tokens[: tokens.index(2) + 1] if 2 in tokens else tokens)
    return made


def next_logits(model, one):
    """Logits of the first completion token, without the vision tokens, which only the trainer's model forbids."""
    with torch.no_grad():
        logits = model(
            input_ids=one.input_ids[None],
            position_ids=one.position_ids[:, None],
            pixel_values_videos=one.video.pixel_values,
            video_grid_thw=one.video.grids,
        ).logits[0, -1]
    logits[list(family(model.config).vision_token_ids)] = 0
    return logits


def plain_model(folder):
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("sft", {"lora": LORA}),
        ("sft", {"lora": Lora(r=4, target_modules="all-linear"), "freeze": ["visual.blocks"]}),
        ("sft", {"learning_rate": 3e-3}),
        ("grpo", {"lora": LORA}),
        ("grpo", {"learning_rate": 3e-3, "freeze": ["visual"]}),
    ],
    ids=["sft lora", "sft lora everywhere", "sft full", "grpo lora", "grpo full"],
)
def test_an_export_gives_the_greedy_tokens_of_the_trainers_model(base, tmp_path, monkeypatch, kind, changes):
    trainer = trained(base, tmp_path, monkeypatch, kind, **changes)
    model_folder, rows = base
    encoder = an_encoder(model_folder)
    inputs = [encoder(one) for one in rows]
    untrained = rollout(load_model(model_folder), inputs, GREEDY)
    kinds = ["adapter", "merged"] if changes.get("lora") else ["merged"]
    with generating(trainer) as model:
        expected = rollout(model, inputs, GREEDY)
        model.eval()
        logits = next_logits(model, inputs[0])
        written = export(model, encoder.processor, tmp_path / "stage", kinds)
    assert expected != untrained
    assert written == {each: tmp_path / "stage" / each for each in kinds}
    merged = plain_model(written["merged"])
    assert plainly(merged, inputs) == expected
    assert (next_logits(merged, inputs[0]) - logits).abs().max() < 1e-4
    assert (next_logits(plain_model(model_folder), inputs[0]) - logits).abs().max() > 1e-2
    if changes.get("lora"):
        adapted = PeftModel.from_pretrained(plain_model(model_folder), written["adapter"]).eval()
        assert plainly(adapted, inputs) == expected
        assert (next_logits(adapted, inputs[0]) - logits).abs().max() < 1e-4
        assert PeftConfig.from_pretrained(written["adapter"]).base_model_name_or_path == str(model_folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_so_it_does_in_other_families(tmp_path, monkeypatch, kind):
    base = a_base(tmp_path, kind)
    test_an_export_gives_the_greedy_tokens_of_the_trainers_model(base, tmp_path, monkeypatch, "grpo", {"lora": LORA})


def test_a_merged_model_has_the_keys_types_and_files_of_the_model_that_it_was_trained_from(base, tmp_path, monkeypatch):
    trainer = trained(base, tmp_path, monkeypatch, "sft", lora=LORA)
    with generating(trainer) as model:
        written = export(model, trainer.processing_class, tmp_path / "stage", ["adapter", "merged"])

    def stored(folder):
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            return {key: (file.get_slice(key).get_dtype(), file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118

    assert stored(written["merged"]) == stored(base[0])
    assert {dtype for dtype, _ in stored(written["merged"]).values()} == {"F32"}
    names = {file.name for file in base[0].iterdir()}
    assert {file.name for file in written["merged"].iterdir()} == names
    for part in ("text_config", "vision_config"):
        config, before = (
            json.loads((folder / "config.json").read_text())[part] for folder in (written["merged"], base[0])
        )
        assert config == {**before, "dtype": "float32"}


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_answers_as_the_trainers_model_did_with_the_adapter_and_with_the_merged_model(base, tmp_path, monkeypatch):
    """The adapter is that of two stages, for the model that the first began with."""
    model_folder, rows = base
    before, half = tmp_path / "before", Lora(r=4, lora_alpha=16)
    before.mkdir()
    trainer = trained(base, before, monkeypatch, "sft", lora=replace(half, target_modules=["q_proj", "up_proj"]))
    with generating(trainer) as model:
        export(model, trainer.processing_class, before, ["adapter", "merged"])
    (before / "done.json").write_text("{}")
    trainer = trained((before / "merged", rows), tmp_path, monkeypatch, "grpo", lora=half)
    encoder = an_encoder(model_folder)
    inputs = [encoder(one) for one in rows]
    with generating(trainer) as model:
        expected = rollout(model, inputs, GREEDY)
        written = export(model, encoder.processor, tmp_path / "stage", ["adapter", "merged"])
    config = PeftConfig.from_pretrained(written["adapter"])
    assert (config.base_model_name_or_path, config.r) == (str(model_folder), 8)
    prompts = []
    for number, (one, made) in enumerate(zip(rows, inputs, strict=True)):
        clip, ids = encoder.clip(one), made.input_ids.tolist()
        np.save(tmp_path / f"{number}.npy", clip.frames)
        pad, first = encoder.family.video_token_id, ids.index(encoder.family.video_token_id)
        once = [*ids[:first], pad, *(token for token in ids[first:] if token != pad)]
        prompts.append({"token_ids": once, "frames": str(tmp_path / f"{number}.npy"), "fps": clip.fps})
    engines = [
        {"model": str(model_folder), "adapter": str(written["adapter"])},
        {"model": str(written["merged"])},
    ]
    task = {"engines": engines, "prompts": prompts, "forbidden": list(encoder.family.vision_token_ids)}
    (tmp_path / "task.json").write_text(json.dumps(task))
    command = [sys.executable, "-m", "tests.vllm_plain", str(tmp_path / "task.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    with_adapter, merged = json.loads((tmp_path / "answers.json").read_text())
    assert with_adapter == merged == expected
    for folder in (model_folder, before / "merged"):
        assert expected != rollout(load_model(folder), inputs, GREEDY)


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_the_processor_comes_with_an_export(base, tmp_path, monkeypatch, kind):
    trainer = trained(base, tmp_path, monkeypatch, "sft", lora=LORA)
    with generating(trainer) as model:
        written = export(model, trainer.processing_class, tmp_path / "stage", [kind])
    assert list(written) == [kind]
    loaded, before = AutoProcessor.from_pretrained(written[kind]), AutoProcessor.from_pretrained(base[0])
    prompt = base[1][0]["prompt"]
    for processor in (loaded, before):
        text = processor.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        assert text == "<|im_start|>user\n<|video_pad|>a red circle<|im_end|>\n<|im_start|>assistant\n"
    assert loaded.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    assert loaded.video_processor.to_dict() == before.video_processor.to_dict()


def test_an_adapter_that_was_not_trained_cannot_be_exported(base, tmp_path):
    model = load_model(base[0])
    with pytest.raises(
        ValueError, match="adapter was asked for, but the stage trained no LoRA adapter; allowed: merged"
    ):
        export(model, load_processor(base[0]), tmp_path / "stage", ["merged", "adapter"])
    assert not (tmp_path / "stage").exists()
