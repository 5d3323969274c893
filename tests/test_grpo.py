"""A few real steps of TRL's trainer on video, in every way that a stage can be set up."""

import importlib
import math
import random
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_config
from rlvtg.recipe import GrpoStage, Lora, Recipe, RewardSpec
from rlvtg.reward import bind
from rlvtg.training.grpo import grpo_trainer, whole_groups
from rlvtg.training.prefix import packed
from rlvtg.tryout import score, summary
from tests.local_judge import by_words, serving
from tests.tiny_qwen import plain_log_probabilities, row, save, video_settings

G = 4
REENTRANT = {"use_reentrant": True}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a saved model and two videos."""
    return save(tmp_path_factory.mktemp("saved"), seconds=(4, 6, 8))


def a_trainer(saved, tmp_path, monkeypatch, rows=None, **changes):
    folder, processor, videos = saved
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def even_length(completions, **_):\n    return [float(len(c[0]['content']) % 2) for c in completions]\n"
    )
    stage = GrpoStage(
        kind="grpo",
        data="rl",
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        per_device_train_batch_size=2 * G,
        max_steps=2,
        rewards={"tiou": RewardSpec(), "mine.py:even_length": RewardSpec()},
        num_generations=G,
        beta=0.0,
        loss_type="grpo",
        scale_rewards="group",
        epsilon=0.2,
        num_iterations=1,
        temperature=1.0,
        max_completion_length=8,
    )
    for name, value in changes.items():
        setattr(stage, name, value)
    recipe = Recipe(name="test", model=str(folder / "model"), bf16=False, use_cpu=True, report_to=[], grammar="to")
    rows = rows or [row(video, query) for video in videos for query in ("a red circle appears", "when is it blue")]
    rewards = bind(stage.rewards, rows[0].keys(), grammar="to")
    encoder = Encoder(processor, family(load_config(recipe.model)), video_settings(1.0))
    return grpo_trainer(recipe, stage, rows, rewards, recipe.model, encoder, str(tmp_path / "out"))


def weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def changed(trainer, before):
    return {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("changes", "learns", "stays"),
    [
        ({}, ["visual.blocks", "visual.merger", "language_model.layers"], []),
        ({"share_prefix": False, "beta": 0.1}, ["visual.blocks", "language_model.layers"], []),
        ({"freeze": ["visual"]}, ["language_model.layers"], ["visual."]),
        (
            {"freeze": ["visual.patch_embed", "visual.blocks"]},
            ["visual.merger", "language_model.layers"],
            ["visual.patch_embed", "visual.blocks"],
        ),
        ({"lora": Lora(r=4, lora_alpha=8)}, ["lora_B"], ["base_layer", "visual.", "lm_head"]),
        ({"lora": Lora(r=4, lora_alpha=8), "gradient_checkpointing": True, "beta": 0.1}, ["lora_B"], ["base_layer"]),
        (
            {"lora": Lora(r=4, target_modules="all-linear"), "freeze": ["visual.blocks"]},
            ["visual.merger.mlp.0.lora_B", "q_proj.lora_B"],
            ["visual.blocks"],
        ),
        ({"beta": 0.1}, ["visual.blocks", "language_model.layers"], []),
        ({"num_iterations": 2}, ["language_model.layers"], []),
        (
            {"gradient_accumulation_steps": 2, "per_device_train_batch_size": G, "gradient_checkpointing": True},
            ["visual.blocks", "language_model.layers"],
            [],
        ),
        (
            {"freeze": ["visual"], "gradient_checkpointing": True, "gradient_checkpointing_kwargs": REENTRANT},
            ["language_model.layers"],
            ["visual."],
        ),
    ],
    ids=[
        "full", "plain path, beta", "frozen tower and merger", "frozen tower", "lora", "lora, checkpointing, beta",
        "lora everywhere but blocks", "beta", "two iterations", "accumulation, checkpointing", "reentrant",
    ],
)  # fmt: skip
def test_it_trains_what_it_should_and_nothing_else(saved, tmp_path, monkeypatch, changes, learns, stays):
    trainer = a_trainer(saved, tmp_path, monkeypatch, **changes)
    before = weights(trainer)
    trainer.train()
    moved = changed(trainer, before)
    for part in learns:
        assert any(part in name for name in moved), part
    for part in stays:
        assert not any(part in name for name in moved), part
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert trainer.state.global_step == 2
    assert all(entry["grad_norm"] > 0 for entry in log)
    assert {"reward", "rewards/tiou/mean", "rewards/even_length/mean", "completions/mean_length"} <= log[0].keys()
    if changes.get("beta"):
        assert log[0]["kl"] == pytest.approx(0, abs=1e-5)  # the reference is where the stage starts
        assert log[1]["kl"] > 1e-6


@pytest.mark.parametrize("share_prefix", [True, False])
def test_every_pass_encodes_each_video_once_and_not_once_per_completion(saved, tmp_path, monkeypatch, share_prefix):
    trainer = a_trainer(
        saved, tmp_path, monkeypatch, beta=0.1, num_iterations=2, max_steps=1, share_prefix=share_prefix
    )
    passes = {"policy": [], "reference": []}
    hooks = [
        model.base_model.visual.register_forward_pre_hook(lambda _, args, name=name: passes[name].append(len(args[0])))
        for name, model in (("policy", trainer.model), ("reference", trainer.ref_model))
    ]
    trainer.train()
    for hook in hooks:
        hook.remove()
    prompts = {id(prompt): prompt for prompt in trainer._buffered_inputs[0]["prompts"]}.values()
    once = sum(len(video.pixel_values) for video in {id(prompt.video): prompt.video for prompt in prompts}.values())
    assert len(prompts) == 2
    # the check of a run's first group, with its prompt shared and then row by row
    check = passes["policy"][2 : 3 + G] if share_prefix else []
    assert check in [[len(prompt.video.pixel_values)] * len(check) for prompt in prompts]
    assert passes["policy"] == [once, once, *check, once]  # rollout, old log-probabilities, policy
    assert passes["reference"] == [once]
    assert trainer.encoder.clips.decodes == len({row["video"] for row in trainer._rows})


def test_micro_batches_hold_whole_groups_after_trl_has_shuffled_them(saved, tmp_path, monkeypatch):
    torch.manual_seed(3)
    trainer = a_trainer(
        saved, tmp_path, monkeypatch, per_device_train_batch_size=G, gradient_accumulation_steps=3, max_steps=1
    )
    trainer.train()
    batches = trainer._buffered_inputs
    assert len(batches) == 3
    for micro_batch in batches:
        assert len({id(prompt) for prompt in micro_batch["prompts"]}) == 1
        assert len(micro_batch["completion_ids"]) == G
        assert abs(float(micro_batch["advantages"].sum())) < 1e-4  # advantages of one group
    assert len({id(micro_batch["prompts"][0]) for micro_batch in batches}) == 3


def test_whole_groups_moves_rows_and_changes_none():
    rng = random.Random(0)
    prompts = [SimpleNamespace(video=object()) for _ in range(4)]
    rows = [(prompt, k) for prompt in range(4) for k in range(3)]
    rng.shuffle(rows)
    shuffled = [
        {
            "prompts": [prompts[prompt] for prompt, _ in part],
            "tokens": torch.tensor([[prompt, k] for prompt, k in part]),
            "num_items_in_batch": torch.tensor(12),
            "absent": None,
        }
        for part in (rows[:6], rows[6:])
    ]
    dealt = whole_groups(shuffled)
    assert [len({id(prompt) for prompt in part["prompts"]}) for part in dealt] == [2, 2]
    for part in dealt:
        assert [prompts[prompt] for prompt, _ in part["tokens"].tolist()] == part["prompts"]
        assert part["num_items_in_batch"] == 12 and part["absent"] is None
    assert sorted(map(tuple, torch.cat([part["tokens"] for part in dealt]).tolist())) == sorted(rows)


def test_groups_about_one_video_come_to_lie_in_one_micro_batch():
    videos = [object(), object()]
    prompts = [SimpleNamespace(video=videos[index % 2]) for index in range(4)]
    parts = [[0, 1, 2], [3, 0, 1], [1, 2, 3], [2, 3, 0]]
    dealt = whole_groups([{"prompts": [prompts[index] for index in part]} for part in parts])
    number = {id(prompt): index for index, prompt in enumerate(prompts)}
    order = [number[id(prompt)] for micro_batch in dealt for prompt in micro_batch["prompts"]]
    assert order == [0, 0, 0, 2, 2, 2, 1, 1, 1, 3, 3, 3]


@pytest.mark.slow
def test_queries_of_one_video_are_drawn_together_and_run_their_video_once(saved, tmp_path, monkeypatch):
    rows = [row(video, query) for query in ("red", "a blue circle") for video in saved[2]]
    trainer = a_trainer(
        saved, tmp_path, monkeypatch, rows=rows, per_device_train_batch_size=2 * G, queries_per_video=2, max_steps=3
    )
    encoded = []
    trainer.model.model.visual.register_forward_pre_hook(
        lambda _, args, kwargs: encoded.append(len(kwargs["grid_thw"] if "grid_thw" in kwargs else args[1])),
        with_kwargs=True,
    )
    seen = []
    plain = trainer._compute_loss

    def noted(model, inputs):
        before = len(encoded)
        loss = plain(model, inputs)
        seen.append(({id(prompt.video) for prompt in inputs["prompts"]}, encoded[before:]))
        return loss

    trainer._compute_loss = noted
    trainer.train()
    assert len(seen) == 3
    for videos, grids in seen:
        assert len(videos) == 1
        assert len(grids) == 1


@pytest.mark.parametrize("share_prefix", [True, False])
def test_the_loss_pass_gives_sampled_tokens_the_log_probability_of_a_plain_forward(
    saved, tmp_path, monkeypatch, share_prefix
):
    """TRL's own path through our closure, against one row at a time with its own pixels."""
    trainer = a_trainer(
        saved, tmp_path, monkeypatch, num_iterations=2, max_steps=1, learning_rate=1e-12, share_prefix=share_prefix
    )
    trainer.train()
    made = trainer._buffered_inputs[0]
    model = trainer.model
    for index, prompt in enumerate(made["prompts"]):
        ids = made["completion_ids"][index][made["completion_mask"][index].bool()]
        expected = plain_log_probabilities(model, prompt, ids)
        assert (made["old_per_token_logps"][index, : len(ids)] - expected).abs().max() < 1e-4


