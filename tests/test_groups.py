"""Experts, advantages and groups without variance in TRL's real trainer, on video."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from trl import GRPOTrainer

from rlvtg.recipe import Expert, RewardSpec
from rlvtg.training import grpo
from rlvtg.training.advantage import group_advantages
from rlvtg.training.experts import expert_completion
from rlvtg.tryout import score
from tests.test_grpo import G, a_trainer, changed, saved, weights  # noqa: F401  (a fixture is used by its name)
from tests.tiny_qwen import row

EXPERT = Expert("<answer> {spans} </answer>")
TEXT = "<answer> 2.00 to 5.00 </answer>"
REWARDS = """
import zlib

def pseudorandom(completions, **_):
    return [zlib.crc32(c[0]["content"].encode()) % 997 / 997 for c in completions]

def tabled(completions, *, table=(), **_):
    return [table[place % len(table)] for place in range(len(completions))]

def sometimes(completions, query, **_):
    return [None if "red" in q and place % 3 else float(len(c[0]["content"]))
            for place, (c, q) in enumerate(zip(completions, query))]

calls = []

def flat_at_first(completions, query, log_extra=None, *, times=1, **_):
    calls.append(list(query))
    log_extra("call", [len(calls)] * len(completions))
    return [0.5 if "red" in q and len(calls) <= times else float(place) for place, q in enumerate(query)]
