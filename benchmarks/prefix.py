"""What a policy update costs when a group shares its prompt, against full rows and against rows that share the vision.

    python benchmarks/prefix.py update --prompt 2048 --group 8 --completion 128 [--repeats 5] [--ragged]
    python benchmarks/prefix.py grid > grid.md
    python benchmarks/prefix.py plot grid.md prefix.png
    python benchmarks/prefix.py queries [--queries 4]
    python benchmarks/prefix.py memory
    python benchmarks/prefix.py step
    python benchmarks/prefix.py tower
    python benchmarks/prefix.py model

The model has random weights in float32 (text: width 256, 4 layers; vision: width 128, 4 layers) and is trained whole.
What is compared takes turns in this one process on one core, and times are of the CPU, so that a busy machine slows all
alike: read the ratios, which are of neighbouring runs, not the seconds. Ways:

    full rows      what TRL's trainer does: G rows of prompt and completion, each with its own pixels
    vision shared  the same rows, but each video goes through the tower once
    prefix shared  what rlvtg does: the prompt once, then the completions

The first two run transformers' own attention, in the tower too. All three score the tokens of completions only.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}

import rlvtg  # noqa: F401, I001  (before torchvision, which it repairs on machines without CUDA)
import av
import numpy as np
import torch
from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

from rewards.think_format import think_format
from rewards.tiou import tiou
from rlvtg.cost.flops import update
from rlvtg.cost.shapes import PUBLISHED, Shape
from rlvtg.model import prefix_attention, vision_attention
from rlvtg.model.family import family
from rlvtg.model.grids import grid_arguments
from rlvtg.model.inputs import Encoder, Inputs, VideoInputs, batch
from rlvtg.model.load import prepare
from rlvtg.model.patch_embedding import PatchProjection
from rlvtg.model.positions import prompt_positions
from rlvtg.model.tiny import tiny_model, tiny_processor
from rlvtg.recipe import Video
from rlvtg.rollout.hf import rollout
from rlvtg.training.prefix import packed

BENCHMARK = Shape(4, 256, 4, 2, 64, 688, 2048, 4, 128, 344, 2)
SIDE = 20  # patches along each side of a frame: 100 tokens for a pair of frames
WAYS = ("full rows", "vision shared", "prefix shared")
GRID = [
    *((512, group, completion) for group in (4, 8, 16) for completion in (32, 128)),
    *((1024, group, 128) for group in (4, 8, 16)),
    *((2048, group, 32) for group in (4, 8)),
    *((2048, 8, completion) for completion in (128, 256)),
]


def a_model() -> Qwen2_5_VLForConditionalGeneration:
    """Random weights in the shapes of `BENCHMARK`, prepared as a run prepares them."""
    config = tiny_model(tiny_processor().tokenizer, layers=1).config
    text, tower = config.text_config, config.vision_config
    text.hidden_size, text.num_hidden_layers, text.intermediate_size = 256, 4, 688
    text.num_attention_heads, text.num_key_value_heads, text.vocab_size = 4, 2, 2048
    text.max_position_embeddings = 32768
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    tower.depth, tower.hidden_size, tower.intermediate_size, tower.num_heads = 4, 128, 344, 4
    tower.fullatt_block_indexes, tower.out_hidden_size = [1, 3], 256
    text.layer_types = ["full_attention"] * 4
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    prepare(model)
    return model.train()


def a_prompt(
    model: Qwen2_5_VLForConditionalGeneration, length: int, query: int = 8, video: VideoInputs | None = None
) -> Inputs:
    """A prompt of `length` tokens, `query` of text at most behind a video of random pixels."""
    facts = family(model.config)
    pairs = (length - query) * 4 // SIDE**2
    if video is None:
        grids = torch.tensor([[pairs, SIDE, SIDE]])
        video = VideoInputs(torch.randn(pairs * SIDE**2, 1176), grids, (1.0,), (0.0,))
    shown = int(video.grids.prod()) // 4
    text = torch.randint(20, 300, (length - shown,))
    ids = torch.cat([torch.full((shown,), facts.video_token_id), text])
    positions, after = prompt_positions(ids, video.grids, [1.0], facts)
    return Inputs(ids, positions, torch.full_like(ids, -100), after, video)


@dataclass
class Work:
    """Rows of one update: B prompts, of which those of a group are the same object, and their completions (B, C)."""

    rows: list[Inputs]
    completions: torch.Tensor
    mask: torch.Tensor

    def part(self, rows: slice) -> "Work":
        return Work(self.rows[rows], self.completions[rows], self.mask[rows])


def some_work(prompts: Sequence[Inputs], group: int, length: int, *, ragged: bool = False) -> Work:
    rows = [prompt for prompt in prompts for _ in range(group)]
    completions = torch.randint(20, 300, (len(rows), length))
    lengths = (
        torch.linspace(1, length, group).long().repeat(len(prompts)) if ragged else torch.full((len(rows),), length)
    )
    return Work(rows, completions, (torch.arange(length) < lengths[:, None]).long())


def use_tower(model: Qwen2_5_VLForConditionalGeneration, stock: bool) -> None:
    """The vision tower as transformers runs it, or as rlvtg does."""
    model.config.vision_config._attn_implementation = "sdpa" if stock else vision_attention.NAME
    model.model.visual.patch_embed.proj.__class__ = torch.nn.Conv3d if stock else PatchProjection


def learn(model: Qwen2_5_VLForConditionalGeneration, way: str, work: Work, *, gradient: bool = True) -> torch.Tensor:
    """One forward pass over the work in one of the ways, and a backward pass; the log-probabilities summed."""
    stock = way != "prefix shared"
    model.config.text_config._attn_implementation = "sdpa" if stock else prefix_attention.NAME
    use_tower(model, stock)
    with torch.set_grad_enabled(gradient):
        if stock:
            call = batch(work.rows, work.completions, work.mask, pad_token_id=0)
            if way == "full rows":
                del call["video_rows"]
                call["pixel_values_videos"] = torch.cat([row.video.pixel_values for row in work.rows])
                call["video_grid_thw"] = torch.cat([row.video.grids for row in work.rows])
            hidden = model.model(**call).last_hidden_state
            hidden = hidden[:, -work.completions.shape[1] - 1 : -1][work.mask.bool()]
            labels = work.completions[work.mask.bool()]
        else:
            call, _ = packed(work.rows, work.completions, work.mask, video_token_id=family(model.config).video_token_id)
            labels = call.pop("shift_labels")[0]
            hidden = model.model(**call).last_hidden_state[0]
        logits = model.lm_head(hidden)
        total = (logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(1)).sum()
        if gradient:
            total.backward()
    return total.detach()


def timed(act: Callable[[], object]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started


def in_turns(acts: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each act, taken in turns, after one run of each that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for turn in range(repeats + 1):
        for name, act in acts.items():
            seconds = timed(act)
            if turn:
                taken[name].append(seconds)
    return taken


def ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    """Median (range) of the ratios of neighbouring runs."""
    found = [one / other for one, other in zip(slow, fast, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def seconds(taken: Sequence[float]) -> str:
    return f"{statistics.median(taken):.2f} s"


def compare_updates(prompt: int, group: int, completion: int, repeats: int, *, ragged: bool, one_by_one: bool) -> None:
    """The three ways at one size, as a row of a table."""
    model = a_model()
    work = some_work([a_prompt(model, prompt)], group, completion, ragged=ragged)

    def act(way: str) -> Callable[[], object]:
        def run() -> None:
            model.zero_grad()
            if one_by_one and way == "full rows":
                for row in range(group):
                    learn(model, way, work.part(slice(row, row + 1)))
            else:
                learn(model, way, work)

        return run

    taken = in_turns({way: act(way) for way in WAYS}, repeats)
    counted = update(BENCHMARK, prompt, group, completion)
    full, shared, tree = (taken[way] for way in WAYS)
    model_full, model_shared = (value / counted.prefix_shared for value in (counted.full_rows, counted.vision_shared))
    form = " ragged" if ragged else ""
    print(
        f"| {prompt} | {group} | {completion}{form} | {seconds(full)} | {seconds(shared)} | {seconds(tree)} "
        f"| {ratio(full, tree)} | {model_full:.2f} | {ratio(shared, tree)} | {model_shared:.2f} |",
        flush=True,
    )


HEADER = (
    "| P | G | C | full rows | vision shared | prefix shared | full / prefix | FLOPs | vision / prefix | FLOPs |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def compare_queries(prompt: int, queries: int, group: int, completion: int, repeats: int) -> None:
    """Several queries of one video: all in one tree, a tree for each, and full rows."""
    model = a_model()
    first = a_prompt(model, prompt, 16)
    others = [a_prompt(model, prompt, 16, first.video) for _ in range(queries - 1)]
    work = some_work([first, *others], group, completion)

    def act(way: str, size: int) -> Callable[[], object]:
        def run() -> None:
            model.zero_grad()
            for start in range(0, queries * group, size):
                learn(model, way, work.part(slice(start, start + size)))

        return run

    taken = in_turns(
        {
            "full rows, one at a time": act("full rows", 1),
            "a group at a time": act("prefix shared", group),
            "all groups of the video": act("prefix shared", queries * group),
        },
        repeats,
    )
    together = taken["all groups of the video"]
    for name, found in taken.items():
        print(
            f"| {prompt} | {queries} | {group} | {completion} | {name} | {seconds(found)} | {ratio(found, together)} |"
        )


def peak(way: str, prompt: int, group: int, completion: int, size: int, frozen: bool) -> None:
    """Print by how much one update raises this process's peak memory, in MB."""
    model = a_model()
    if frozen:
        model.model.visual.requires_grad_(False)
        model.gradient_checkpointing_enable({"use_reentrant": False})
    work = some_work([a_prompt(model, prompt)], group, completion)
    learn(model, way, some_work([a_prompt(model, 128)], 2, 4))  # what the first call of all takes for good
    model.zero_grad()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for start in range(0, group, size):
        learn(model, way, work.part(slice(start, start + size)))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


