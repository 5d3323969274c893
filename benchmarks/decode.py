"""What decoding and encoding a video costs, and what is saved by doing it once.

    python benchmarks/decode.py [--repeats 7] [--seconds 60] [--steps 6]

Makes h264 files in a temporary folder and prints three tables: decode work per epoch without a cache, with the clips in
memory and with the clips on disk; sampled frames per second of our reader and of qwen-vl-utils with decord; and, on the
demo's model, GRPO with and without the cache of vision features. What is compared runs in turns in this one process on
one core, so a busy machine slows both: read the ratios of neighbouring runs, not the seconds.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.environ |= {"OMP_NUM_THREADS": "1", "FORCE_QWENVL_VIDEO_READER": "decord", "TQDM_DISABLE": "1"}

import rlvtg  # noqa: F401, I001  (before torchvision, which it repairs on machines without CUDA)
import av
import decord
import numpy as np
import torch
from qwen_vl_utils import fetch_video

from rlvtg.model.family import family
from rlvtg.model.features import FeatureCache
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_config, load_processor
from rlvtg.model.tiny import make
from rlvtg.recipe import GrpoStage, Recipe, RewardSpec, Video
from rlvtg.reward import bind
from rlvtg.training.grpo import grpo_trainer
from rlvtg.video.backend import pictures
from rlvtg.video.cache import ClipCache
from rlvtg.video.decode import read_clip
from rlvtg.video.index import read_index
from rlvtg.video.store import ClipStore

FPS, WIDTH, HEIGHT = 25, 640, 360


def write_video(path: Path, seconds: int, seed: int, keyframe_every: int) -> str:
    """An h264 file of a drifting texture with noise, which compresses about as well as a filmed scene."""
    generator = np.random.default_rng(seed)
    texture = generator.integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": str(keyframe_every)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(seconds * FPS):
            large = np.roll(texture, (index // 3, index // 2), (0, 1)).repeat(4, 0).repeat(4, 1)
            noisy = (large + generator.integers(-6, 6, large.shape)).clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def seconds_of(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def epochs(files: Sequence[str], settings: Video, folder: Path) -> None:
    """Decode work per epoch, by where the clips are kept."""
    print(f"{'clips kept':<12}{'epoch':>6}{'decodes':>9}{'from memory':>13}{'from disk':>11}{'seconds':>9}")
    caches = {
        "nowhere": ClipCache(settings, max_bytes=0),
        "in memory": ClipCache(settings, max_bytes=2**31),
        "on disk": ClipCache(settings, max_bytes=0, store=ClipStore(folder / "clips", 2**31)),
    }
    for name, cache in caches.items():
        for epoch in (1, 2):
            before = np.array([cache.decodes, cache.hits, cache.reads])
            taken = seconds_of(lambda cache=cache: [cache.get(file) for file in files])
            decodes, hits, reads = np.array([cache.decodes, cache.hits, cache.reads]) - before
            print(f"{name:<12}{epoch:>6}{decodes:>9}{hits:>13}{reads:>11}{taken:>9.2f}")


def readers(files: Sequence[str], settings: Video, repeats: int) -> None:
    """Sampled frames per second of our reader and of qwen-vl-utils, and of the decoding in each alone."""
    asked = {
        "fps": settings.fps, "min_frames": settings.min_frames, "max_frames": settings.max_frames,
        "min_pixels": settings.min_pixels, "max_pixels": settings.max_pixels, "total_pixels": settings.total_pixels,
    }  # fmt: skip
    ours, theirs, ours_decode, theirs_decode = [], [], [], []
    chosen = {}
    for file in files:
        _, metadata = fetch_video(asked | {"video": file}, return_video_metadata=True)
        chosen[file] = metadata["frames_indices"]
        assert metadata["video_backend"] == "decord"
        assert len(read_clip(file, settings).frames) == len(chosen[file])
    for turn in range(repeats):
        for file, numbers in chosen.items():

            def decode_ours(file: str = file, numbers: Sequence[int] = numbers) -> object:
                return pictures("pyav", file, read_index(file), numbers, lambda picture: picture.copy())

            def decode_theirs(file: str = file, numbers: Sequence[int] = numbers) -> object:
                return decord.VideoReader(file).get_batch(numbers).asnumpy()

            pair = [
                (ours, lambda file=file: read_clip(file, settings)),
                (theirs, lambda file=file: fetch_video(asked | {"video": file})),
                (ours_decode, decode_ours),
                (theirs_decode, decode_theirs),
            ]
            for taken, work in pair if turn % 2 else pair[::-1]:
                taken.append(seconds_of(work))
    frames = len(chosen[files[0]])
    for name, a, b in (("file to clip", ours, theirs), ("decoding alone", ours_decode, theirs_decode)):
        ratios = [slow / fast for fast, slow in zip(a, b, strict=True)]
        print(f"{name:<16}{frames:>7}{spread([frames / x for x in a]):>24}{spread([frames / x for x in b]):>28}"
              f"{spread(ratios, 2):>24}")  # fmt: skip


def features(files: Sequence[str], folder: Path, repeats: int, steps: int) -> None:
    """GRPO on the demo's model with frozen vision: videos through the tower, and seconds of a step."""
    make(folder / "model")
    settings = Video(fps=1.0, min_frames=4, max_frames=64, min_pixels=784, max_pixels=50176, sampling="interval")
    recipe = Recipe(name="decode", model=str(folder / "model"), bf16=False, use_cpu=True, report_to=[], grammar="to")
    stage = GrpoStage(
        kind="grpo", data="rl", learning_rate=1e-5, lr_scheduler_type="constant", per_device_train_batch_size=8,
        max_steps=steps, rewards={"tiou": RewardSpec()}, num_generations=8, beta=0.04, loss_type="dapo",
        scale_rewards="group", epsilon=0.2, num_iterations=2, temperature=1.0, max_completion_length=16,
        freeze=["visual"],
    )  # fmt: skip
    rows = [
        {"id": file, "video": file, "query": "it moves", "duration": 60.0, "spans": [[2.0, 5.0]], "prompt": prompt}
        for file in files
        for prompt in [[{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "it moves"}]}]]
    ]
    rewards = bind(stage.rewards, rows[0].keys(), grammar="to")
    processor, kind = load_processor(recipe.model), family(load_config(recipe.model))
    clips = ClipStore(folder / "clips", 2**31)
    taken: dict[bool, list[float]] = {False: [], True: []}
    videos: dict[bool, int] = {}
    for turn in range(repeats + 1):
        for cached in (False, True) if turn % 2 else (True, False):
            cache = FeatureCache(2**30) if cached else None
            encoder = Encoder(processor, kind, settings, store=clips, features=cache)
            trainer = grpo_trainer(recipe, stage, rows, rewards, recipe.model, encoder, str(folder / "out"))
            for row in rows:
                encoder(row)  # so that decoding is in neither
            grids: list[int] = []
            for model in (trainer.model, trainer.ref_model):
                model.base_model.visual.register_forward_pre_hook(
                    lambda _, args, kwargs, grids=grids: grids.append(len(kwargs["grid_thw"])), with_kwargs=True
                )
            trainer.args.disable_tqdm = True
            spent = seconds_of(trainer.train) / steps
            videos[cached] = sum(grids)
            if turn:  # the first turn warms up
                taken[cached].append(spent)
    ratios = [plain / kept for plain, kept in zip(taken[False], taken[True], strict=True)]
    print(f"videos through the tower in {steps} steps on {len(files)} videos: "
          f"{videos[False]} without, {videos[True]} with")  # fmt: skip
    print(f"seconds of a step: {spread(taken[False], 3)} without, {spread(taken[True], 3)} with; "
          f"ratio {spread(ratios, 2)}")  # fmt: skip


