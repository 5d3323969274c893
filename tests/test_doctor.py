"""The doctor passes what is right, and finds time that is broken on purpose."""

import json
from dataclasses import replace

import pytest
import torch

from rlvtg import doctor
from rlvtg.doctor import ParityError, check_parity, expected_positions, require_parity
from rlvtg.model import inputs as model_inputs
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.recipe import load
from rlvtg.rollout import hf
from tests.own_rows import OBJECTIVE
from tests.tiny_qwen import OTHERS, SHOWN, model_and_processor, row, video_settings, write_video


@pytest.fixture(scope="module")
def tiny():
    return model_and_processor()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", seconds=8)


def encoder(tiny, fps=2.0, **settings):
    model, processor = tiny
    return Encoder(processor, family(model.config), video_settings(fps, **settings))


def faults(lines):
    return {(line.path, line.fps): line.fault for line in lines if line.fault}


PATHS = ["policy", "shared prefix", "sft", "rollout", "evaluation"]


def test_all_paths_agree_at_every_frame_rate(tiny, video):
    model, _ = tiny
    lines = check_parity(model, encoder(tiny, 2.0), row(video), [1.0, 4.0, 1.6])
    assert faults(lines) == {}
    assert [line.path for line in lines] == ["processor", *PATHS] * 4
    assert all(line.difference < 1e-4 for line in lines if line.difference is not None)
    assert sum(line.difference is not None for line in lines) == 4 * 4
    by_rate = {line.fps: line for line in lines}
    assert [round(by_rate[fps].seconds_per_grid, 3) for fps in (1.0, 2.0, 4.0)] == [2.0, 1.0, 0.5]
    assert [by_rate[fps].last_frame for fps in (1.0, 2.0, 4.0)] == [12, 14, 15]  # seconds 6, 7, 7.5 at 2 per second
    assert all(line.text == line.last_frame + 1 for line in lines)


@pytest.mark.parametrize("time", ["text", "overlay"])
def test_all_paths_agree_where_stamps_tell_the_time(tiny, video, time):
    model, _ = tiny
    lines = check_parity(model, encoder(tiny, 1.6, time=time), row(video))
    assert faults(lines) == {}
    assert [line.path for line in lines] == (PATHS if time == "text" else ["processor", *PATHS])


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("settings", [{}, {"time": "overlay"}])
def test_all_paths_agree_in_other_families(video, kind, settings):
    tiny = model_and_processor(family=kind)
    lines = check_parity(tiny[0], encoder(tiny, 2.0, **(SHOWN[kind] | settings)), row(video), [1.6])
    assert faults(lines) == {}
    own = kind == "qwen3_vl" or settings  # whose processor says all that a run says
    assert [line.path for line in lines] == (["processor", *PATHS] if own else PATHS) * 2
    assert all(line.difference < 1e-4 for line in lines if line.difference is not None)


def test_stamps_of_another_time_are_found_by_the_processor_that_would_write_them(video, monkeypatch):
    tiny, right = model_and_processor(family="qwen3_vl"), model_inputs.own_stamps

    def twice_as_fast(clip, processor):
        return right(replace(clip, timestamps=clip.timestamps / 2), processor)

    monkeypatch.setattr(model_inputs, "own_stamps", twice_as_fast)
    found = faults(check_parity(tiny[0], encoder(tiny, 2.0, time="text"), row(video)))
    assert found.keys() == {("processor", 2.0)}
    assert "it wrote " in found["processor", 2.0] and "<1.2 seconds>" in found["processor", 2.0]