def compare_memory(prompt: int, group: int, completion: int, repeats: int) -> None:
    print("| trained | way | MB above the model, median (range) | times rows one at a time |\n|---|---|---|---|")
    for frozen, what in ((False, "all"), (True, "all but the vision tower, checkpointing")):
        found = {}
        for way, size in (("full rows", 1), ("full rows", group), ("vision shared", group), ("prefix shared", group)):
            command = [sys.executable, __file__, "peak", way, *map(str, (prompt, group, completion, size, int(frozen)))]
            taken = [
                int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
                for _ in range(repeats)
            ]
            name = f"{way}, one at a time" if size == 1 else way
            found[name] = statistics.median(taken)
            times = found[name] / found["full rows, one at a time"]
            print(f"| {what} | {name} | {found[name]:.0f} ({min(taken)} to {max(taken)}) | {times:.2f} |", flush=True)


def write_video(path: Path, pictures: int) -> str:
    """An h264 file of a moving texture, a picture of 280 by 280 pixels a second at 2 a second."""
    texture = np.random.default_rng(0).integers(0, 255, (70, 70, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 280, 280, "yuv420p"
        for index in range(pictures):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.roll(texture, 4 * index, 1).copy(), format="rgb24"))
            )
        container.mux(stream.encode())
    return str(path)


