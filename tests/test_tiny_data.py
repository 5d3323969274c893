"""The demo's data and model: made anew from a seed, with nothing in the annotations that is not in the pictures."""

import hashlib
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvtg.data.check import check
from rlvtg.data.inverse import inverse_samples
from rlvtg.data.read import read
from rlvtg.data.sample import DataError, Sample
from rlvtg.data.tiny import COLORS, FRAME_RATE, SIDE, SPLITS, frames, make, story
from rlvtg.data.tiny import samples as tiny_samples
from rlvtg.recipe import Source, Video
from rlvtg.text.verbs import tagger
from rlvtg.video.decode import read_clip

SIZES = {"sft": 3, "rl": 2, "validation": 1, "test": 2}
EVERY_FRAME = Video(
    fps=FRAME_RATE,
    min_frames=4,
    max_frames=200,
    min_pixels=784,
    max_pixels=SIDE * SIDE,
    total_pixels=10**8,
    sampling="interval",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "tiny"
    make(folder, SIZES)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file by its name."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def annotations(folder: Path, split: str) -> dict[str, dict[str, Any]]:
    return json.loads((folder / f"{split}.json").read_text())


def test_a_seed_makes_the_same_bytes_every_time_and_another_seed_others(made: Path, tmp_path: Path) -> None:
    make(tmp_path / "again", SIZES)
    make(tmp_path / "other", SIZES, seed=1)
    assert contents(tmp_path / "again") == contents(made)
    other = contents(tmp_path / "other")
    assert other.keys() == contents(made).keys()
    assert not set(other.values()) & set(contents(made).values())


def test_every_split_has_its_annotations_and_as_many_videos_as_asked_for(made: Path) -> None:
    assert {split: len(annotations(made, split)) for split in SPLITS} == SIZES
    files = {f"videos/{split}/{name}.mp4" for split in SPLITS for name in annotations(made, split)}
    written = {f"{split}{end}" for split in SPLITS for end in (".json", ".jsonl", "_captions.jsonl", "_boxes.jsonl")}
    assert set(contents(made)) == files | written | {"made_from.json"}


def test_no_two_videos_tell_the_same_story_within_a_split_or_across() -> None:
    told = [repr(story(rng)) for split in SPLITS for rng in [random.Random(f"0 {split}")] for _ in range(300)]
    assert len(set(told)) == len(told) == 1200


def test_the_splits_share_neither_names_nor_videos_nor_stories(made: Path) -> None:
    names = [name for split in SPLITS for name in annotations(made, split)]
    digests = [digest for name, digest in contents(made).items() if name.endswith(".mp4")]
    stories = [repr(row) for split in SPLITS for row in annotations(made, split).values()]
    for things in (names, digests, stories):
        assert len(set(things)) == len(things) == sum(SIZES.values())


def seen(picture: np.ndarray, color: str) -> bool:
    """Whether a picture (H, W, 3) shows something of a colour that is larger than what coding smears."""
    distance = np.abs(picture.astype(int) - COLORS[color]).max(axis=-1)
    return bool((distance < 50).sum() > 100)


def test_a_circle_is_in_the_pictures_of_its_span_and_in_no_other(made: Path) -> None:
    looked_at = 0
    for name, row in annotations(made, "sft").items():
        clip = read_clip(made / "videos" / "sft" / f"{name}.mp4", EVERY_FRAME)
        assert clip.duration == row["duration"]
        assert clip.timestamps.tolist() == [k / FRAME_RATE for k in range(int(row["duration"]) * FRAME_RATE)]
        spans = dict(zip(row["sentences"], row["timestamps"], strict=True))
        for color in COLORS:
            start, end = spans.get(f"a {color} circle", (0.0, 0.0))
            shown = [seen(picture, color) for picture in clip.frames]
            others = [spans[query] for query in spans if query != f"a {color} circle"]
            for time, found in zip(clip.timestamps.tolist(), shown, strict=True):
                inside = start <= time < end
                # circles may lie over each other
                if found != inside:
                    assert inside and any(begin <= time < stop for begin, stop in others), (name, color, time)
                looked_at += 1
    assert looked_at >= 3 * len(COLORS) * 16 * FRAME_RATE


def test_a_story_is_drawn_at_its_own_pace() -> None:
    told = story(random.Random(0))
    pictures = list(frames(told))
    assert len(pictures) == told["duration"] * FRAME_RATE
    assert {(picture.shape, picture.dtype) for picture in pictures} == {((SIDE, SIDE, 3), np.dtype("uint8"))}


def test_no_colour_comes_twice_and_every_event_lies_within_its_video() -> None:
    for seed in range(300):
        told = story(random.Random(seed))
        assert len({event["color"] for event in told["events"]}) == len(told["events"]) in (2, 3)
        assert all(0 <= event["start"] < event["end"] <= told["duration"] for event in told["events"])


def test_the_annotations_are_read_and_found_good(made: Path) -> None:
    samples = read(Source(str(made / "rl.json"), str(made / "videos" / "rl")))
    assert check(samples, max_bad_fraction=0.0) == samples
    first = annotations(made, "rl")["rl_00000"]
    assert [(sample.id, sample.query, [list(span) for span in sample.spans]) for sample in samples][:2] == [
        (f"rl_00000#{k}", first["sentences"][k], [first["timestamps"][k]]) for k in range(2)
    ]


def of(made: Path, kind: str) -> list[Sample]:
    """The samples of the split sft in one of the ways that serve other tasks, held against their files."""
    source = Source(str(made / f"sft{kind}.jsonl"), str(made / "videos" / "sft"), "jsonl")
    return check(read(source), max_bad_fraction=0.0)


def test_the_same_events_have_a_verb_and_a_question(made: Path) -> None:
    plain, events = read(Source(str(made / "sft.json"), str(made / "videos/sft"))), of(made, "")
    assert [(event.id, event.masked_query, event.spans) for event in events] == [
        (sample.id, sample.query, sample.spans) for sample in plain
    ]
    for event in events:
        half = event.spans[0][0] >= event.duration / 2
        assert event.options is not None and event.answer == "AB"[half]
        assert f"in the {('first', 'second')[half]} half" in event.options["AB".index(event.answer)]
    samples, left_out = inverse_samples(events, tagger=tagger("hanta"))
    assert (len(samples), left_out) == (3 * len(events), [])
    told = [story(rng) for rng in [random.Random("0 rl")] for _ in range(200)]
    verbs = Counter(sample.verb for sample in tiny_samples({str(k): one for k, one in enumerate(told)}, "events"))
    assert set(verbs) == {"moves", "rests"} and min(verbs.values()) > 150


def test_captions_tell_what_happens_in_order(made: Path) -> None:
    captions = {caption.video: caption for caption in of(made, "_captions")}
    assert len(captions) == SIZES["sft"]
    for video, caption in captions.items():
        events = sorted((event for event in of(made, "") if event.video == video), key=lambda event: event.spans[0])
        assert caption.answer == " ".join(
            f"A{event.query[1:]} from {event.spans[0][0]:.0f} to {event.spans[0][1]:.0f} seconds." for event in events
        )


def test_boxes_hold_their_circle_and_little_else(made: Path) -> None:
    """At most overlaid: the colour fills the box as a circle fills its square."""
    for sample in of(made, "_boxes"):
        clip = read_clip(sample.video, EVERY_FRAME, start=sample.video_start, end=sample.video_end)
        color = np.array(COLORS[sample.query.split()[1]])
        boxes = np.array(json.loads(str(sample.answer))) * SIDE
        assert boxes.shape == (8, 4) and clip.duration == sample.duration
        for number, (x0, y0, x1, y1) in enumerate(boxes.round().astype(int)):
            picture = clip.frames[int((number + 0.5) * len(clip.frames) / 8)].astype(int)
            drawn = np.abs(picture - color).max(axis=-1) < 60
            box = np.zeros_like(drawn)
            box[max(0, y0 - 2) : y1 + 3, max(0, x0 - 2) : x1 + 3] = True
            assert not (drawn & ~box).any()


def test_other_annotations_are_added_where_videos_were_made_before(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(made, folder)
    for file in folder.glob("*.jsonl"):
        file.unlink()
    make(folder, SIZES)
    assert contents(folder) == contents(made)


def test_what_is_there_is_left_as_it_is(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "tiny")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "tiny").rglob("*.mp4")}
    make(tmp_path / "tiny", SIZES)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "tiny").rglob("*.mp4")} == times


