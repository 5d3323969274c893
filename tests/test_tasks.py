"""Several tasks in one stage: which rows there are, what their prompts say, and what of their videos is shown."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlvtg.data.sample import DataError
from rlvtg.data_check import check_recipe
from rlvtg.prepare import Prepared, follow, prepare
from rlvtg.recipe import Recipe, load
from rlvtg.video.cache import ClipCache
from rlvtg.video.decode import read_clip
from rlvtg.video.store import clip_store
from tests import own_rows
from tests.numbered_video import every_tenth, frame_numbers, write_video
from tests.own_rows import OBJECTIVE, write

RECIPE = (
    """
model: some/model
data:
  own: {reader: jsonl, annotations: own.jsonl, videos: videos}
  questions: {reader: jsonl, annotations: questions.jsonl, videos: videos}
video: {fps: 2, min_frames: 2, min_pixels: 784, max_pixels: 12544, sampling: interval}
prompt: "{video}When is {query}?"
grammar: to
evaluation: {data: own, prompt: "{video}{query}, when?"}
decode_ahead: false
stages:
  rl:
    data: own
    prompt: "{video}Say when: {query}"
    tasks:
      tvg: {}
      vc: {inverse: verb_completion, prompt: "{video}Complete: {masked_query}"}
      qa: {data: questions, prompt: "{video}{query} {options}"}
      caption: {prompt: "{video}Describe these {duration:.0f} seconds."}
    rewards: {think_format: {weight: 1.0}, verb_completion: {weight: 1.0, tasks: [vc]}}
    num_generations: 2
    per_device_train_batch_size: 2
"""
    + OBJECTIVE
)


def row(name: str, video: str = "a.mp4", **columns: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"query": "a dog jumps", "spans": [[2.0, 5.0]], "verb": "jumps"}
    return own_rows.row(name, video, **given | columns)


def question(name: str, **columns: Any) -> dict[str, Any]:
    given = row(name, query="Who jumps", spans=[], task="qa", options=["a dog", "a cat"], answer="A")
    return given | columns


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in "ab":
        write_video(folder / f"{name}.mp4", every_tenth(100))
    write_video(folder / "slow.mp4", range(0, 10_000, 2000))
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    shutil.copytree(videos, tmp_path / "videos")
    write(row("first"), row("second", "b.mp4"))
    write(question("third"), name="questions")
    return tmp_path


def recipe(*overrides: str) -> Recipe:
    return load(["recipe=mine.yaml", *overrides])


def said(prepared: Prepared) -> dict[str, str]:
    """The text of each row's prompt, by its id."""
    return {each["id"]: each["prompt"][0]["content"][-1]["text"] for each in prepared.stage_rows["rl"]}


def test_every_task_asks_in_its_own_words_about_its_own_data() -> None:
    prepared = prepare(recipe())
    assert said(prepared) == {
        "first/tvg": "Say when: a dog jumps",
        "second/tvg": "Say when: a dog jumps",
        "first/vc": "Complete: a dog",
        "second/vc": "Complete: a dog",
        "third/qa": "Who jumps (A) a dog\n(B) a cat",
        "first/caption": "Describe these 10 seconds.",
        "second/caption": "Describe these 10 seconds.",
    }
    assert all(each["id"].endswith(f"/{each['task']}") for each in prepared.stage_rows["rl"])
    assert {each["prompt"][0]["content"][-1]["text"] for each in prepared.test_rows} == {"a dog jumps, when?"}


def test_a_stage_without_tasks_has_its_prompt_and_the_tasks_of_its_annotations() -> None:
    prepared = prepare(recipe("stages.rl.tasks=null", "stages.rl.rewards.verb_completion=null"))
    assert said(prepared) == {"first": "Say when: a dog jumps", "second": "Say when: a dog jumps"}
    assert {each["task"] for each in prepared.stage_rows["rl"]} == {"grounding"}


def test_prompts_differ_by_phase() -> None:
    second = RECIPE[RECIPE.index("  rl:") :]
    second = second.replace("  rl:", "  cot:").replace("Say when", "Think, then say when")
    Path("mine.yaml").write_text(RECIPE + second)
    prepared = prepare(recipe("stages.rl.prompt=null"))
    asked = {name: prepared.stage_rows[name][0]["prompt"][0]["content"][-1]["text"] for name in prepared.stage_rows}
    assert asked == {"rl": "When is a dog jumps?", "cot": "Think, then say when: a dog jumps"}


# Segments


def segments(settings: Recipe) -> dict[str, dict[str, Any]]:
    """The rows of the inverse task, by the id of the row that they were made from."""
    made = prepare(settings).stage_rows["rl"]
    return {each["id"].removesuffix("/vc"): each for each in made if each["task"] == "vc"}


def shown(settings: Recipe, video: dict[str, Any]) -> tuple[list[int], list[float]]:
    """The numbers of the frames that a row shows, and when they are shown."""
    clip = read_clip(video["video"], settings.video, start=video["video_start"], end=video["video_end"])
    return frame_numbers(clip), clip.timestamps.tolist()