def compare_steps(group: int, completion: int, repeats: int) -> None:
    """A whole GRPO step: read the video, sample, reward, update; the parts of each, in CPU seconds."""
    model, processor = a_model(), tiny_processor()
    settings = Video(fps=2, min_frames=4, max_frames=40, min_pixels=280 * 280, max_pixels=280 * 280)
    sampling = GenerationConfig(
        do_sample=True, max_new_tokens=completion, min_new_tokens=completion, pad_token_id=0, eos_token_id=2, top_k=0
    )
    with tempfile.TemporaryDirectory() as folder:
        video = write_video(Path(folder) / "video.mp4", 41)
        message = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "a red circle"}]}]
        row = {"prompt": message, "video": video, "video_start": None, "video_end": None}

        def step(way: str) -> dict[str, float]:
            share, parts, done = way == "prefix shared", {}, time.process_time()

            def note(part: str) -> None:
                nonlocal done
                now = time.process_time()
                parts[part], done = now - done, now

            model.zero_grad()
            encode = Encoder(processor, family(model.config), settings)
            encode.clip(row)
            note("decode")
            rows = [encode(row)]
            if not share:  # the prompt of each row is processed for the rollout and again for the loss
                for _ in range(2 * group - 1):
                    encode._videos.clear()
                    rows.append(encode(row))
                rows = rows[:group]
            note("process")
            model.eval()
            if share:
                use_tower(model, stock=False)
                model.config.text_config._attn_implementation = prefix_attention.NAME
                made = rollout(model, rows, sampling, num_generations=group)
                rows = rows * group
            else:
                made = stock_rollout(model, rows, sampling)
            model.train()
            note("sample")
            texts = [[{"role": "assistant", "content": text}] for text in processor.batch_decode(made)]
            spans, ids = [[[2.0, 5.0]]] * group, ["a"] * group
            tiou(texts, spans, id=ids, duration=[20.0] * group, grammar="to")
            think_format(texts)
            note("reward")
            written = torch.tensor(made)
            learn(model, way, Work(rows, written, torch.ones_like(written)))
            note("update")
            return parts

        found: dict[str, list[dict[str, float]]] = {"full rows": [], "prefix shared": []}
        for turn in range(repeats + 1):
            for way, steps in found.items():
                parts = step(way)
                if turn:
                    steps.append(parts)
    print("| part | full rows | prefix shared | ratio |\n|---|---|---|---|")
    for part in [*found["full rows"][0], "whole step"]:
        slow, fast = (
            [sum(one.values()) if part == "whole step" else one[part] for one in steps] for steps in found.values()
        )
        print(f"| {part} | {statistics.median(slow):.3f} s | {statistics.median(fast):.3f} s | {ratio(slow, fast)} |")