def test_completions_are_logged_with_true_and_predicted_spans(saved, tmp_path, monkeypatch):
    trainer = a_trainer(saved, tmp_path, monkeypatch, max_steps=1)
    trainer.train()
    [file] = (tmp_path / "out" / "completions").glob("*.parquet")
    table = pd.read_parquet(file)
    assert len(table) == 2 * G
    assert {"id", "spans", "predicted", "tiou", "even_length", "advantage", "completion"} <= set(table.columns)
    assert [list(span) for span in table["spans"][0]] == [[2.0, 5.0]]


def test_every_reward_can_be_tried_on_the_log_of_completions(saved, tmp_path, monkeypatch):
    trainer = a_trainer(saved, tmp_path, monkeypatch, max_steps=1)
    trainer.train()
    [file] = (tmp_path / "out" / "completions").glob("*.parquet")
    columns = {"id", "video", "query", "duration", "spans", "video_start", "video_end"}  # of the rows, and they are all
    logged = {"step", "prompt", "completion", "predicted", "advantage", "tiou", "even_length"}
    assert set(pd.read_parquet(file).columns) == columns | logged
    for key in ("tiou", "mine.py:even_length"):
        assert score(key, file, {}).logged == score(key, file, {}).values
    assert len(summary(score("timestamp_tiou", file, {}))["groups"]) > 0  # a reward that the stage does not have


