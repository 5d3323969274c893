"""Rollouts from a real `rlvtg serve` on loopback, with a real vLLM engine in it."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_config, load_model, load_processor
from rlvtg.recipe import GrpoStage, Lora, Recipe, RewardSpec
from rlvtg.reward import bind
from rlvtg.rollout.access import TOKEN
from rlvtg.rollout.client import Client, ServerError
from rlvtg.rollout.request import request
from rlvtg.rollout.wire import model_facts
from rlvtg.training.grpo import grpo_trainer
from rlvtg.training.weights import whole_weights
from tests.tiny_qwen import plain_log_probabilities, row, video_settings
from tests.tiny_qwen import save as save_model

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).resolve().parent.parent
SECRET = "0123456789abcdef-secret"
TOLERANCE = 1e-3
SAMPLING = {"n": 4, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 8, "stop_token_ids": [2], "seed": 1}
STAGE = {
    "kind": "grpo", "data": "rl", "rewards": {"tiou": {"weight": 1.0}}, "num_generations": 4, "beta": 0.0,
    "loss_type": "grpo", "scale_rewards": "group", "epsilon": 0.2, "num_iterations": 1, "temperature": 1.0,
    "max_completion_length": 8, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 8, "max_steps": 2, "use_vllm": True, "vllm_mode": "server",
    "vllm_max_model_length": 512,
}  # fmt: skip


@dataclass(frozen=True)
class Served:
    """A server that runs, its address, what it has written so far, and the model and videos that it is about."""

    url: str
    log: Path
    folder: Path
    videos: list[str]
    process: subprocess.Popen

    @property
    def model(self):
        return str(self.folder / "model")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """As it is typed, on a machine that has none of the data."""
    folder, _, videos = save_model(tmp_path_factory.mktemp("saved"), seconds=(4, 6))
    place = tmp_path_factory.mktemp("server")
    tree = {
        "extends": "base", "model": str(folder / "model"), "bf16": False, "use_cpu": True, "grammar": "to",
        "prompt": "{query}{video}", "data": {"rl": {"annotations": "not_here.json", "videos": "not_here"}},
        "video": vars(video_settings(1.0)), "stages": {"rl": STAGE}, "evaluation": {"data": "rl"},
    }  # fmt: skip
    (place / "served.yaml").write_text(yaml.safe_dump(tree))
    changes = {"PYTHONPATH": str(ROOT), "TMPDIR": str(place), TOKEN: SECRET}
    command = [sys.executable, "-m", "rlvtg.cli", "serve", "recipe=served.yaml", "--port", "0"]
    log = place / "log"
    with log.open("w") as output, pytest.MonkeyPatch.context() as patched:
        patched.setenv(TOKEN, SECRET)
        process = subprocess.Popen(command, cwd=place, env={**os.environ, **changes}, stdout=output, stderr=output)
        try:
            yield Served(address(process, log), log, folder, videos, process)
        finally:
            process.kill()
            process.wait()


def address(process, log):
    """Where a server says that it listens."""
    while "listening at " not in (said := log.read_text()):
        assert process.poll() is None, said
        time.sleep(0.2)
    return said.partition("listening at ")[2].split(",")[0]


@pytest.fixture(scope="module")
def policy(served):
    """A model and its encoder, the requests of two rows, and the inputs of their prompts."""
    encoder = Encoder(load_processor(served.model), family(load_config(served.model)), video_settings(1.0))
    rows = [row(video) for video in served.videos]
    prompts = [encoder(one) for one in rows]
    requests = [request(one, prompt, encoder) for one, prompt in zip(rows, prompts, strict=True)]
    return load_model(served.model).eval(), requests, prompts


@pytest.fixture(scope="module")
def client(served):
    return Client(served.url, model_facts(load_config(served.model)), timeout=240)


def apart(policy, samples):
    """How far the log-probabilities of samples are from the policy's, at most."""
    model, _, prompts = policy

    def ours(prompt, one):
        return plain_log_probabilities(model, prompt, torch.tensor(one.token_ids))

    pairs = [(prompt, one) for prompt, group in zip(prompts, samples, strict=True) for one in group]
    return max(float((ours(prompt, one) - torch.tensor(one.logprobs)).abs().max()) for prompt, one in pairs)


