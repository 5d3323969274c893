"""A real vLLM engine and the policy it samples for: the same ids, positions, pixels and weights, so equal numbers."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from rlvtg import doctor
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_config, load_model
from rlvtg.rollout import request as request_module
from rlvtg.rollout.engine import Engine, collapsed
from rlvtg.rollout.request import request, told_fps, video_limits
from rlvtg.training.weights import whole_weights
from tests.tiny_qwen import plain_log_probabilities, row, save, video_settings

G = 4
LONG = "when is the circle red, and not blue, nor yellow, nor any other colour that a circle may have " * 4


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("saved"), seconds=(4, 8, 24))


@pytest.fixture(scope="module")
def kind(saved):
    return family(load_config(saved[0] / "model"))


@pytest.fixture(scope="module")
def engine(saved, kind):
    settings = {
        "dtype": "float32",
        "max_model_len": 1024,
        "max_num_seqs": 32,
        "gpu_memory_utilization": 0.1,
        "limit_mm_per_prompt": video_limits(video_settings(time="text"), kind),
    }
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.set_num_threads
    made = Engine(str(saved[0] / "model"), vision_token_ids=kind.vision_token_ids, settings=settings)
    assert torch.equal(torch.get_rng_state(), states[0])  # the training's randomness is left as it was
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.set_num_threads is states[2]
    return made


@pytest.fixture
def policy(saved, engine):
    """The model as it was saved, whose weights the engine has too."""
    model = load_model(saved[0] / "model").eval()
    engine.load(whole_weights(model))
    return model


def an_encoder(saved, kind, fps=2.0, **settings):
    return Encoder(saved[1], kind, video_settings(fps, **settings))


def sampled(engine, encoder, rows, *, n=G, temperature=1.0, max_tokens=8, seed=3):
    requests = [request(each, encoder(each), encoder) for each in rows]
    return engine.generate(
        requests, n=n, temperature=temperature, top_p=1.0, top_k=0, max_tokens=max_tokens, stop_token_ids=[], seed=seed
    )


def difference(model, encoder, rows, groups):
    """By how much the log-probabilities of the policy and of the engine differ, at most."""
    worst = 0.0
    for each, group in zip(rows, groups, strict=True):
        for one in group:
            expected = plain_log_probabilities(model, encoder(each), torch.tensor(one.token_ids))
            worst = max(worst, float((expected - torch.tensor(one.logprobs)).abs().max()))
    return worst


@pytest.mark.vllm
@pytest.mark.parametrize(
    "settings",
    [{"fps": 1.0}, {"fps": 2.0}, {"fps": 4.0}, {"fps": 1.6}, {"fps": 0.6}, {"time": "text"}, {"time": "overlay"}],
    ids=str,
)
def test_the_engine_samples_with_the_policys_log_probabilities(saved, kind, engine, policy, settings):
    encoder = an_encoder(saved, kind, **settings)
    rows = [row(video) for video in saved[2]]
    groups = sampled(engine, encoder, rows)
    assert [len(group) for group in groups] == [G] * len(rows)
    assert len({tuple(one.token_ids) for one in groups[0]}) > 1
    assert difference(policy, encoder, rows, groups) < 1e-4


@pytest.mark.vllm
def test_doctor_tries_vllm_and_finds_a_clock_of_its_own(saved, kind, engine, policy, monkeypatch):
    encoder = an_encoder(saved, kind)
    lines = doctor.check_parity(policy, encoder, row(saved[2][1]), [1.0], engine=engine)
    assert [line.fps for line in lines if line.path == "vllm"] == [2.0, 1.0]
    assert not any(line.fault for line in lines)
    assert all(0 < line.difference < 1e-4 for line in lines if line.path == "vllm")
    monkeypatch.setattr(doctor, "request", lambda *row: _at_twice_the_rate(request(*row)))
    [wrong] = [line for line in doctor.check_parity(policy, encoder, row(saved[2][1]), engine=engine) if line.fault]
    assert wrong.path == "vllm" and wrong.fault.startswith("log-probabilities differ by ")


def _at_twice_the_rate(made):
    return replace(made, videos=[(frames, {**told, "fps": 2 * told["fps"]}) for frames, told in made.videos])


@pytest.mark.vllm
def test_a_moment_on_a_whole_position_would_come_out_one_below_it_if_vllm_were_told_the_plain_rate(
    saved, kind, engine, policy, monkeypatch
):
    encoder, rows = an_encoder(saved, kind, 0.6), [row(saved[2][2])]
    monkeypatch.setattr(request_module, "NUDGES", (0.0,))
    assert difference(policy, encoder, rows, sampled(engine, encoder, rows)) > 1e-3


def test_the_rate_that_vllm_is_told_is_the_true_one_but_for_rounding():
    clock = SimpleNamespace(temporal_patch_size=2, tokens_per_second=2)
    for fps in (0.3, 0.6, 1.0, 1.6, 2.0, 29.97 / 15, 4.0, 7.3):
        told = told_fps(fps, 400, clock)
        assert told == pytest.approx(fps, rel=1e-6)
        theirs = np.floor(np.arange(400) * float(np.float32(2 / told)) * 2)
        assert theirs.tolist() == np.floor(np.arange(400) * (2 / fps) * 2 + 1e-6).tolist()
    assert told_fps(0.6, 400, SimpleNamespace(temporal_patch_size=2, tokens_per_second=None)) == 0.6


@pytest.mark.vllm
def test_the_same_frames_at_another_rate_are_another_video(saved, kind, engine, policy):
    encoder, each = an_encoder(saved, kind), row(saved[2][1])
    plain = request(each, encoder(each), encoder)
    slow = replace(plain, videos=[(frames, {**metadata, "fps": 0.5}) for frames, metadata in plain.videos])
    made = engine.generate(
        [plain, slow], n=1, temperature=0.0, top_p=1.0, top_k=0, max_tokens=4, stop_token_ids=[], seed=0
    )
    assert abs(made[0][0].logprobs[0] - made[1][0].logprobs[0]) > 1e-3


@pytest.mark.vllm
def test_no_vision_token_is_sampled_which_would_be_often_if_none_were_forbidden(
    saved, kind, engine, policy, monkeypatch
):
    encoder, rows = an_encoder(saved, kind), [row(video) for video in saved[2]]

    def vision_tokens():
        groups = sampled(engine, encoder, rows, n=10, temperature=2.0, max_tokens=32)
        return {token for group in groups for one in group for token in one.token_ids} & set(kind.vision_token_ids)

    assert not vision_tokens()
    monkeypatch.setattr(engine, "_vision_token_ids", ())
    assert vision_tokens()


@pytest.mark.vllm
def test_a_seed_gives_the_same_completions_whatever_else_is_sampled(saved, kind, engine, policy):
    encoder, rows = an_encoder(saved, kind), [row(video) for video in saved[2]]
    torch.manual_seed(0)
    first = sampled(engine, encoder, rows, seed=7)
    state = torch.get_rng_state()
    sampled(engine, encoder, rows[1:], seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert sampled(engine, encoder, rows[:1], seed=7)[0] == first[0]
    assert sampled(engine, encoder, rows, seed=8) != first


@pytest.mark.vllm
def test_a_completion_ends_with_its_stop_token(saved, kind, engine, policy):
    encoder, rows = an_encoder(saved, kind), [row(saved[2][0])]
    [[one]] = sampled(engine, encoder, rows, n=1, temperature=0.0)
    stop = one.token_ids[2]
    [[cut]] = engine.generate(
        [request(rows[0], encoder(rows[0]), encoder)],
        n=1, temperature=0.0, top_p=1.0, top_k=0, max_tokens=8, stop_token_ids=[stop], seed=0,
    )  # fmt: skip
    assert cut.token_ids == one.token_ids[: one.token_ids.index(stop) + 1]


@pytest.mark.vllm
def test_a_video_is_encoded_once_for_its_group_and_for_all_queries_about_it(saved, kind, engine, policy):
    encoder = an_encoder(saved, kind)
    rows = [row(saved[2][0], "red"), row(saved[2][0], "a blue circle"), row(saved[2][1], "red")]
    encoded = []
    # the engine has no public way to its model
    model = engine._llm.llm_engine.model_executor.driver_worker.model_runner.model
    handle = model.visual.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
    sampled(engine, encoder, rows)
    handle.remove()
    assert sum(encoded) == sum(len(encoder(rows[k]).video.pixel_values) for k in (0, 2))


@pytest.mark.vllm
def test_new_weights_are_sampled_from_and_nothing_is_left_of_the_old(saved, kind, engine, policy):
    encoder, rows = an_encoder(saved, kind), [row(video, LONG) for video in saved[2]]
    assert len(encoder(rows[0]).input_ids) > 2 * 128  # a cached prefix is of whole blocks
    assert difference(policy, encoder, rows, sampled(engine, encoder, rows)) < 1e-4
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.05)
    assert difference(policy, encoder, rows, sampled(engine, encoder, rows)) > 1e-2  # nor are weights shared
    engine.load(whole_weights(policy))
    assert difference(policy, encoder, rows, sampled(engine, encoder, rows)) < 1e-4


@pytest.mark.vllm
def test_an_adapter_is_sampled_from_and_never_merged_into_the_model(saved, kind, engine, policy):
    encoder, rows = an_encoder(saved, kind), [row(video, LONG) for video in saved[2]]
    targets = r".*language_model.*\.(q|v|o|down)_proj|.*visual.*\.(qkv|proj)|.*merger\.mlp\.0"
    model = get_peft_model(policy, LoraConfig(r=4, lora_alpha=16, target_modules=targets, init_lora_weights=False))
    model.eval()
    before = copy.deepcopy(model.state_dict())
    assert difference(model, encoder, rows, sampled(engine, encoder, rows)) > 1e-2
    engine.load(whole_weights(model))
    assert difference(model, encoder, rows, sampled(engine, encoder, rows)) < 1e-4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_weights_of_a_model_have_the_names_of_its_checkpoint_with_an_adapter_and_without(saved):
    model = load_model(saved[0] / "model")
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    assert {name for name, _ in whole_weights(model)} == names
    assert "lm_head.weight" in names  # tied, and given all the same
    kept = {name: weight.clone() for name, weight in whole_weights(model)}
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    given = dict(whole_weights(adapted))
    assert given.keys() == names
    moved = {name for name in names if not torch.equal(given[name], kept[name])}
    assert moved == {name for name in names if name.endswith("language_model.layers.0.self_attn.q_proj.weight")} | {
        name for name in names if "q_proj.weight" in name
    }
    merged = dict(adapted.merge_and_unload().named_parameters())
    for name in moved:
        assert (given[name] - merged[name]).abs().max() < 1e-6


@pytest.mark.vllm
def test_a_prompt_that_vllm_reads_otherwise_is_an_error_with_the_name_of_its_row(saved, kind, engine, policy):
    encoder, each = an_encoder(saved, kind), row(saved[2][0])
    good = request(each, encoder(each), encoder)
    place = good.token_ids.index(kind.video_token_id)
    bad = replace(
        good, token_ids=[*good.token_ids[:place], kind.video_token_id, *good.token_ids[place:]], name="the row"
    )
    ways = {"n": 1, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "stop_token_ids": [], "seed": 0}
    with pytest.raises(RuntimeError, match=rf"row the row: vLLM made {len(good.token_ids)} tokens of the prompt"):
        engine.generate([bad], max_tokens=2, **ways)
    with pytest.raises(
        ValueError, match=rf"row {each['id']}: .* tokens of prompt and 1020 of completion .* takes 1024"
    ):
        engine.generate([good], max_tokens=1020, **ways)


@pytest.mark.vllm
@pytest.mark.parametrize("time", ["text", "overlay"])
def test_qwen2_vl_is_sampled_with_the_policys_log_probabilities_too(tmp_path, time):
    folder, processor, videos = save(tmp_path, seconds=(4, 8), family="qwen2_vl")
    model = load_model(folder / "model").eval()
    kind = family(model.config)
    encoder = Encoder(processor, kind, video_settings(2.0, time=time))
    settings = {"dtype": "float32", "max_model_len": 512, "max_num_seqs": 16, "gpu_memory_utilization": 0.1}
    limits = {"limit_mm_per_prompt": video_limits(encoder.settings, kind)}
    engine = Engine(str(folder / "model"), vision_token_ids=kind.vision_token_ids, settings=settings | limits)
    rows = [row(video) for video in videos]
    assert difference(model, encoder, rows, sampled(engine, encoder, rows)) < 1e-4


def test_runs_of_pads_collapse_and_nothing_else():
    assert collapsed([5, 9, 9, 9, 5, 5, 9, 7, 9, 9], video_token_id=9) == [5, 9, 5, 5, 9, 7, 9]


def test_room_is_made_for_the_largest_video_that_the_recipe_allows(kind):
    settings = video_settings(max_frames=64, max_pixels=4 * 784, total_pixels=64 * 784)
    assert video_limits(settings, kind) == {
        "image": 0,
        "video": {"count": 1, "num_frames": 64, "width": 28, "height": 28},
    }
    stamped = video_limits(replace(settings, time="text"), kind)["video"]
    assert stamped == {"count": 32, "num_frames": 2, "width": 56, "height": 56}