"""


@pytest.fixture
def making(saved, tmp_path, monkeypatch):  # noqa: F811
    """A maker of trainers with the rewards above; `sampled` has prompts, completions each and token ids of rollouts."""
    sampled = []

    def made(*names, table=(), times=1, **changes):
        knobs = {"tabled": {"table": table}, "flat_at_first": {"times": times}}
        rewards = {
            name if name == "tiou" else f"ours.py:{name}": RewardSpec(args=knobs.get(name, {})) for name in names
        }
        monkeypatch.chdir(tmp_path)
        Path("ours.py").write_text(REWARDS)
        settings = {"rewards": rewards, "max_steps": 1, "max_completion_length": 32} | changes
        return a_trainer(saved, tmp_path, monkeypatch, **settings)

    plain = grpo.rollout

    def recorded(model, prompts, config, *, num_generations):
        found = plain(model, prompts, config, num_generations=num_generations)
        sampled.append((len(prompts), num_generations, found))
        return found

    monkeypatch.setattr(grpo, "rollout", recorded)
    made.sampled, made.videos = sampled, saved[2]
    return made


def generated(trainer, *queries):
    """What TRL makes of one generation batch, before it is shuffled."""
    trainer.model.train()
    rows = [dict(each) for each in trainer.train_dataset]
    chosen = [next(each for each in rows if query in each["query"]) for query in queries or ("red", "blue")]
    return trainer._generate_and_score_completions([each for each in chosen for _ in range(trainer.num_generations)])


def metric(trainer, name):
    return trainer._metrics["train"][name][-1]


def test_the_last_of_every_group_is_the_annotation_and_none_in_evaluation(making, tmp_path):
    trainer = making("tiou", expert=EXPERT)
    trainer.train()
    assert [(prompts, count) for prompts, count, _ in making.sampled] == [(2, G - 1)]
    [file] = (tmp_path / "out" / "completions").glob("*.parquet")
    log = pd.read_parquet(file)
    assert log["expert"].tolist() == [False, False, False, True] * 2
    assert log["expert"].dtype == bool
    texts = [each[0]["content"] for each in log["completion"]]
    assert [text == TEXT for text in texts] == log["expert"].tolist()
    assert log["tiou"][log["expert"]].tolist() == [1.0, 1.0]
    assert score("tiou", file, {}).values == log["tiou"].tolist()  # a reward can be tried on such a log
    ids = trainer._buffered_inputs[0]["completion_ids"].tolist()
    tokenizer = trainer.processing_class.tokenizer
    written = [*tokenizer(TEXT, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert sum(each[: len(written)] == written for each in ids) == 2
    assert trainer._buffered_inputs[0].get("old_per_token_logps") is None  # the ratio is 1

    trainer.evaluate(trainer.train_dataset.select(range(2)))
    assert [count for _, count, _ in making.sampled[1:]] == [G]
    last = sorted((tmp_path / "out" / "completions").glob("*.parquet"))[-1]
    assert not pd.read_parquet(last)["expert"].tail(2 * G).any()
    assert "eval_expert/reward_mean" not in trainer.state.log_history[-1]


def test_what_the_policy_wrote_is_logged_apart_from_the_experts(making):
    trainer = making("tiou", "tabled", table=[0.0, 1.0, 2.0, 9.0], expert=EXPERT)
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    policy = [ids for _, _, found in making.sampled for ids in found]
    assert log["rewards/tabled/mean"] == pytest.approx(3.0)  # TRL's, of all
    assert log["on_policy/rewards/tabled/mean"] == pytest.approx(1.0)
    assert log["on_policy/rewards/tabled/std"] == pytest.approx(math.sqrt(0.8))
    assert log["on_policy/reward"] == pytest.approx(1.0)  # the untrained model hits nothing
    assert log["reward_group_std"] == pytest.approx(1.0)  # of 0, 1 and 2: the expert's 10 is none of the policy's
    assert log["expert/reward_mean"] == pytest.approx(10.0)
    assert log["expert/advantage_mean"] > 1
    assert log["on_policy/completions/mean_length"] == pytest.approx(sum(map(len, policy)) / 6)
    assert log["completions/unparsed"] == 1.0
    assert log["on_policy/completions/clipped_ratio"] == sum(len(ids) == 32 for ids in policy) / 6


WORKED = {
    "raw": (EXPERT, [0.6, 0.7, 0.5, 1.0], [-0.462908, 0.0, -0.925816, 1.388724]),
    "shaped": (EXPERT, [0.671149, 0.738793, 0.596390, 0.801823], [-0.350, 0.416, -1.196, 1.129]),
    "anchored": (Expert("{spans}", anchor=1.2), [0.6, 0.7, 0.5, 1.0], [0.0, 0.99999, -0.99999, 1.199988]),
    "skewed": (Expert("{spans}", anchor=1.2), [0.0, 0.0, 0.2, 0.0], [-0.577345, -0.577345, 1.154691, 1.385629]),
    "equal": (Expert("{spans}", anchor=1.2), [0.3, 0.3, 0.3, 1.0], [0.0, 0.0, 0.0, 0.0]),
    "scaled": (Expert("{spans}", scale=0.8), [0.6, 0.7, 0.5, 1.0], group_advantages([0.6, 0.7, 0.5, 0.8], eps=1e-6)),
    "capped": (Expert("{spans}", cap=0.9), [0.6, 0.7, 0.5, 1.0], group_advantages([0.6, 0.7, 0.5, 0.9], eps=1e-6)),
}


def test_the_worked_numbers_of_the_method_come_out_of_the_trainer(making):
    table = [0.0]
    trainer = making("tabled", table=table, expert=EXPERT, advantage_eps=1e-6)
    for name, (expert, table[:], want) in WORKED.items():
        trainer._expert = replace(expert, template="<answer>{spans}</answer>")
        output = generated(trainer)
        assert output["advantages"].tolist() == pytest.approx([*want, *want], abs=1e-3), name
        assert output["advantages"].tolist() == pytest.approx(list(trainer._logs["advantages"]))
        assert metric(trainer, "zero_variance/before") == float(not any(want))


def test_the_advantages_are_trls_own_where_nothing_else_is_asked_for(making, monkeypatch):
    theirs = []
    plain = GRPOTrainer._generate_and_score_completions

    def recorded(self, inputs):
        output = plain(self, inputs)
        theirs.append(output["advantages"].clone())
        return output

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", recorded)
    trainer = making("pseudorandom", "sometimes")
    for trainer.scale_rewards in ("group", "batch", "none"):
        ours = generated(trainer)["advantages"]
        assert ours.abs().max() > 0.1
        assert torch.allclose(ours, theirs[-1], atol=1e-5)


def test_eps_is_what_is_asked_for(making):
    trainer = making("tabled", table=[0, 0, 0, 0.001], advantage_eps=1e-6, max_completion_length=4)
    assert generated(trainer)["advantages"][3] == pytest.approx(1.497, rel=1e-3)


def test_an_infinite_reward_is_named_with_its_row(making):
    trainer = making("tiou")
    trainer.reward_funcs[0] = lambda completions, **_: [0.0] * 5 + [math.inf] + [0.0] * 2
    with pytest.raises(ValueError, match="reward tiou is inf for row 'a when is it blue'"):
        generated(trainer)


def gradient(trainer, micro_batches):
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = len(micro_batches)
    trainer.model.zero_grad()
    for micro_batch in micro_batches:
        trainer._compute_loss(trainer.model, micro_batch).backward()
    return {name: value.grad.clone() for name, value in trainer.model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("groups_a_batch", [1, 2])
def test_dropped_groups_leave_the_gradient_of_the_others(making, groups_a_batch):
    trainer = making(
        "tabled", table=[0.0, 1.0, 2.0, 3.0, 7.0, 7.0, 7.0, 7.0], zero_variance="drop", max_completion_length=8,
        gradient_accumulation_steps=2 // groups_a_batch, per_device_train_batch_size=groups_a_batch * G,
    )  # fmt: skip
    trainer.train()
    trainer.model.train()
    batches = trainer._buffered_inputs
    [[batch, rows]] = [(each, each["kept"].nonzero()[:, 0]) for each in batches if each["kept"].any()]
    per_row = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
    alone = {key: batch[key][rows] for key in per_row} | {"prompts": [batch["prompts"][row] for row in rows]}
    alone["num_items_in_batch"] = alone["completion_mask"].sum()
    assert len(rows) == G
    for trainer.loss_type in ("grpo", "bnpo", "dr_grpo", "dapo", "luspo"):
        ours, want = gradient(trainer, trainer._weighed(batches)), gradient(trainer, [alone])
        largest = max(float(value.abs().max()) for value in want.values())
        for name, value in want.items():
            assert float((ours[name] - value).abs().max()) < 1e-5 * largest, (trainer.loss_type, name)
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert (log["zero_variance/before"], log["zero_variance/after"]) == (0.5, 0.0)


@pytest.mark.parametrize(("loss_type", "share_prefix"), [("bnpo", True), ("dapo", False)])
def test_a_batch_of_dropped_groups_only_changes_nothing(making, loss_type, share_prefix):
    trainer = making(
        "tabled", table=[1.0], zero_variance="drop", loss_type=loss_type, share_prefix=share_prefix, beta=0.1,
        max_completion_length=8,
    )  # fmt: skip
    before = weights(trainer)
    trainer.train()
    assert changed(trainer, before) == set()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert (log["loss"], log["grad_norm"], log["zero_variance/before"]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("expert", [None, Expert("<answer>{spans}</answer>", anchor=1.2)])
def test_a_flat_group_is_sampled_again_as_a_whole_and_the_others_stay(making, expert):
    trainer = making("flat_at_first", zero_variance="resample", times=2, max_resamples=3, expert=expert)
    output = generated(trainer)
    own = G if expert is None else G - 1
    assert [(prompts, count) for prompts, count, _ in making.sampled] == [(2, own), (1, own), (1, own)]
    first, _, last = (found for _, _, found in making.sampled)
    lengths = output["completion_mask"].sum(1).tolist()
    ids = [each[:length] for each, length in zip(output["completion_ids"].tolist(), lengths, strict=True)]
    assert ids[:own] == last
    assert ids[G : G + own] == first[own:]
    assert output["advantages"][:own].abs().max() > 0.5
    assert metric(trainer, "zero_variance/before") == 0.5
    assert metric(trainer, "zero_variance/after") == 0.0
    assert metric(trainer, "zero_variance/resamples") == 2
    asked = output["prompt_mask"].sum(1).tolist()
    red, blue = asked[0], asked[G]
    written = sum(len(each) for _, _, found in making.sampled for each in found)
    experts = 0 if expert is None else red + blue + lengths[G - 1] + lengths[-1]
    assert trainer.state.num_input_tokens_seen == written + own * (3 * red + blue) + experts
    assert metric(trainer, "num_tokens") == trainer.state.num_input_tokens_seen
    # each completion is scored once, and its row in the log is what was said of it then
    assert list(trainer._logs["extra"]["call"]) == [3] * G + [1] * G
    assert list(trainer._logs["rewards"]["flat_at_first"]) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert len(trainer._logs["extra"]["id"]) == 2 * G


def test_what_is_still_flat_at_the_cap_is_kept_without_advantage_and_counted(making):
    trainer = making("flat_at_first", zero_variance="resample", times=99, max_resamples=2)
    output = generated(trainer)
    assert output["advantages"][:G].tolist() == [0.0] * G
    assert output["completion_mask"][:G].any(1).all()
    assert metric(trainer, "zero_variance/after") == 0.5
    assert metric(trainer, "zero_variance/resamples") == 2


def test_lengths_and_places_of_spans_are_logged_every_step(making, monkeypatch):
    trainer = making("tiou", max_steps=2, max_completion_length=8)
    plain = trainer.processing_class.batch_decode

    def answering(ids, **settings):
        return [f"<answer>{k % 3}.0 to 4.0</answer>" for k, _ in enumerate(plain(ids, **settings))]

    monkeypatch.setattr(trainer.processing_class, "batch_decode", answering)
    trainer.train()
    first, second = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert first["spans/length"] == pytest.approx(4 - (0 + 1 + 2 + 0 + 1 + 2 + 0 + 1) / 8)
    assert first["spans/true_length"] == 3.0
    assert first["spans/length_ratio"] == pytest.approx(first["spans/length"] / 3)
    assert first["spans/end"] == 0.5 and first["spans/number"] == 1.0 and first["spans/outside"] == 0.0
    assert first["completions/unparsed"] == 0.0
    assert "spans/length_drift" not in first
    assert second["spans/length_drift"] == pytest.approx(1.0)
    assert second["completions/length_drift"] == pytest.approx(
        second["completions/mean_length"] / first["completions/mean_length"]
    )


def test_an_answer_in_which_no_reward_looks_for_spans_is_not_one_without(making, monkeypatch):
    rewards = {"tiou": RewardSpec(tasks=["grounding"]), "ours.py:tabled": RewardSpec(args={"table": [0.0, 1.0]})}
    asked = {"a red circle": "grounding", "a blue one": "naming"}
    rows = [row(making.videos[0], query, task=task) for query, task in asked.items()]
    trainer = making("tabled", rows=rows, rewards=rewards)
    monkeypatch.setattr(
        trainer.processing_class, "batch_decode", lambda ids, **_: ["2.0 to 4.0"] + ["<answer>1.0 to 4.0</answer>"] * 3
        + ["a circle"] * 4,
    )  # fmt: skip
    generated(trainer)
    assert metric(trainer, "completions/unparsed") == 0.25
    assert metric(trainer, "spans/number") == 0.75
    # 0, 1.5, 0.5, 1.5 and 0, 1, 0, 1
    assert metric(trainer, "reward_group_std") == pytest.approx((0.75 + math.sqrt(1 / 3)) / 2)


@pytest.mark.slow
def test_two_processes_sample_as_often_as_each_other_and_learn_the_same(saved, tmp_path):  # noqa: F811
    root = Path(__file__).parent.parent
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "tests.two_processes",
        str(saved[0]), str(tmp_path),
    ]  # fmt: skip
    settings = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=settings, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    told, logs = {}, {}
    for way in ("resample", "drop"):
        told[way], second = (json.loads((tmp_path / way / f"{rank}.json").read_text()) for rank in range(2))
        assert told[way] == second  # metrics, weights, calls
        [file] = (tmp_path / way / "out" / "completions").glob("*.parquet")
        logs[way] = pd.read_parquet(file)
        assert logs[way]["expert"].tolist() == [False, False, False, True] * 2
        assert told[way]["log"]["zero_variance/before"] == 0.5
        assert told[way]["log"]["zero_variance/after"] == 0.0
    assert told["resample"]["sampled"] == [[1, 3]] * 3  # though one of them had no need
    assert told["resample"]["log"]["zero_variance/resamples"] == 2
    assert logs["resample"]["ranked"].tolist() == [0, 1, 2, 3] * 2
    assert told["drop"]["sampled"] == [[1, 3]]
    assert logs["drop"]["ranked"].tolist() == [0.5] * 4 + [0, 1, 2, 3]
    assert told["drop"]["factor"] == 2.0


def test_an_expert_that_does_not_fit_is_found_before_the_model_loads(making, monkeypatch):
    def loading(*_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("rlvtg.training.grpo.trainable_model", loading)
    with pytest.raises(ValueError, match="row 'a a red circle appears': its expert .* max_completion_length is 4"):
        making("tiou", expert=EXPERT, max_completion_length=4)
    rows = [row(making.videos[0], spans=[[1.0, 2.0], [3.0, 4.0]])]
    with pytest.raises(ValueError, match="row 'a a red circle appears' has no expert completion: grammar 'to' writes"):
        making("tiou", expert=EXPERT, rows=rows)


def test_the_expert_text_of_the_tests_is_what_the_grammar_writes():
    assert expert_completion([(2.0, 5.0)], "to", template=EXPERT.template) == TEXT