@torch.no_grad()
def stock_rollout(
    model: Qwen2_5_VLForConditionalGeneration, rows: Sequence[Inputs], config: GenerationConfig
) -> list[list[int]]:
    """Generation as TRL asks for it: the prompt and the pixels of each completion in a row of their own."""
    model.config.text_config._attn_implementation = "sdpa"
    use_tower(model, stock=True)
    nothing = torch.zeros((len(rows), 0), dtype=torch.long)
    call = batch(rows, nothing, nothing, pad_token_id=0)
    del call["video_rows"]
    call["pixel_values_videos"] = torch.cat([row.video.pixel_values for row in rows])
    call["video_grid_thw"] = torch.cat([row.video.grids for row in rows])
    sequences = model.generate(**call, generation_config=config)
    return sequences[:, call["input_ids"].shape[1] :].tolist()


def compare_towers(repeats: int) -> None:
    """The vision tower alone, forward and backward, as transformers runs it and as rlvtg does."""
    model = a_model()
    print("| videos | transformers | rlvtg | ratio |\n|---|---|---|---|")
    for name, grids in (
        ("one of 20 pairs of frames, 20 x 20 patches", [[20, SIDE, SIDE]]),
        ("20 of one pair of frames, 20 x 20 patches", [[1, SIDE, SIDE]] * 20),
        ("320 of one pair of frames, 2 x 2 patches", [[1, 2, 2]] * 320),
    ):
        grid = torch.tensor(grids)
        pixels = torch.randn(int(grid.prod(dim=1).sum()), 1176)

        def run(stock: bool, grid: torch.Tensor = grid, pixels: torch.Tensor = pixels) -> None:
            use_tower(model, stock)
            known = {} if stock else grid_arguments(grid, model.model.visual)
            torch.cat(model.model.get_video_features(pixels, grid, **known).pooler_output).sum().backward()

        taken = in_turns({"stock": lambda run=run: run(True), "ours": lambda run=run: run(False)}, repeats)
        stock, ours = taken["stock"], taken["ours"]
        print(f"| {name} | {seconds(stock)} | {seconds(ours)} | {ratio(stock, ours)} |", flush=True)


