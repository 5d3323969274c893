"""The protocol of a vLLM server, in bytes and errors, without vLLM; tests/test_vllm_server.py has the real thing."""

import http.client
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from rlvtg.model.load import load_config
from rlvtg.recipe import GrpoStage, Recipe, RecipeError
from rlvtg.rollout import client as clients
from rlvtg.rollout import server as servers
from rlvtg.rollout.access import TOKEN, is_loopback, token_of_environment
from rlvtg.rollout.client import Client, OneForAll, ServerError
from rlvtg.rollout.engine import Request, Sampled
from rlvtg.rollout.wire import model_facts
from rlvtg.training.engine_rollout import require_servers
from tests.local_engine import FACTS, Shown, serving
from tests.tiny_qwen import model_and_processor

SECRET = "0123456789abcdef-secret"
WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.tensor([1, 2])}
SAMPLING = {
    "n": 2, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 4, "stop_token_ids": [2], "seed": 1,
}  # fmt: skip
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def served(tmp_path):
    with serving(tmp_path) as found:
        yield found


def ask(served, method, path, body=b"", headers=OCTETS):
    """(status, what the server says)"""
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)) as connection:
        connection.request(method, path, body=body, headers=headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())


def a_client(served, **changes):
    return Client(served.url, **({"facts": FACTS, "timeout": 5} | changes))


def frames(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (4, 28, 28, 3), dtype=np.uint8)


# --- what a trainer does


def test_prompts_reach_the_engine_and_completions_come_back(served):
    client = a_client(served)
    requests = [Request([5, 6], [(frames(), {"fps": 2.0})], "a"), Request([7], [])]
    found = client.generate(requests, **SAMPLING)
    assert found == [[Sampled([k, 0], [-0.25, -0.5]), Sampled([k, 1], [-0.25, -0.5])] for k in (5, 7)]
    [got], [sampling] = served.engine.requests, served.engine.sampling
    assert sampling == {**SAMPLING, "stop_token_ids": (2,)}
    assert np.array_equal(got[0].videos[0][0], frames()) and got[0].videos[0][1] == {"fps": 2.0}


@pytest.mark.parametrize("largest", [1, 2**29])
def test_weights_arrive_whole_however_many_files_they_take(served, monkeypatch, largest):
    monkeypatch.setattr(clients, "FILE_BYTES", largest)
    client = a_client(served)
    client.load(iter(WEIGHTS.items()))
    [loaded] = served.engine.weights
    assert loaded.keys() == WEIGHTS.keys()
    assert all(torch.equal(loaded[name], WEIGHTS[name]) for name in WEIGHTS)
    client.generate([Request([1], [])], **SAMPLING)


def test_weights_that_change_while_they_are_sent_are_sent_as_they_were(served):
    """As those of ZeRO-3 are, which are whole only until the next one is asked for."""

    def passing():
        tensor = torch.zeros(3)
        for name in "ab":
            tensor.fill_(ord(name))
            yield name, tensor
        tensor.fill_(0)

    a_client(served).load(passing())
    assert {name: float(value[0]) for name, value in served.engine.weights[0].items()} == {"a": 97.0, "b": 98.0}


def test_weights_are_not_sent_finer_than_the_engine_computes(tmp_path):
    with serving(tmp_path, dtype=torch.bfloat16) as served:
        a_client(served).load([("a", torch.tensor([1 / 3])), ("b", torch.tensor([2]))])
        loaded = served.engine.weights[0]
        assert torch.equal(loaded["a"], torch.tensor([1 / 3]).bfloat16()) and loaded["b"].dtype == torch.int64


# --- a transfer that breaks


def halves(served):
    """A transfer whose second file does not come."""
    _, said = ask(served, "POST", "/weights")
    name = said["transfer"]
    assert ask(served, "PUT", f"/weights/{name}/0", save({"a": WEIGHTS["a"]})) == (200, {})
    return name


def counted(files, tensors):
    return json.dumps({"files": files, "tensors": tensors}).encode()