def test_an_inverse_row_shows_its_segment_and_nothing_else() -> None:
    wanted = {
        "inside": ([2.0, 5.0], 3.0, [20, 25, 30, 35, 40, 45]),
        "odd": ([0.0, 1.5], 1.5, [0, 5, 10, 10]),  # an odd count is made even
        "short": ([4.0, 4.2], 1.0, [36, 41]),  # widened around its middle to one temporal patch
        "last": ([9.8, 10.0], 1.0, [90, 95]),
        "long": ([7.0, 11.5], 3.0, [70, 75, 80, 85, 90, 95]),  # runs over the end
    }
    write(*(row(name, spans=[span]) for name, (span, _, _) in wanted.items()))
    settings = recipe()
    for name, video in segments(settings).items():
        _, duration, frames = wanted.pop(name)
        assert video["duration"] == pytest.approx(duration)
        assert video["spans"] == [[0.0, video["duration"]]]
        seen, times = shown(settings, video)
        assert seen == frames
        assert times == [k / 2 for k in range(len(frames))]  # its clock starts with it, at the frames' own pace
    assert not wanted


def test_the_encoders_clips_are_the_segments_from_the_store_too() -> None:
    write(row("first"), row("second", spans=[[6.0, 8.0]]))
    settings = recipe()
    made = segments(settings)
    for _ in range(2):
        clips = ClipCache(settings.video, 10**8, store=clip_store(settings))
        for name, frames in (("first", [20, 25, 30, 35, 40, 45]), ("second", [60, 65, 70, 75])):
            one = made[name]
            assert frame_numbers(clips.get(one["video"], one["video_start"], one["video_end"])) == frames
    assert (clips.decodes, clips.reads) == (0, 2)


def test_a_segment_of_a_slow_file_has_two_frames_of_its_own() -> None:
    write(row("first", "slow.mp4", spans=[[4.0, 4.5]]))
    settings = recipe("video.sampling=linspace")
    assert shown(settings, segments(settings)["first"])[0] == [2, 3]


def test_a_segment_of_a_window_lies_in_the_window() -> None:
    write(row("first", duration=6.0, video_start=3.0, video_end=9.0, spans=[[1.0, 3.0]]))
    settings = recipe()
    assert shown(settings, segments(settings)["first"])[0] == [40, 45, 50, 55]


def test_rows_without_a_target_verb_are_counted_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    write(row("first"), row("none", verb=None), row("noun", query="a dog on grass", verb="grass"),
          row("shown", query="a dog jumps", masked_query="jumps a dog"), row("no word", verb="barks"))  # fmt: skip
    prepared = prepare(recipe())
    assert [name for name in said(prepared) if name.endswith("/vc")] == ["first/vc"]
    assert len([name for name in said(prepared) if name.endswith("/tvg")]) == 5
    listed = [json.loads(line) for line in (prepared.folder / "left_out.rl.vc.jsonl").read_text().splitlines()]
    assert [each["id"] for each in listed] == ["none", "noun", "shown", "no word"]
    assert listed[0]["reason"] == "it has no verb" and "tagger sees no verb 'grass'" in listed[1]["reason"]
    out = capsys.readouterr().out
    assert out.startswith("stages.rl.tasks.vc: 4 of 5 rows of data.own are none of verb_completion, ")


def test_a_task_without_any_row_is_refused() -> None:
    write(row("first", verb=None), row("second", verb=None))
    with pytest.raises(DataError, match=r"stages.rl.tasks.vc: none of 2 rows of data.own is one of verb_completion; "
                       "first: it has no verb"):  # fmt: skip
        prepare(recipe())


def test_a_segment_that_cannot_be_decoded_is_a_bad_row_for_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(Path("videos/gap.mp4"), [*range(0, 2000, 100), *range(9000, 10_000, 100)])
    write(row("first"), row("gap", "gap.mp4", spans=[[4.0, 5.0]]))
    settings = recipe("max_bad_fraction=0.5", "decode_ahead=true")
    prepared = prepare(settings)
    assert [name for name in said(prepared) if name.endswith("/vc")] == ["first/vc"]
    [bad] = [json.loads(line) for line in (prepared.folder / "bad_rows.rl.vc.jsonl").read_text().splitlines()]
    assert (bad["id"], bad["reason"]) == ("gap/verb_completion", "bad clip window")
    assert follow(settings, prepared.folder).stage_rows == prepared.stage_rows
    with pytest.raises(DataError, match="stages.rl.tasks.vc: 1 of 2 rows are bad"):
        prepare(recipe("decode_ahead=true"))


# What a row lacks


def test_a_row_that_lacks_what_its_prompt_shows_is_named() -> None:
    write(question("third"), question("fourth", options=None), name="questions")
    with pytest.raises(DataError, match=r"^stages.rl.tasks.qa: row 'fourth/qa' has no options, which the prompt shows"):
        prepare(recipe())


def test_an_epoch_with_shares_must_fill_a_generation_batch() -> None:
    shares = [f"stages.rl.tasks.{key}.share={share}" for key, share in
              (("tvg", 0.5), ("vc", 0.2), ("qa", 0.2), ("caption", 0.1))]  # fmt: skip
    assert len(prepare(recipe(*shares, "stages.rl.per_device_train_batch_size=8")).stage_rows["rl"]) == 7
    with pytest.raises(DataError, match=r"stages.rl.tasks: got 4 rows an epoch, but stage rl takes 5 at once"):
        prepare(recipe(*shares, "stages.rl.per_device_train_batch_size=10"))


def test_data_check_counts_segments(capsys: pytest.CaptureFixture[str]) -> None:
    write(row("first"), row("none", verb=None))
    assert check_recipe(recipe(), decode=True, folder="checked") == 0
    out = capsys.readouterr().out
    assert "stages.rl.tasks.vc: 1 segments from 2 rows of data.own\n       1  it has no verb, e.g. none\n" in out
    assert "data.questions: 1 rows" in out