def test_a_batch_that_would_tear_groups_apart_is_refused(saved, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="groups are kept whole"):
        a_trainer(saved, tmp_path, monkeypatch, per_device_train_batch_size=6, gradient_accumulation_steps=2)


def test_no_pad_is_sampled_while_training(saved, tmp_path, monkeypatch):
    trainer = a_trainer(saved, tmp_path, monkeypatch, max_completion_length=24)
    trainer.train()
    forbidden = set(family(trainer.model.config).vision_token_ids)
    assert not forbidden & set(trainer._buffered_inputs[0]["completion_ids"].flatten().tolist())


@pytest.mark.slow
@pytest.mark.parametrize("queries_of_one_video", [False, True])
def test_a_run_with_shared_prompts_in_any_number_of_calls_learns_what_one_without_does(
    saved, tmp_path, monkeypatch, queries_of_one_video
):
    rows = [row(saved[2][0], query) for query in ("red", "a blue circle", "yellow")] if queries_of_one_video else None
    learned, tokens = [], []
    for changes in ({"share_prefix": False}, {}, {"max_tokens_per_forward": 40}):
        torch.manual_seed(0)
        trainer = a_trainer(
            saved, tmp_path, monkeypatch, rows=rows, beta=0.1, num_iterations=2, learning_rate=1e-4, **changes
        )
        calls = []
        trainer.model.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs, calls=calls: calls.append(kwargs["inputs_embeds"][..., 0].numel()), with_kwargs=True
        )
        before = weights(trainer)
        trainer.train()
        learned.append(weights(trainer))
        tokens.append(calls[-1])
        # Adam makes a step of full size of a gradient that is next to nothing, so single weights may differ
        moved = sum(float((learned[0][name] - value).norm()) for name, value in before.items())
        apart = sum(float((value - learned[0][name]).norm()) for name, value in learned[-1].items())
        assert apart < 1e-3 * moved
    assert tokens[0] > tokens[1] > 40 >= tokens[2]