def main() -> None:
    """Make the files and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=60, help="length of the files")
    parser.add_argument("--steps", type=int, default=6, help="of GRPO")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dense = Video(fps=2.0, max_pixels=200704)
    sparse = Video(fps=2.0, max_frames=8, max_pixels=200704)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        far = [write_video(folder / f"far_{n}.mp4", args.seconds, n, 250) for n in range(2)]
        near = [write_video(folder / f"near_{n}.mp4", args.seconds, n, FPS) for n in range(2)]
        size = sum(os.path.getsize(file) for file in far) / len(far) / 2**20
        print(f"files: {WIDTH}x{HEIGHT}, {args.seconds} s, {FPS} fps, h264, {size:.1f} MiB; {args.repeats} repeats\n")
        print("1. decode work of 2 epochs over 4 videos, 2 frames a second")
        epochs(far + near, dense, folder)
        print("\n2. sampled frames a second: median (range), and how many times ours that is")
        print(f"{'':<16}{'frames':>7}{'rlvtg':>24}{'qwen-vl-utils with decord':>28}{'rlvtg faster by':>24}")
        for files, settings, what in (
            (far, dense, "2 a second; a keyframe every 10 s"),
            (near, dense, "2 a second; a keyframe every second"),
            (far, sparse, "8 in all; a keyframe every 10 s"),
            (near, sparse, "8 in all; a keyframe every second"),
        ):
            print(what)
            readers(files, settings, args.repeats)
        print("\n3. the cache of vision features, GRPO on the demo's model, vision frozen, beta 0.04, 2 iterations")
        features(far, folder, args.repeats, args.steps)


if __name__ == "__main__":
    main()