def test_an_interrupted_making_is_taken_up(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(made, folder)
    (folder / "rl.json").unlink()
    (folder / "videos/rl/rl_00001.mp4").rename(folder / "videos/rl/rl_00001.mp4.partial")
    (folder / "videos/rl/rl_00001.mp4.partial").write_bytes(b"half a file")
    make(folder, SIZES)
    assert contents(folder) == contents(made)


@pytest.mark.parametrize(
    ("sizes", "seed"), [(SIZES, 1), ({**SIZES, "sft": 4}, 0), ({split: SIZES[split] for split in SPLITS[1:]}, 0)]
)
def test_one_folder_holds_the_data_of_one_seed_and_size(made: Path, sizes: dict[str, int], seed: int) -> None:
    before = contents(made)
    with pytest.raises(DataError, match="holds demo data made from .*choose another tiny.folder") as caught:
        make(made, sizes, seed=seed)
    assert str(made) in str(caught.value) and "\n" not in str(caught.value)
    assert contents(made) == before


@pytest.mark.parametrize("sizes", [{"train": 3}, {"sft": 0}])
def test_an_unknown_split_and_an_empty_one_are_refused(tmp_path: Path, sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match="splits are sft, rl, validation, test, sizes >= 1"):
        make(tmp_path / "tiny", sizes)
    assert not (tmp_path / "tiny").exists()