def test_a_server_with_half_of_the_weights_refuses_until_a_whole_transfer_has_come(served):
    client = a_client(served)
    client.load(WEIGHTS.items())
    name = halves(served)
    with pytest.raises(ServerError, match="the weights are not whole: a transfer has begun and not ended"):
        client.generate([Request([1], [])], **SAMPLING)
    assert ask(served, "POST", f"/weights/{name}", counted(2, 2))[0] == 409
    assert ask(served, "POST", f"/weights/{name}", counted(1, 2)) == (
        409,
        {"error": "2 tensors were sent, and 1 have come"},
    )
    assert ask(served, "GET", "/health")[1]["weights"] is None
    assert len(served.engine.weights) == 1
    client.load(WEIGHTS.items())
    client.generate([Request([1], [])], **SAMPLING)
    assert len(served.engine.weights) == 2


def test_files_that_nobody_counted_are_not_loaded(served):
    name = halves(served)
    assert ask(served, "PUT", f"/weights/{name}/7", save(WEIGHTS)) == (200, {})
    assert ask(served, "POST", f"/weights/{name}", counted(1, 1)) == (
        409,
        {"error": "1 files were sent, and 2 have come"},
    )
    assert served.engine.weights == []


def test_a_client_that_dies_while_it_sends_leaves_a_server_that_refuses(served, capfd):
    client = a_client(served)
    client.load(WEIGHTS.items())

    def dying():
        yield "a", WEIGHTS["a"]
        raise KeyError("gone")

    with pytest.raises(KeyError):
        client.load(dying())
    with pytest.raises(ServerError, match="not whole"):
        client.generate([Request([1], [])], **SAMPLING)


def test_a_file_that_breaks_off_is_not_kept(served, capfd):
    _, said = ask(served, "POST", "/weights")
    body = save(WEIGHTS)
    with closing(socket.create_connection(("127.0.0.1", served.port))) as broken:
        head = f"PUT /weights/{said['transfer']}/0 HTTP/1.1\r\nContent-Type: {OCTETS['Content-Type']}\r\n"
        broken.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-10])
        broken.shutdown(socket.SHUT_WR)
        assert broken.recv(100) == b""
    assert ask(served, "POST", f"/weights/{said['transfer']}", counted(1, 2)) == (
        409,
        {"error": "1 files were sent, and 0.safetensors has not come"},
    )
    assert "the connection broke" in capfd.readouterr().err


def test_weights_that_the_engine_cannot_take_leave_a_server_that_refuses(served):
    client = a_client(served)

    def fail():
        raise RuntimeError("no such layer")

    served.engine.first = fail
    with pytest.raises(ServerError, match="the engine failed: RuntimeError: no such layer"):
        client.load(WEIGHTS.items())
    served.engine.first = lambda: None
    with pytest.raises(ServerError, match="not whole"):
        client.generate([Request([1], [])], **SAMPLING)
    client.load(WEIGHTS.items())
    client.generate([Request([1], [])], **SAMPLING)


def test_a_second_transfer_ends_the_first(served):
    first, second = halves(served), halves(served)
    assert ask(served, "PUT", f"/weights/{first}/1", save(WEIGHTS))[0] == 409
    assert ask(served, "POST", f"/weights/{first}", counted(1, 1))[0] == 409
    assert ask(served, "POST", f"/weights/{second}", counted(1, 1)) == (200, {"weights": second})


def test_a_run_never_samples_with_the_weights_of_another(served):
    mine, other = a_client(served), a_client(served)
    mine.load(WEIGHTS.items())
    other.load(WEIGHTS.items())
    with pytest.raises(ServerError, match="it was started anew, or another run has sent its own"):
        mine.generate([Request([1], [])], **SAMPLING)


def test_weights_are_to_be_sent_before_the_first_rollout(served):
    engine = OneForAll(a_client(served), is_exact=True)
    assert engine.sleep()
    engine.load(WEIGHTS.items())
    assert not engine.sleep()


