"""Targets, labels and a few real steps of TRL's SFTTrainer on video."""

import pytest
import torch

from rlvtg.data.narration import narrate
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder, batch
from rlvtg.model.load import load_config, load_model
from rlvtg.model.tiny import tiny_processor
from rlvtg.recipe import Lora, Recipe, SftStage
from rlvtg.training.sft import collator, sft_trainer, target
from tests.tiny_qwen import plain_log_probabilities, row, save, video_settings

REENTRANT = {"use_reentrant": True}


def message(role, text):
    return {"role": role, "content": [{"type": "text", "text": text}]}


def supervised(video, query="a red circle", answer="<think>a red circle</think><answer>02 to 05</answer>", **columns):
    return row(video, query, completion=[message("assistant", answer)], **columns)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a saved model and two videos."""
    return save(tmp_path_factory.mktemp("saved"), seconds=(4, 8), scale=1.0)


def an_encoder(saved, **settings):
    folder, processor, _ = saved
    return Encoder(processor, family(load_config(folder / "model")), video_settings(**({"fps": 1.0} | settings)))


def a_trainer(saved, tmp_path, rows, encoder=None, **changes):
    folder, _, _ = saved
    stage = SftStage(
        kind="sft",
        data="cold_start",
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        per_device_train_batch_size=2,
        max_steps=2,
    )
    for name, value in changes.items():
        setattr(stage, name, value)
    recipe = Recipe(name="test", model=str(folder / "model"), bf16=False, use_cpu=True, report_to=[], grammar="to")
    encoder = encoder or an_encoder(saved)
    return sft_trainer(recipe, stage, rows, recipe.model, encoder, str(tmp_path / "out"))


# --- targets

PROMPT = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "a red circle"}]}]


@pytest.mark.parametrize("said", ["<think>red</think><answer>02 to 05</answer>", "naïve 模型\n 07 ", ""])
def test_a_target_is_what_the_chat_template_writes_behind_the_generation_prompt(said):
    processor = tiny_processor()
    ids = target([message("assistant", said)], processor)
    prompt = processor.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    whole = processor.apply_chat_template([*PROMPT, message("assistant", said)], tokenize=False)
    assert whole.startswith(prompt)
    behind = whole.removeprefix(prompt).removesuffix("\n")  # the template's line break behind the last turn
    assert behind == said + "<|im_end|>"
    assert ids.tolist() == processor.tokenizer(behind, add_special_tokens=False)["input_ids"]


# --- the collator


def test_telling_changes_nothing_but_the_lines_that_it_adds(saved):
    video = saved[2][1]
    encoder = an_encoder(saved, time="text")
    events = [{"start": 2.0, "end": 5.0, "text": "a red circle"}, {"start": 3.9, "end": 4.1, "text": "a blue circle"}]
    told, plain = encoder(row(video, narration=events)), encoder(row(video, narration=[]))
    assert told.input_ids[told.labels == -100].tolist() == plain.input_ids.tolist()
    assert (plain.labels == -100).all()
    assert told.video is plain.video


def test_training_sees_the_pixels_ids_and_positions_that_rollout_and_evaluation_see(saved, tmp_path):
    rows = [supervised(saved[2][0]), supervised(saved[2][1], "when is it blue", "12")]
    for encoder in (an_encoder(saved, fps=2.0), an_encoder(saved, time="text")):
        trainer = a_trainer(saved, tmp_path, rows, encoder)
        [seen] = trainer.get_train_dataloader()
        order = [0, 1] if seen["labels"][0].tolist().count(-100) < seen["labels"][1].tolist().count(-100) else [1, 0]
        prompts = [an_encoder(saved, **vars(encoder.settings))(rows[k]) for k in order]
        nothing = torch.zeros((2, 0), dtype=torch.long)
        rolled_out = batch(prompts, nothing, nothing, pad_token_id=saved[1].tokenizer.pad_token_id)
        width = rolled_out["input_ids"].shape[1]
        assert torch.equal(seen["input_ids"][:, :width], rolled_out["input_ids"])
        assert torch.equal(seen["attention_mask"][:, :width], rolled_out["attention_mask"])
        assert torch.equal(seen["position_ids"][:, :, :width], rolled_out["position_ids"])
        assert torch.equal(seen["pixel_values_videos"], rolled_out["pixel_values_videos"])
        assert torch.equal(seen["video_grid_thw"], rolled_out["video_grid_thw"])
        assert seen["video_rows"] == rolled_out["video_rows"]
        for index, prompt in enumerate(prompts):
            assert seen["position_ids"][:, index, width].tolist() == [prompt.next_position] * 3
            assert (seen["labels"][index, :width] == -100).all()
            learned = seen["labels"][index] != -100
            assert torch.equal(seen["labels"][index][learned], seen["input_ids"][index][learned])
            said = rows[order[index]]["completion"][0]["content"][0]["text"]
            assert saved[1].decode(seen["labels"][index][learned]) == said + "<|im_end|>"


def test_narration_and_completion_are_learned_in_one_row(saved):
    processor, (_, video) = saved[1], saved[2]
    rows = [supervised(video, "a red circle", "02 to 05"), supervised(video, "a blue one", "06 to 07", spans=[[6, 7]])]
    seen = collator(an_encoder(saved, time="text"))(narrate(rows, share=1.0, seed=0))
    learned = [processor.decode(labels[labels != -100]) for labels in seen["labels"]]
    assert learned == [
        " nothing\n a red circle\n a red circle\n nothing\n02 to 05<|im_end|>",
        " nothing\n nothing\n nothing\n a blue one\n06 to 07<|im_end|>",
    ]


# --- training


def weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize(
    ("changes", "learns", "stays"),
    [
        ({}, ["visual.blocks", "visual.merger", "language_model.layers"], []),
        ({"freeze": ["visual"]}, ["language_model.layers"], ["visual."]),
        (
            {"freeze": ["visual.patch_embed", "visual.blocks"], "gradient_checkpointing": True},
            ["visual.merger", "language_model.layers"],
            ["visual.patch_embed", "visual.blocks"],
        ),
        ({"lora": Lora(r=4, lora_alpha=8)}, ["lora_B"], ["base_layer", "visual.", "embed_tokens"]),
        ({"lora": Lora(r=4, lora_alpha=8), "gradient_checkpointing": True}, ["lora_B"], ["base_layer"]),
        (
            {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1, "gradient_checkpointing": True},
            ["visual.blocks", "language_model.layers"],
            [],
        ),
        (
            {"freeze": ["visual"], "gradient_checkpointing": True, "gradient_checkpointing_kwargs": REENTRANT},
            ["language_model.layers"],
            ["visual."],
        ),
    ],
    ids=["full", "frozen tower and merger", "frozen tower, checkpointing", "lora", "lora, checkpointing",
         "accumulation, checkpointing", "reentrant"],
)  # fmt: skip
def test_it_trains_what_it_should_and_nothing_else(saved, tmp_path, changes, learns, stays):
    trainer = a_trainer(saved, tmp_path, [supervised(video) for video in saved[2]], **changes)
    before = weights(trainer)
    trainer.train()
    moved = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    for part in learns:
        assert any(part in name for name in moved), part
    for part in stays:
        assert not any(part in name for name in moved), part
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert trainer.state.global_step == 2
    assert all(entry["grad_norm"] > 0 and 0 <= entry["mean_token_accuracy"] <= 1 for entry in log)


@pytest.mark.parametrize("target", [None, "all-linear"])
@pytest.mark.parametrize("kwargs", [{"use_reentrant": False}, REENTRANT])
def test_a_tower_runs_backward_under_checkpointing_only_if_its_adapter_learns(saved, tmp_path, target, kwargs):
    lora = Lora(r=4, lora_alpha=8) if target is None else Lora(r=4, lora_alpha=8, target_modules=target)
    trainer = a_trainer(
        saved, tmp_path, [supervised(video) for video in saved[2]], max_steps=1, lora=lora,
        gradient_checkpointing=True, gradient_checkpointing_kwargs=kwargs,
    )  # fmt: skip
    needed = []
    merger = trainer.model.get_base_model().base_model.visual.merger
    merger.register_forward_hook(lambda _, given, made: needed.append(made.requires_grad))
    trainer.train()
    assert needed and set(needed) == {target is not None}


def test_the_loss_is_the_mean_over_the_learned_tokens_of_a_plain_forward_pass(saved, tmp_path):
    rows = [supervised(saved[2][0], answer="02 to 05"), supervised(saved[2][1], "when is it blue", "a blue circle 07")]
    trainer = a_trainer(saved, tmp_path, rows, max_steps=1)
    model, encoder = load_model(saved[0] / "model"), an_encoder(saved)
    trainer.train()
    [loss] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    found = []
    for one in rows:
        prompt = encoder(one)
        ids = target(one["completion"], saved[1])
        found.append(-plain_log_probabilities(model, prompt, ids))
    assert loss == pytest.approx(float(torch.cat(found).mean()), abs=1e-4)


def test_accumulated_micro_batches_take_the_step_of_the_whole_batch(saved, tmp_path):
    rows = [supervised(saved[2][0], answer="02"), supervised(saved[2][1], "when is it blue", "a blue circle 07 to 11")]
    after = []
    for size, steps in ((2, 1), (1, 2)):
        trainer = a_trainer(
            saved, tmp_path, rows, max_steps=1, per_device_train_batch_size=size, gradient_accumulation_steps=steps,
            max_grad_norm=0.0,
        )  # fmt: skip
        trainer.train()
        after.append((trainer.state.log_history[0]["loss"], weights(trainer)))
    (whole_loss, whole), (split_loss, split) = after
    assert split_loss == pytest.approx(whole_loss, abs=1e-5)
    start = dict(load_model(saved[0] / "model").named_parameters())
    for name, value in whole.items():
        # Adam's first step is the sign of the gradient: where gradients cancel out, rounding decides it
        same = (split[name] - value).abs() < 1e-5
        assert same.float().mean() > 0.99, name
    assert any(not torch.equal(whole[name], start[name]) for name in whole)


def test_one_row_is_learned_by_heart(saved, tmp_path):
    trainer = a_trainer(
        saved, tmp_path, [supervised(saved[2][0])], max_steps=25, learning_rate=5e-3, per_device_train_batch_size=1
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] > 4 and losses[-1] < 0.2
    assert trainer.state.log_history[-2]["mean_token_accuracy"] > 0.95