def test_it_listens_to_its_own_machine_alone(served, client):
    port = f"{int(served.url.rpartition(':')[2]):04X}"
    lines = [
        line.split() for line in (Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()).splitlines()
    ]
    listening = [line[1].split(":")[0] for line in lines if line[1].endswith(f":{port}") and line[3] == "0A"]
    assert listening == ["0100007F"]


def test_it_samples_with_the_policys_log_probabilities_also_after_new_weights(served, client, policy):
    model, requests, _ = policy
    client.load(whole_weights(model))
    before = client.generate(requests, **SAMPLING)
    assert [len(group) for group in before] == [4, 4]
    assert apart(policy, before) < TOLERANCE
    assert client.generate(requests, **SAMPLING) == before
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.8)
    assert apart(policy, before) > 10 * TOLERANCE
    client.load(whole_weights(model))
    after = client.generate(requests, **SAMPLING)
    assert after != before
    assert apart(policy, after) < TOLERANCE


def test_half_a_transfer_is_never_sampled_with(served, client, policy):
    model, requests, _ = policy
    client.load(whole_weights(model))
    before = client.generate(requests, **SAMPLING)

    def breaking():
        for number, (name, value) in enumerate(whole_weights(model)):
            if number == 20:
                raise ConnectionError("the trainer is gone")
            yield name, value * 2

    with pytest.raises(ConnectionError):
        client.load(breaking())
    with pytest.raises(ServerError, match="the weights are not whole"):
        client.generate(requests, **SAMPLING)
    client.load(whole_weights(model))
    assert client.generate(requests, **SAMPLING) == before


def test_weights_of_no_such_model_are_refused_and_are_never_sampled_with(served, client, policy):
    model, requests, _ = policy
    with pytest.raises(ServerError, match="asked for weights"):
        client.load([("model.language_model.layers.0.nothing.weight", torch.ones(2))])
    with pytest.raises(ServerError, match="the weights are not whole"):
        client.generate(requests, **SAMPLING)
    client.load(whole_weights(model))
    client.generate(requests, **SAMPLING)


def test_a_prompt_that_is_too_long_is_refused_and_the_next_one_is_not(served, client, policy):
    model, requests, _ = policy
    client.load(whole_weights(model))
    with pytest.raises(ServerError, match="but the engine takes 512"):
        client.generate(requests, **SAMPLING | {"max_tokens": 500})
    client.generate(requests, **SAMPLING)


@pytest.mark.parametrize("lora", [None, Lora(r=4, lora_alpha=8, target_modules="all-linear")], ids=["full", "lora"])
def test_grpo_trains_on_rollouts_of_the_server(served, tmp_path, monkeypatch, capfd, lora):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def even_length(completions, **_):\n    return [float(len(c[0]['content']) % 2) for c in completions]\n"
    )
    stage = GrpoStage(**{**STAGE, "rewards": {"mine.py:even_length": RewardSpec()}, "learning_rate": 1e-2}, lora=lora)
    stage.vllm_server_base_url = served.url
    recipe = Recipe(name="test", model=served.model, bf16=False, use_cpu=True, report_to=[], grammar="to", seed=3)
    recipe.stages = {"rl": stage}
    rows = [row(video, query) for video in served.videos for query in ("a red circle appears", "when is it blue")]
    encoder = Encoder(load_processor(recipe.model), family(load_config(recipe.model)), video_settings(1.0))
    rewards = bind(stage.rewards, rows[0].keys(), grammar="to")
    trainer = grpo_trainer(recipe, stage, rows, rewards, recipe.model, encoder, str(tmp_path / "out"))
    asked = served.log.read_text().count("POST /generate 200")
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == 2 and all(entry["grad_norm"] > 0 for entry in log)
    assert all(entry["sampling/sampling_logp_difference/max"] < TOLERANCE for entry in log)
    said = served.log.read_text()
    assert said.count("POST /generate 200") == asked + 2
    written = capfd.readouterr()
    assert SECRET not in said + written.out + written.err + json.dumps(trainer.state.log_history)


def test_it_ends_when_it_is_told_to_and_leaves_nothing(served, client):
    client._ask("POST", "weights")
    served.process.terminate()
    assert served.process.wait(120) == 0
    assert list(served.log.parent.glob("rlvtg_weights_*")) == []
    with pytest.raises(ServerError, match="cannot be reached"):
        client.generate([], **SAMPLING)
