"""The demo's data: small h264 videos with coloured shapes that come and go, annotated in Charades-STA style JSON.

A video lasts a whole number of seconds and shows a noisy, still background. Two events happen in it: a blue and a
yellow circle appear, drift, and vanish, each for some seconds, and perhaps at the same time. The query `a blue circle`
has one answer, because no colour comes twice in a video.

The same videos are annotated for other tasks in our own format, so that any recipe can be tried on them: what a circle
does, and in which half of the video it comes; what happens in the video; where a circle is.
"""

import json
import math
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from rlvtg.data import jsonl
from rlvtg.data.sample import DataError, Sample
from rlvtg.disk import write_whole

COLORS = {"blue": (40, 60, 230), "yellow": (240, 220, 40)}
SIDE = 112  # pixels
FRAME_RATE = 4
SPLITS = ("sft", "rl", "validation", "test")
MOVES = 7.0  # pixels that a circle travels while it is there, from which on it moves; half of the circles do
HALVES = ("in the first half of the video", "in the second half of the video")
BOXES = 8  # of a circle, evenly spaced over its time


def make(folder: str | os.PathLike[str], sizes: dict[str, int], seed: int = 0) -> None:
    """Write what is missing of the demo's splits below `folder`: `<split>.json` and `videos/<split>/*.mp4`.

    With them come `<split>.jsonl` (queries with a verb and with options), `<split>_captions.jsonl` and
    `<split>_boxes.jsonl`, as `samples` makes them.

    Args:
        folder: where to write; made if absent. A file of annotations that is there is left as it is, with its videos.
        sizes: number of videos by split (`sft`, `rl`, `validation`, `test`). The splits share no video.
        seed: decides every pixel and every event.

    Raises:
        DataError: an unknown split, a size below 1, or a folder whose splits were made with another size or seed.
    """
    folder = Path(folder)
    made_from = {"sizes": sizes, "seed": seed}
    for split, size in sizes.items():
        if split not in SPLITS or size < 1:
            raise DataError(
                f"tiny data: got {size} videos for split {split!r}; splits are {', '.join(SPLITS)}, sizes >= 1"
            )
    receipt = folder / "made_from.json"
    if receipt.exists() and json.loads(receipt.read_text()) != made_from:
        raise DataError(
            f"{folder} holds demo data made from {receipt.read_text().strip()}, not from {json.dumps(made_from)}: "
            "choose another tiny.folder, or remove that one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(receipt, json.dumps(made_from) + "\n")
    for split, size in sizes.items():
        annotations = folder / f"{split}.json"
        videos = folder / "videos" / split
        rng = random.Random(f"{seed} {split}")
        stories = {f"{split}_{index:05d}": story(rng) for index in range(size)}
        for name, kind in ((split, "events"), (f"{split}_captions", "captions"), (f"{split}_boxes", "boxes")):
            if not (folder / f"{name}.jsonl").exists():
                jsonl.write(samples(stories, kind), str(folder / f"{name}.jsonl"), ".")
        if annotations.exists():
            continue
        videos.mkdir(parents=True, exist_ok=True)
        jobs = [(str(videos / f"{name}.mp4"), told) for name, told in stories.items()]
        with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(tqdm(pool.map(_write, jobs, chunksize=8), total=size, desc=f"making {split} videos", unit="video"))
        rows = {
            name: {
                "duration": float(told["duration"]),
                "timestamps": [[float(event["start"]), float(event["end"])] for event in told["events"]],
                "sentences": [f"a {event['color']} circle" for event in told["events"]],
            }
            for name, told in stories.items()
        }
        write_whole(annotations, json.dumps(rows, indent=0))


def story(rng: random.Random) -> dict[str, Any]:
    """What happens in one video: its duration in seconds, its events, and the look of its background."""
    duration = rng.randint(16, 24)
    events = []
    for color in rng.sample(list(COLORS), len(COLORS)):
        length = rng.randint(3, 7)
        start = rng.randint(0, duration - length)
        heading, speed = rng.uniform(0, 2 * math.pi), rng.uniform(0, 3)
        events.append(
            {
                "color": color,
                "start": start,
                "end": start + length,
                "radius": rng.uniform(20, 28),
                "center": (rng.uniform(28, SIDE - 28), rng.uniform(28, SIDE - 28)),
                "velocity": (speed * math.cos(heading), speed * math.sin(heading)),
            }
        )
    return {
        "duration": duration,
        "events": events,
        "brightness": rng.randint(90, 150),
        "gradient": rng.uniform(-30, 30),
        "noise": rng.randrange(2**32),
    }


def samples(stories: dict[str, dict[str, Any]], kind: str) -> list[Sample]:
    """What is asked about the stories, by the names of their videos, in one of three ways.

    events: for each circle, `a blue circle moves` or `... rests`, when that is, its `verb`, and as `options` and
        `answer` the half of the video in which it begins.
    captions: for each video, a sentence for each circle in order as `answer`.
    boxes: for each circle, in the part of the video in which it is there, its `BOXES` boxes as `answer`, JSON of
        [x0, y0, x1, y1] in shares of the picture's sides.
    """
    if kind == "captions":
        return [_caption(name, told) for name, told in stories.items()]
    made = {"events": _event, "boxes": _boxes}[kind]
    return [made(name, told, k) for name, told in stories.items() for k in range(len(told["events"]))]


def _verb(event: dict[str, Any]) -> str:
    return "moves" if math.hypot(*event["velocity"]) * (event["end"] - event["start"]) >= MOVES else "rests"


def _event(name: str, told: dict[str, Any], k: int) -> Sample:
    event = told["events"][k]
    masked, verb = f"a {event['color']} circle", _verb(event)
    return Sample(
        id=f"{name}#{k}",
        video=f"{name}.mp4",
        duration=float(told["duration"]),
        query=f"{masked} {verb}",
        spans=((float(event["start"]), float(event["end"])),),
        verb=verb,
        masked_query=masked,
        options=HALVES,
        answer="A" if event["start"] < told["duration"] / 2 else "B",
    )


def _caption(name: str, told: dict[str, Any]) -> Sample:
    events = sorted(told["events"], key=lambda event: event["start"])
    sentences = [
        f"A {event['color']} circle {_verb(event)} from {event['start']} to {event['end']} seconds." for event in events
    ]
    return Sample(
        id=name,
        video=f"{name}.mp4",
        duration=float(told["duration"]),
        query="what happens in the video",
        spans=(),
        task="caption",
        answer=" ".join(sentences),
    )


def _boxes(name: str, told: dict[str, Any], k: int) -> Sample:
    event = told["events"][k]
    length = event["end"] - event["start"]
    places = [_place(event, (number + 0.5) * length / BOXES) for number in range(BOXES)]
    corners = [[x - event["radius"], y - event["radius"], x + event["radius"], y + event["radius"]] for x, y in places]
    return Sample(
        id=f"{name}#{k}",
        video=f"{name}.mp4",
        duration=float(length),
        query=f"a {event['color']} circle",
        spans=(),
        task="tracking",
        video_start=float(event["start"]),
        video_end=float(event["end"]),
        answer=json.dumps([[round(side / SIDE, 3) for side in box] for box in corners]),
    )


def frames(told: dict[str, Any]) -> Iterator[np.ndarray]:
    """The pictures of a story, `FRAME_RATE` per second, uint8 (SIDE, SIDE, 3)."""
    background = told["brightness"] + told["gradient"] * np.linspace(-1, 1, SIDE)[None, :, None]
    background = background + np.random.default_rng(told["noise"]).normal(0, 4, (SIDE, SIDE, 1))
    still = np.repeat(background.clip(0, 255).astype(np.uint8), 3, axis=2)
    for index in range(told["duration"] * FRAME_RATE):
        time = index / FRAME_RATE
        picture = Image.fromarray(still)
        draw = ImageDraw.Draw(picture)
        for event in told["events"]:
            if event["start"] <= time < event["end"]:
                radius = event["radius"]
                x, y = _place(event, time - event["start"])
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLORS[event["color"]])
        yield np.asarray(picture)


def _place(event: dict[str, Any], seconds: float) -> tuple[float, float]:
    """Where a circle's centre is, in pixels, so many seconds after it has come."""
    radius = event["radius"]
    x, y = (
        _bounced(position + speed * seconds, radius, SIDE - radius)
        for position, speed in zip(event["center"], event["velocity"], strict=True)
    )
    return x, y


def _bounced(position: float, low: float, high: float) -> float:
    """A point that moves on a line and turns back at `low` and `high`."""
    offset = (position - low) % (2 * (high - low))
    return low + min(offset, 2 * (high - low) - offset)


def _write(job: tuple[str, dict[str, Any]]) -> None:
    path, told = job
    partial = f"{path}.partial"
    with av.open(partial, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "24", "preset": "ultrafast"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in frames(told):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    os.replace(partial, path)