def test_dropped_metadata_is_found_on_every_path_that_uses_it(tiny, video, monkeypatch):
    model, _ = tiny
    monkeypatch.setattr(model_inputs, "seconds_per_grid", lambda clip, family: 1.0)
    lines = check_parity(model, encoder(tiny, 2.0), row(video), [1.0])
    found = faults(lines)
    assert {path for path, fps in found} == {"processor", "policy", "shared prefix", "sft", "rollout"}
    assert {fps for _, fps in found} == {1.0}  # the default of one second per grid is right at 2 fps, by luck
    assert "positions are wrong" in found["policy", 1.0]
    with pytest.raises(ParityError, match="time is wrong for .*a.mp4.*policy: .*positions are wrong"):
        require_parity(model, encoder(tiny, 1.0), row(video))
    require_parity(model, encoder(tiny, 2.0), row(video))


def test_the_positions_of_transformers_are_found(tiny, video, monkeypatch):
    model, _ = tiny

    def stock(ids, grids, seconds, kind):
        """What transformers 5.19 makes of the same prompt: text behind a video starts too early."""
        types = (ids == kind.video_token_id).long() * 2
        places, _ = model.model.get_rope_index(
            ids[None], mm_token_type_ids=types[None], video_grid_thw=grids, second_per_grid_ts=torch.tensor(seconds)
        )
        return places[:, 0], int(places.max()) + 1

    monkeypatch.setattr(model_inputs, "prompt_positions", stock)
    found = faults(check_parity(model, encoder(tiny, 2.0), row(video)))
    assert {path for path, _ in found} == {"policy", "shared prefix", "sft", "rollout"}


def test_a_rollout_that_leaves_positions_to_the_model_is_found_alone(tiny, video, monkeypatch):
    model, _ = tiny
    made = hf.batch

    def without_positions(*args, **kwargs):
        call = made(*args, **kwargs)
        width = call["input_ids"].shape[1]
        return call | {"position_ids": torch.arange(width).expand(3, len(call["input_ids"]), -1)}

    monkeypatch.setattr(hf, "batch", without_positions)
    found = faults(check_parity(model, encoder(tiny, 2.0), row(video)))
    assert {path for path, _ in found} == {"rollout"}


def test_other_pixels_on_one_path_are_found_by_their_log_probabilities(tiny, video, monkeypatch):
    model, _ = tiny
    made = doctor.batch

    def darker(*args, **kwargs):
        call = made(*args, **kwargs)
        return call | {"pixel_values_videos": call["pixel_values_videos"] * 0.9}

    monkeypatch.setattr(doctor, "batch", darker)
    [(place, fault)] = faults(check_parity(model, encoder(tiny, 2.0), row(video))).items()
    assert place == ("policy", 2.0) and "log-probabilities differ by" in fault