# --- requests that are not granted


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/nothing", b"", 404, "there is no GET /nothing"),
        ("GET", "/generate", b"", 404, "there is no GET /generate"),
        ("POST", "/generate", b"", 400, "not a safetensors file"),
        ("POST", "/generate", pickle.dumps(["x"]), 400, "not a safetensors file"),
        ("PUT", "/weights/../0", save(WEIGHTS), 409, "no such transfer"),
        ("PUT", "/weights/abc/0", save(WEIGHTS), 409, "no such transfer"),
        ("PUT", "/weights/abc/-1", save(WEIGHTS), 404, "there is no PUT"),
        ("POST", "/weights/abc", b"[]", 400, "want"),
        ("POST", "/weights/abc", b'{"files": 0, "tensors": 1}', 400, "want files from 1"),
        ("POST", "/weights/abc", b"x" * 100_000, 413, "more than the 65536 that are taken"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(served, method, path, body, status, says):
    got, said = ask(served, method, path, body)
    assert got == status
    assert says in said["error"]


@pytest.mark.parametrize("body", [pickle.dumps(WEIGHTS), b"", b"\xff" * 64])
def test_weights_that_are_not_safetensors_are_refused(served, body):
    name = halves(served)
    status, said = ask(served, "PUT", f"/weights/{name}/1", body)
    assert status == 400 and "file 1 is not a safetensors file" in said["error"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(served, monkeypatch):
    name = halves(served)
    monkeypatch.setitem(servers.MOST_BYTES, "weights", 10)
    monkeypatch.setitem(servers.MOST_BYTES, "generate", 10)
    assert ask(served, "PUT", f"/weights/{name}/1", save(WEIGHTS))[0] == 413
    assert ask(served, "POST", "/generate", save(WEIGHTS))[0] == 413
    monkeypatch.setattr(servers, "_SPARE", 2**62)
    assert ask(served, "PUT", f"/weights/{name}/1", b"1")[0] == 507


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({**OCTETS, "Content-Length": "-1"}, 411),
        ({**OCTETS, "Content-Length": "9" * 30}, 411),
        ({**OCTETS, "Transfer-Encoding": "chunked"}, 411),
    ],
)
def test_a_body_of_unknown_length_or_kind_is_refused(served, headers, status):
    assert ask(served, "POST", "/generate", b"", headers)[0] == status


def test_what_the_engine_cannot_take_is_the_askers_to_mend(served):
    def fail():
        raise ValueError("row a: 900 tokens of prompt")

    served.engine.first = fail
    with pytest.raises(ServerError, match="asked for generate: row a: 900 tokens of prompt"):
        a_client(served).generate([Request([1], [])], **SAMPLING)
    assert ask(served, "GET", "/health")[0] == 200


# --- who may ask


def test_without_the_token_nothing_is_answered_and_the_token_is_never_told(tmp_path, monkeypatch, capfd):
    with serving(tmp_path, token=SECRET) as served:
        for path, method in (("/health", "GET"), ("/generate", "POST"), ("/weights", "POST"), ("/weights/a/0", "PUT")):
            for given in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": SECRET},
                {"Authorization": "Bearer é"},
            ):
                status, said = ask(served, method, path, headers=OCTETS | given)
                assert status == 401 and SECRET not in str(said)
        monkeypatch.delenv(TOKEN, raising=False)
        with pytest.raises(
            ServerError, match="the token is missing or wrong.*; this process has no RLVTG_SERVER_TOKEN"
        ):
            a_client(served)
        monkeypatch.setenv(TOKEN, "x" * 20)
        with pytest.raises(ServerError, match="the token is missing or wrong") as raised:
            a_client(served)
        assert "x" * 20 not in str(raised.value)
        monkeypatch.setenv(TOKEN, SECRET)
        client = a_client(served)
        client.load(WEIGHTS.items())
        client.generate([Request([1], [])], **SAMPLING)
        assert SECRET not in repr(client) + str(vars(client))
    out, err = capfd.readouterr()
    assert "POST /generate 200" in err and "401" in err
    assert SECRET not in out + err and "x" * 20 not in out + err


def test_other_machines_are_let_in_only_with_a_token(tmp_path):
    for host in ("0.0.0.0", "::", ""):
        with pytest.raises(RecipeError, match="no token; set RLVTG_SERVER_TOKEN"), serving(tmp_path, host=host):
            pass
    with serving(tmp_path, host="0.0.0.0", token=SECRET) as served:
        assert ask(served, "GET", "/health")[0] == 401


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("node7", False), ("", False)],
)  # fmt: skip
def test_which_addresses_are_this_machines_own(host, own):
    assert is_loopback(host) is own


@pytest.mark.parametrize("token", ["", "short", "a" * 15, "a" * 20 + " b", "ä" * 20, "a" * 20 + "\n"])
def test_a_token_that_cannot_be_one_is_refused_and_not_repeated(monkeypatch, token):
    monkeypatch.setenv(TOKEN, token)
    with pytest.raises(RecipeError, match="want 16 or more ASCII characters") as raised:
        token_of_environment()
    assert not token or token not in str(raised.value)


# --- a server that is not there, or another one