def draw(table: Path, picture: Path) -> None:
    """What `grid` printed: measured ratios over those that are counted."""
    from matplotlib import pyplot

    rows = [line.strip("|\n ").split(" | ") for line in table.read_text().splitlines()[2:]]
    figure, axes = pyplot.subplots(figsize=(6, 5), layout="constrained")
    for measured, counted, name, mark in ((6, 7, "full rows", "o"), (8, 9, "rows that share the vision", "s")):
        points = [(float(row[counted].strip(" |")), float(row[measured].split()[0])) for row in rows]
        axes.plot(*zip(*points, strict=True), mark, label=f"against {name}")
        for (x, y), row in zip(points, rows, strict=True):
            axes.annotate(
                f"P{row[0]} G{row[1]} C{row[2]}", (x, y), fontsize=5, xytext=(3, -5), textcoords="offset points"
            )
    largest = axes.get_xlim()[1]
    axes.plot([1, largest], [1, largest], color="grey", linewidth=0.8)
    axes.set(xlabel="times the operations, counted", ylabel="times the CPU time, measured")
    axes.legend()
    figure.savefig(picture, dpi=150)


def print_model() -> None:
    """Full rows over prefix shared, and vision shared over prefix shared, for the released shapes: counted, not run."""
    print("| model | P | C | G 4 | G 8 | G 16 |\n|---|---|---|---|---|---|")
    for name, shape in ((size, PUBLISHED[f"Qwen/Qwen2.5-VL-{size}-Instruct"]) for size in ("3B", "7B")):
        for prompt, completion in ((2048, 256), (4096, 256), (16384, 256), (4096, 1024)):
            cells = []
            for group in (4, 8, 16):
                whole = update(shape, prompt, group, completion)
                frozen = update(shape, prompt, group, completion, frozen=True)
                cells.append(
                    f"{whole.full_rows / whole.prefix_shared:.1f}, {frozen.full_rows / frozen.prefix_shared:.1f}, "
                    f"{whole.vision_shared / whole.prefix_shared:.1f}"
                )
            print(f"| {name} | {prompt} | {completion} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=["update", "grid", "queries", "memory", "step", "tower", "model", "plot", "peak"]
    )
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--completion", type=int, default=128)
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ragged", action="store_true", help="completions of 1 to C tokens")
    parser.add_argument("--one-by-one", action="store_true", help="full rows one at a time")
    parser.add_argument("rest", nargs="*")
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = given.prompt, given.group, given.completion
    if given.what == "update":
        print(HEADER)
        compare_updates(*size, given.repeats, ragged=given.ragged, one_by_one=given.one_by_one)
    elif given.what == "grid":
        print(HEADER)
        for prompt, group, completion in GRID:
            compare_updates(prompt, group, completion, given.repeats, ragged=False, one_by_one=True)
    elif given.what == "queries":
        compare_queries(given.prompt, given.queries, given.group, given.completion, given.repeats)
    elif given.what == "memory":
        compare_memory(*size, given.repeats)
    elif given.what == "step":
        compare_steps(given.group, given.completion, given.repeats)
    elif given.what == "tower":
        compare_towers(given.repeats)
    elif given.what == "model":
        print_model()
    elif given.what == "plot":
        draw(*map(Path, given.rest))
    else:
        way, *numbers = given.rest
        prompt, group, completion, rows, frozen = map(int, numbers)
        peak(way, prompt, group, completion, rows, bool(frozen))


if __name__ == "__main__":
    main()