def test_a_run_logs_how_exact_its_shared_prompts_are_and_stops_where_they_are_not(saved, tmp_path, monkeypatch):
    trainer = a_trainer(saved, tmp_path, monkeypatch, lora=Lora(r=4), gradient_checkpointing=True)
    trainer.train()
    first, second = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert 0 < first["shared_prefix/difference"] < 1e-5
    assert "shared_prefix/difference" not in second
    assert trainer.share_prefix

    def misplaced(*args, **kwargs):
        call, places = packed(*args, **kwargs)
        return call | {"position_ids": call["position_ids"].flip(2)}, places

    monkeypatch.setattr("rlvtg.training.grpo.packed", misplaced)
    broken = a_trainer(saved, tmp_path, monkeypatch)
    before = weights(broken)
    with pytest.raises(RuntimeError, match="set share_prefix to false"):
        broken.train()
    assert changed(broken, before) == set()


def test_a_model_that_cannot_share_prompts_is_refused_unless_it_need_not(saved, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="dropout 0.1"):
        a_trainer(saved, tmp_path, monkeypatch, lora=Lora(r=4, lora_dropout=0.1))
    a_trainer(saved, tmp_path, monkeypatch, lora=Lora(r=4, lora_dropout=0.1), share_prefix=False)


def test_snapped_spans_are_what_is_rewarded_and_logged(saved, tmp_path, monkeypatch):
    _, _, videos = saved
    rows = [row(video, spans=[[1.3, 3.1]]) for video in videos]
    plain = a_trainer(saved, tmp_path, monkeypatch, rows=rows, max_steps=1)
    snapped = a_trainer(saved, tmp_path, monkeypatch, rows=rows, max_steps=1, snap_spans=True)
    for trainer in (plain, snapped):
        trainer.train()
    # at 1 fps a temporal patch begins every two seconds; the shortest video has none at 4
    wide = {"a": [[0.0, 3.1]], "b": [[0.0, 4.0]], "c": [[0.0, 4.0]]}
    assert {str(spans) for spans in plain._logs["extra"]["spans"]} == {"[[1.3, 3.1]]"}
    for name, spans in zip(snapped._logs["extra"]["id"], snapped._logs["extra"]["spans"], strict=True):
        assert spans == wide[name.split()[0]]


def test_trl_awaits_a_judge_and_goes_on_without_one(saved, tmp_path, monkeypatch):
    texts = ["<answer>the circle is red</answer>", "<answer>it turns blue</answer>", "no caption", "none"]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    rows = [row(video, answer="red. blue") for video in saved[2]]

    def scored(trainer):
        inputs = rows[:1] * len(texts)
        rewards = trainer._calculate_rewards(inputs, [one["prompt"] for one in inputs], completions, [[1]] * len(texts))
        return rewards[:, 1].tolist(), dict(trainer._pending_metrics)

    with serving(by_words) as judge:
        rewards = {"tiou": RewardSpec(), "caption_recall": RewardSpec(args=judge.knobs(retries=0))}
        trainer = a_trainer(saved, tmp_path, monkeypatch, rows=rows, rewards=rewards)
        values, metrics = scored(trainer)
    assert values == [0.5, 0.5, 0.0, 0.0]
    assert metrics["caption_recall/failed"] == [0.0]
    with pytest.warns(RuntimeWarning, match="caption_recall: no judgement from judge"):
        values, metrics = scored(trainer)
    assert values == pytest.approx([math.nan, math.nan, 0.0, 0.0], nan_ok=True)
    assert metrics["caption_recall/failed"] == [0.0, 0.5]


def test_trl_does_not_load_vllm_for_the_rollouts_that_it_is_not_asked_for() -> None:
    assert not hasattr(importlib.import_module("trl.generation.vllm_generation"), "LLM")