def free_port():
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_server_that_is_not_there_is_waited_for_and_then_said_to_be_missing(capsys):
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerError, match="no server at .* within 0.3 s .*rlvtg serve recipe=") as raised:
        Client(url, FACTS, timeout=0.3)
    assert url in str(raised.value)
    assert f"waiting up to 0.3 s for the vLLM server at {url}" in capsys.readouterr().out


def test_a_server_that_is_still_loading_is_waited_for(tmp_path):
    loaded = threading.Event()

    def make():
        loaded.wait(20)
        return Shown(torch.float32)

    with serving(tmp_path, make=make) as served:
        assert ask(served, "GET", "/health") == (503, {"error": "the model is being loaded"})
        with pytest.raises(ServerError, match="the model is being loaded"):
            a_client(served, timeout=0.3)
        threading.Timer(0.3, loaded.set).start()
        a_client(served, timeout=20)


def test_a_server_of_another_model_is_refused_with_what_differs(served):
    with pytest.raises(
        ServerError, match="serves a/model, another model than the run's: its text_config.hidden_size is 64"
    ):
        a_client(served, facts=FACTS | {"text_config.hidden_size": 2048})


def test_a_server_of_another_protocol_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "PROTOCOL", 99)
    with serving(tmp_path) as served, pytest.raises(ServerError, match="speaks protocol 99, this run 1"):
        a_client(served)


def test_a_server_that_dies_is_missed_in_a_sentence(tmp_path):
    with serving(tmp_path) as served:
        client = a_client(served)
    with pytest.raises(ServerError, match="asked for generate: cannot be reached"):
        client.generate([Request([1], [])], **SAMPLING)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8400", "ftp://a", "http://", "http://user:pass@a", "http://a?token=x", 7]
)
def test_an_address_that_cannot_be_one_is_refused(url):
    with pytest.raises(ServerError, match="want one such as http://127.0.0.1:8400") as raised:
        Client(url, FACTS, timeout=0.1)
    assert "pass" not in str(raised.value).replace("password", "")


def test_what_makes_a_model_another_one_is_read_from_its_configuration(tmp_path):
    facts = []
    for name, sizes in (("one", {}), ("same", {}), ("other", {"hidden_size": 128})):
        model, _ = model_and_processor(seed=len(facts), **sizes)
        model.save_pretrained(tmp_path / name)
        facts.append(model_facts(load_config(tmp_path / name)))
    assert facts[0] == facts[1] != facts[2]
    assert json.loads(json.dumps(facts[0])) == facts[0]


def a_recipe(folder, **changes):
    """One that asks a server."""
    stage = GrpoStage(use_vllm=True, vllm_mode="server", **changes)
    return Recipe(name="test", model=str(folder), stages={"rl": stage}), stage


def test_a_run_waits_for_its_server_before_it_loads_a_model(tmp_path):
    model, _ = model_and_processor()
    model.config.save_pretrained(tmp_path)  # a configuration alone: weights could not be loaded
    recipe, stage = a_recipe(tmp_path, vllm_server_base_url=f"http://127.0.0.1:{free_port()}", vllm_server_timeout=0.1)
    with pytest.raises(ServerError, match="no server at"):
        require_servers(recipe, [stage])
    require_servers(recipe, [])
    with serving(tmp_path, facts=model_facts(load_config(tmp_path))) as served:
        recipe, stage = a_recipe(tmp_path, vllm_server_base_url=served.url)
        require_servers(recipe, [stage])
    with serving(tmp_path) as served, pytest.raises(ServerError, match="another model than the run's"):
        recipe, stage = a_recipe(tmp_path, vllm_server_base_url=served.url)
        require_servers(recipe, [stage])


# --- several processes


@pytest.mark.slow
def test_one_process_asks_for_all_and_each_gets_its_own(tmp_path):
    with serving(tmp_path) as served:
        script = Path(__file__).with_name("two_askers.py")
        root = script.parent.parent
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            "2",
            "--master_port",
            str(free_port()),
        ]
        done = subprocess.run(
            [*command, str(script), served.url, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(root), "ACCELERATE_USE_CPU": "true"},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
        assert [one["first"] for one in told] == [[10, 11], [20]]
        assert [one["drawn"] for one in told] == [2, 2]
        assert all("want uint8" in one["error"] for one in told)
        [requests] = served.engine.requests
        assert [request.name for request in requests] == ["a", "b", "c"]
        assert [sorted(loaded) for loaded in served.engine.weights] == [["a", "b.c"]]