def test_expected_positions_are_qwens_for_half_a_second_per_grid(tiny, video):
    model, _ = tiny
    kind, encode = family(model.config), encoder(tiny, 4.0)
    clip = encode.clip(row(video))
    one = kind.video_token_id
    places, after = expected_positions([5, one, one, one, one, 100], [(4, 2, 2)], clip, kind, text_time=False)
    assert places[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert places[1].tolist() == [0, 1, 1, 1, 1, 5] and after == 6
    slow = encoder(tiny, 0.5).clip(row(video))
    places, _ = expected_positions([5, one, one, 100], [(2, 2, 2)], slow, kind, text_time=False)
    assert places[0].tolist() == [0, 1, 9, 10]  # 4 seconds per grid, 2 positions per second


def test_the_model_is_left_in_its_mode(tiny, video):
    model, _ = tiny
    model.train()
    check_parity(model, encoder(tiny, 2.0), row(video))
    assert model.training
    model.eval()


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The words of a small demo recipe, made in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sizes = ["tiny.sft=2", "tiny.rl=16", "tiny.validation=1", "tiny.test=1"]
    return [
        "recipe=tiny",
        *sizes,
        "evaluation.before=false",
        "stages.cold_start.per_device_train_batch_size=2",
        "stages.cold_start.max_steps=1",
        "stages.rl.max_steps=1",
    ]


def every_other_position(ids, *_):
    return 2 * torch.arange(len(ids)).expand(3, -1), 2 * len(ids)


@pytest.mark.slow
def test_a_run_refuses_to_train_where_time_is_broken(tmp_path, demo, monkeypatch, capsys):
    from rlvtg.train import main

    monkeypatch.setattr(model_inputs, "prompt_positions", every_other_position)
    assert main(demo) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: time is wrong for ") and "nothing is trained: policy: " in said
    assert not list(tmp_path.rglob("checkpoint-*"))


@pytest.mark.slow
def test_the_command_shows_machine_paths_and_rates_and_fails_where_time_is_broken(demo, monkeypatch, capsys):
    from rlvtg.cli import main

    assert main(["data", "prepare", *demo]) == 0  # makes the demo's videos
    assert main(["doctor", *demo, "video.time=positions", "stages.cold_start.narrate=0"]) == 0
    said = capsys.readouterr().out
    assert "transformers   5." in said and "decoder pyav        found" in said and " GiB   memory" in said
    assert said.rstrip().endswith("time is right on every path")
    rows = [line.split() for line in said.splitlines() if line.startswith("ok ")]
    assert {row[1] for row in rows if row[2] == "rollout"} >= {"clock"} and len({row[1] for row in rows}) == 3
    assert ["ok", "clock", "processor", "4", "0.500", "15", "16", "-"] in rows
    monkeypatch.setattr(model_inputs, "seconds_per_grid", lambda clip, family: 1.0)
    assert main(["doctor", *demo, "video.time=positions", "stages.cold_start.narrate=0"]) == 1
    assert "FAIL  policy at 4 fps, clock: " in capsys.readouterr().out


@pytest.mark.vllm
def test_the_command_tries_vllm_where_the_run_will_sample_with_it(demo, capsys):
    from rlvtg.cli import main

    assert main(["doctor", *demo, "stages.rl.use_vllm=true", "stages.rl.vllm_max_model_length=512"]) == 0
    found = [line.split() for line in capsys.readouterr().out.splitlines() if " vllm " in line]
    assert [(line[1], line[3]) for line in found] == [("clock", fps) for fps in ("1", "2", "4")]


def test_pictures_that_are_not_those_of_their_times_are_found(tiny, tmp_path, monkeypatch):
    doctor._write_clock(tmp_path / "clock.mp4")
    encode = encoder(tiny, 2.0)
    own = row(str(tmp_path / "clock.mp4"))
    assert doctor._clock_line(encode, own).fault is None
    clip = encode.clip(own)
    late = replace(clip, timestamps=clip.timestamps + 0.25)
    monkeypatch.setattr(encode, "clip", lambda _: late)
    assert doctor._clock_line(encode, own).fault == "16 of 16 frames are not those of their times"


def test_the_first_row_of_every_task_is_tried(tmp_path, monkeypatch):
    """Its own prompt, and of an inverse task the segment."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", seconds=8)
    row = {"id": "a", "video": "a.mp4", "duration": 8.0, "query": "a dog jumps", "spans": [[2.0, 5.0]], "verb": "jumps"}
    (tmp_path / "own.jsonl").write_text(json.dumps({**row, "id": "b", "verb": None}) + "\n" + json.dumps(row) + "\n")
    (tmp_path / "mine.yaml").write_text(RECIPE + OBJECTIVE)
    found = doctor._first_rows(load(["recipe=mine.yaml"]))
    asked = [(each["id"], each["prompt"][0]["content"][-1]["text"], each["video_start"]) for each in found]
    assert asked == [("b", "a dog jumps?", None), ("a/verb_completion", "a dog ...", 2.0), ("b", "All?", None)]


RECIPE = """
model: some/model
data: {own: {reader: jsonl, annotations: own.jsonl, videos: .}}
prompt: "{video}{query}?"
grammar: to
evaluation: {data: own}
stages:
  rl:
    data: own
    tasks:
      tvg: {}
      vc: {inverse: verb_completion, prompt: "{video}{masked_query} ..."}
      caption: {prompt: "{video}All?"}
    rewards: {think_format: {}}
    num_generations: 2
    per_device_train_batch_size: 2
"""
