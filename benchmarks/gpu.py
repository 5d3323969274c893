"""What one GPU shows: that the passes of a run agree there, and what a GRPO step costs, the prompt shared and not.

    python -m benchmarks.gpu                                    # Qwen2.5-VL-3B's shape; writes gpu.json and docs/gpu.md
    python -m benchmarks.gpu --only attention parity doctor     # a part; also: train
    python -m benchmarks.gpu --render gpu.json --page docs/gpu.md
    python -m benchmarks.gpu --shape tiny --device cpu          # the same code where there is no GPU

Type it in the checkout. The model has the published shape and random weights, so nothing is downloaded.
The exit status is 1 if a tolerance is exceeded or a way does not fit into the device's memory.

    attention  the attention of a prefix tree, by its one call and part by part, against dense attention with a mask
    parity     log-probabilities and gradients with the prompt shared, against full rows
    doctor     `rlvtg doctor`'s paths: positions and log-probabilities of policy, rollout, SFT and evaluation
    train      GRPO by the real trainer: language model trained whole in float32 under bf16 autocast, vision frozen
"""

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import rlvtg  # noqa: F401  (before torchvision, which it repairs on machines without CUDA)

# isort: split
import accelerate
import av
import numpy as np
import torch
import transformers
import trl
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel, TrainerCallback
from transformers.trainer_utils import SaveStrategy

from rlvtg.cost.flops import head, tokens, update, vision
from rlvtg.cost.shapes import PUBLISHED, Shape
from rlvtg.doctor import Line, check_parity
from rlvtg.model import prefix_attention
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder, Inputs, batch
from rlvtg.model.load import prepare
from rlvtg.model.tiny import tiny_model, tiny_processor
from rlvtg.recipe import GrpoStage, Recipe, RewardSpec, Video
from rlvtg.reward import bind
from rlvtg.training.grpo import VideoGRPOTrainer, grpo_trainer
from rlvtg.training.prefix import packed, unpacked

PEAKS = {
    "NVIDIA A100": 312, "NVIDIA H100 80GB HBM3": 989, "NVIDIA H100 PCIe": 756, "NVIDIA H100 NVL": 835,
    "NVIDIA H200": 989, "NVIDIA GH200": 989, "NVIDIA B200": 2250, "NVIDIA L40S": 362,
}  # fmt: skip
"""How the names of devices begin -> bf16 TFLOP/s without sparsity, by NVIDIA's data sheets."""
# Rounding aside the numbers are equal; what rounding may do to them:
VALUES = {"float32": 1e-4, "bfloat16": 0.3}  # to a log-probability, as in the library's own checks
GRADIENTS = 1e-3  # to all gradients together in float32, relative to their norm
WORSE = 1.5  # by how much more than full rows do a shared prompt may miss float32's gradients in bfloat16
ATTENTION = {"float32": 1e-4, "bfloat16": 3e-2}  # to outputs and gradients of one layer, relative to their norm
REWARD = """\
def spread(completions, **_):
    return [place % 4 / 4 for place in range(len(completions))]
"""  # a random model earns nothing, and a group without differences would have no gradient


@dataclass(frozen=True)
class Sizes:
    """What a shape is tried with.

    Attributes:
        shape: what costs something (`benchmarks.flops`).
        vision_heads: of the vision tower.
        pairs: pairs of frames in the video of the training steps; parity takes half as many.
        side: of a frame, in pixels; a multiple of 28.
        group: completions of a prompt; parity takes half as many.
        completion: tokens of each; parity takes a quarter.
        shallow: layers of both towers in the float32 checks.
        rates: frames per second that the doctor tries.
    """

    shape: Shape
    vision_heads: int
    pairs: int
    side: int
    group: int
    completion: int
    shallow: int
    rates: tuple[float, ...]


SIZES = {
    "3b": Sizes(PUBLISHED["Qwen/Qwen2.5-VL-3B-Instruct"], 16, 20, 280, 8, 256, 4, (1.0, 2.0, 4.0)),
    "tiny": Sizes(Shape(2, 64, 2, 2, 32, 192, 1024, 2, 48, 96, 1), 4, 4, 56, 4, 16, 2, (4.0,)),
}


def configured(sizes: Sizes, layers: int | None = None) -> PreTrainedConfig:
    """A Qwen2.5-VL of the shape, or of fewer layers; its special tokens are those of the demo's tokenizer."""
    shape = sizes.shape
    config = tiny_model(tiny_processor().tokenizer, layers=1).config
    text, tower = config.text_config, config.vision_config
    text.num_hidden_layers = min(layers or shape.layers, shape.layers)
    text.hidden_size, text.intermediate_size, text.vocab_size = shape.hidden, shape.intermediate, shape.vocabulary
    text.num_attention_heads, text.num_key_value_heads = shape.heads, shape.key_heads
    text.max_position_embeddings, text.initializer_range, text.rms_norm_eps = 32768, 0.02, 1e-6
    text.layer_types = ["full_attention"] * text.num_hidden_layers
    eighth = shape.head_width // 8
    sections = [eighth, shape.head_width // 2 // 8 * 3, shape.head_width // 2 // 8 * 3]  # 16, 24, 24 of 64 in Qwen's
    text.rope_parameters = {**text.rope_parameters, "rope_theta": 1e6, "mrope_section": sections}
    tower.depth = min(layers or shape.vision_layers, shape.vision_layers)
    tower.hidden_size, tower.intermediate_size, tower.out_hidden_size = (
        shape.vision_hidden, shape.vision_intermediate, shape.hidden,
    )  # fmt: skip
    tower.num_heads, tower.initializer_range, tower.window_size = sizes.vision_heads, 0.02, 112
    each = shape.vision_layers // shape.vision_full
    tower.fullatt_block_indexes = [at for at in range(each - 1, shape.vision_layers, each) if at < tower.depth]
    config._attn_implementation = "sdpa"
    return config


def made_model(config: PreTrainedConfig, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Random weights that bfloat16 can hold, the same every time, held as `dtype`; not prepared."""
    torch.manual_seed(0)
    with torch.device(device):
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    tokenizer = tiny_processor().tokenizer
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # a change to bfloat16 would round the rotary frequencies too, which loading a model leaves in float32
    return model.float() if dtype == torch.float32 else model


def write_video(path: Path, seconds: int, side: int, rate: int = 2) -> dict[str, Any]:
    """An h264 file of a moving texture, `rate` pictures a second, and a row that asks about it."""
    texture = np.random.default_rng(0).integers(0, 255, (side // 4, side // 4, 3)).astype(np.uint8)
    texture = texture.repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for index in range(rate * seconds + 1):
            picture = np.ascontiguousarray(np.roll(texture, 4 * index, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    question = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "a blue circle"}]}]
    return {
        "id": path.stem, "video": str(path), "query": "a blue circle", "duration": float(seconds),
        "spans": [[1.0, 3.0]], "prompt": question, "task": "grounding", "video_start": None, "video_end": None,
    }  # fmt: skip


def settings(sizes: Sizes, pairs: int) -> Video:
    """Two frames a second, at most `pairs` pairs of them, at their own size."""
    pixels = sizes.side**2
    return Video(fps=2, min_frames=4, max_frames=2 * pairs, min_pixels=pixels, max_pixels=pixels, sampling="interval")


# --- attention


def compare_attention(sizes: Sizes, device: torch.device) -> list[dict[str, Any]]:
    """A tree of one prompt and a group behind it: outputs and gradients against dense attention in float32."""
    shape, group = sizes.shape, sizes.group
    prompt, own = sizes.pairs * sizes.side**2 // 784, sizes.completion
    lengths, parents = [prompt, *range(1, own + 1, max(1, own // group))][: group + 1], [None] + [0] * group
    lengths += [own] * (group + 1 - len(lengths))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        shapes = [
            (1, heads, sum(lengths), shape.head_width) for heads in (shape.heads, shape.key_heads, shape.key_heads)
        ]
        states = [torch.randn(size).to(device, dtype) for size in shapes]
        tree = prefix_attention.plan(lengths, parents, device)
        mask = torch.zeros(sum(lengths), sum(lengths), dtype=torch.bool)
        for segment in range(len(lengths)):
            start, end = tree.offsets[segment : segment + 2]
            places = tree.seen(segment)
            mask[start:end, places] = places <= torch.arange(start, end)[:, None]
        mask = mask.to(device)
        wanted = with_gradients(
            lambda q, k, v, mask=mask: scaled_dot_product_attention(q, k, v, mask, enable_gqa=True).transpose(1, 2),
            [state.float() for state in states],
        )
        ways: dict[str, Callable[..., torch.Tensor]] = {"part by part": prefix_attention._by_part}
        has_call = device.type == "cuda" and dtype == torch.bfloat16 and torch.__version__ >= (2, 13)
        if has_call:
            ways["one call"] = prefix_attention._in_one_call
        for way, attend in ways.items():
            made = with_gradients(lambda q, k, v, attend=attend, tree=tree: attend(q, k, v, tree, None), states)
            far = max(
                float((one.float() - other).norm() / other.norm()) for one, other in zip(made, wanted, strict=True)
            )
            name = str(dtype).removeprefix("torch.")
            found.append({"way": way, "dtype": name, "difference": far, "tolerance": ATTENTION[name]})
    if not any(line["way"] == "one call" for line in found):
        print(f"  the one call is for CUDA and torch 2.13; here: {device.type}, torch {torch.__version__}")
    return found


def with_gradients(attend: Callable[..., torch.Tensor], states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    given = [state.detach().requires_grad_() for state in states]
    found = attend(*given)
    torch.manual_seed(1)
    weights = torch.randn(found.shape).to(found)
    return [found.detach(), *torch.autograd.grad((found * weights).sum(), given)]


# --- parity


@dataclass(frozen=True)
class Learned:
    """What a pass over a group gave: log-probabilities (G, C), and the gradient of each weight."""

    values: torch.Tensor
    gradients: dict[str, torch.Tensor]


def learn(model: PreTrainedModel, way: str, prompt: Inputs, written: torch.Tensor, mask: torch.Tensor) -> Learned:
    """A group's log-probabilities and the gradients of a weighted sum of them: `shared`, `full rows` or `one row`."""
    model.zero_grad()
    kind, parts = family(model.config), [slice(row, row + 1) for row in range(len(written))]
    torch.manual_seed(2)
    weights = torch.randn(written.shape).to(written.device) * mask
    values = torch.zeros(written.shape, device=written.device)
    for part in parts if way == "one row" else [slice(None)]:
        ids, alive = written[part], mask[part]
        rows = [prompt] * len(ids)
        if way == "shared":
            call, places = packed(rows, ids, alive, video_token_id=kind.video_token_id)
            labels = call.pop("shift_labels")[0]
            found = scored(model, model.model(**call).last_hidden_state[0], labels)
            own = unpacked(found[None], places)
        else:
            call = batch(rows, ids, alive, pad_token_id=0)
            hidden = model.model(**call).last_hidden_state[:, -ids.shape[1] - 1 : -1]
            own = scored(model, hidden, ids) * alive
        assert own is not None
        (own * weights[part]).sum().backward()
        values[part] = own.detach()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return Learned(values, gradients)


def scored(model: PreTrainedModel, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of labels in float32."""
    logits = model.get_output_embeddings()(hidden).float()
    return logits.gather(-1, labels[..., None])[..., 0] - logits.logsumexp(-1)


def apart(one: Learned, other: Learned) -> tuple[float, float]:
    """The largest difference of a log-probability, and that of all gradients relative to the norm of `other`'s."""
    squares = sum(float((one.gradients[name].float() - value).norm() ** 2) for name, value in other.gradients.items())
    whole = sum(float(value.float().norm() ** 2) for value in other.gradients.values())
    return float((one.values - other.values).abs().max()), (squares / whole) ** 0.5


def compare_passes(sizes: Sizes, device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """With few layers all is held against full rows in float32; at the full depth, in bfloat16, way against way."""
    pairs, group, length = sizes.pairs // 2, sizes.group // 2, sizes.completion // 4
    row = write_video(folder / "parity.mp4", pairs, sizes.side)
    torch.manual_seed(3)
    written = torch.randint(20, 300, (group, length), device=device)
    mask = (torch.arange(length) < torch.linspace(2, length, group).long()[:, None]).long().to(device)

    def prepared(layers: int | None, dtype: torch.dtype) -> tuple[PreTrainedModel, Inputs]:
        model = made_model(configured(sizes, layers), device, dtype)
        prepare(model)
        return model.train(), Encoder(tiny_processor(), family(model.config), settings(sizes, pairs))(row)

    def line(what: str, dtype: str, of: tuple[float, float], values: float, gradients: float) -> dict[str, Any]:
        return {"what": what, "dtype": dtype, "values": of[0], "values_tolerance": values,
                "gradients": of[1], "gradients_tolerance": gradients}  # fmt: skip

    depth = f"{sizes.shallow} layers"
    model, prompt = prepared(sizes.shallow, torch.float32)
    exact = learn(model, "full rows", prompt, written, mask)
    far = apart(learn(model, "shared", prompt, written, mask), exact)
    found = [line(f"{depth}: shared against full rows", "float32", far, VALUES["float32"], GRADIENTS)]
    del model
    model, prompt = prepared(sizes.shallow, torch.bfloat16)
    missed = {way: apart(learn(model, way, prompt, written, mask), exact) for way in ("full rows", "shared")}
    found.append(line(f"{depth}: full rows against float32", "bfloat16", missed["full rows"], VALUES["bfloat16"], 1.0))
    found.append(line(f"{depth}: shared against float32", "bfloat16", missed["shared"], VALUES["bfloat16"],
                      WORSE * missed["full rows"][1]))  # fmt: skip
    del model, exact
    release(device)
    model, prompt = prepared(None, torch.bfloat16)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    rows = learn(model, "full rows", prompt, written, mask)
    noise = apart(learn(model, "one row", prompt, written, mask), rows)
    found.append(line("all layers: full rows one by one against together", "bfloat16", noise, VALUES["bfloat16"], 1.0))
    found.append(line("all layers: shared against full rows", "bfloat16",
                      apart(learn(model, "shared", prompt, written, mask), rows), VALUES["bfloat16"],
                      max(0.05, 2 * WORSE * noise[1])))  # fmt: skip
    return found


# --- doctor


def examine(sizes: Sizes, device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """The doctor's lines, in float32 with few layers and in bfloat16 with all."""
    row = write_video(folder / "doctor.mp4", 8, sizes.side, rate=8)
    found = []
    for dtype, layers in ((torch.float32, sizes.shallow), (torch.bfloat16, None)):
        model = made_model(configured(sizes, layers), device, dtype)
        prepare(model)
        encoder = Encoder(tiny_processor(), family(model.config), settings(sizes, 16))
        lines: list[Line] = check_parity(model.eval(), encoder, row, sizes.rates)
        name = str(dtype).removeprefix("torch.")
        found += [{"dtype": name, **asdict(line)} for line in lines]
        del model
        release(device)
    return found


# --- training


class Clock(TrainerCallback):
    """Wall seconds of each step, the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.steps = device, list[float]()

    def on_step_begin(self, *given: Any, **known: Any) -> None:
        self.began = now(self.device)

    def on_step_end(self, *given: Any, **known: Any) -> None:
        self.steps.append(now(self.device) - self.began)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def train(sizes: Sizes, device: torch.device, folder: Path, steps: int, peak: float | None) -> list[dict[str, Any]]:
    """A few GRPO steps with the prompt shared and without, after one that does not count."""
    row = write_video(folder / "train.mp4", sizes.pairs, sizes.side)
    rows = [{**row, "id": f"row {number}"} for number in range(steps + 1)]
    saved = folder / "model"
    made_model(configured(sizes), device, torch.bfloat16).save_pretrained(saved)
    tiny_processor().save_pretrained(saved)
    release(device)
    reward = folder / "reward.py"
    reward.write_text(REWARD)
    found = []
    for share in (True, False):
        try:
            found.append(steps_of(sizes, device, folder, rows, steps, share=share, reward=reward, peak=peak))
        except torch.OutOfMemoryError as error:
            found.append({"share_prefix": share, "fault": f"does not fit: {str(error).splitlines()[0]}"})
        release(device)
    return found


def steps_of(
    sizes: Sizes, device: torch.device, folder: Path, rows: list[dict[str, Any]], steps: int, *, share: bool,
    reward: Path, peak: float | None,
) -> dict[str, Any]:  # fmt: skip
    stage = GrpoStage(
        kind="grpo", data="rl", learning_rate=1e-6, lr_scheduler_type="constant", max_steps=steps + 1,
        per_device_train_batch_size=sizes.group, num_generations=sizes.group,
        rewards={f"{reward}:spread": RewardSpec()},
        beta=0.0, loss_type="dapo", scale_rewards="group", epsilon=0.2, num_iterations=1, temperature=1.0,
        max_completion_length=sizes.completion, gradient_checkpointing=True, freeze=["visual"], share_prefix=share,
    )  # fmt: skip
    recipe = Recipe(
        name="gpu", model=str(folder / "model"), bf16=True, use_cpu=device.type == "cpu", report_to=[], grammar="to",
        logging_steps=1, save_steps=10**6,
    )  # fmt: skip
    config = configured(sizes)
    encoder = Encoder(tiny_processor(), family(config), settings(sizes, sizes.pairs))
    rewards = bind(stage.rewards, rows[0].keys(), grammar="to")
    place = folder / f"share_{share}"
    trainer = grpo_trainer(recipe, stage, rows, rewards, recipe.model, encoder, str(place))
    clock, rollouts, written = Clock(device), list[float](), list[int]()
    trainer.args.save_strategy = SaveStrategy.NO  # the last step would be saved: 40 GB
    trainer.add_callback(clock)
    generate = trainer._generate_and_score_completions

    def timed(inputs: Any) -> Any:
        began = now(device)
        output = generate(inputs)
        rollouts.append(now(device) - began)
        written.append(int(output["completion_mask"].sum()))
        if device.type == "cuda" and len(rollouts) == 2:  # the step before was for warming up
            torch.cuda.reset_peak_memory_stats(device)
        return output

    trainer._generate_and_score_completions = timed  # an instance's own attribute comes before its class's method
    trainer.train()
    prompt = len(encoder(rows[0]).input_ids)
    step, rollout = statistics.median(clock.steps[1:]), statistics.median(rollouts[1:])
    completions = statistics.fmean(written[1:])
    length = completions / sizes.group
    counted = update(sizes.shape, prompt, sizes.group, round(length), frame=(sizes.side // 14) ** 2, frozen=True)
    own = counted.prefix_shared if share else counted.vision_shared
    sampled = rollout_operations(sizes, prompt, completions)
    differences = [
        entry["shared_prefix/difference"] for entry in log_of(trainer) if "shared_prefix/difference" in entry
    ]
    return {
        "share_prefix": share, "prompt": prompt, "group": sizes.group, "completion": length, "steps": steps,
        "step_seconds": step, "rollout_seconds": rollout, "update_seconds": step - rollout,
        "rollout_tokens_per_second": completions / rollout,
        "update_tokens_per_second": (sizes.group * prompt + completions) / (step - rollout),
        "step_tokens_per_second": (sizes.group * prompt + completions) / step,
        "update_tflop": own / 1e12, "rollout_tflop": sampled / 1e12,
        "update_mfu": None if peak is None else own / (step - rollout) / (peak * 1e12),
        "step_mfu": None if peak is None else (own + sampled) / step / (peak * 1e12),
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
        "losses": [entry["loss"] for entry in log_of(trainer) if "loss" in entry],
        "gradient_norms": [entry["grad_norm"] for entry in log_of(trainer) if "grad_norm" in entry],
        "difference": differences[0] if differences else None,
    }  # fmt: skip


def log_of(trainer: VideoGRPOTrainer) -> list[dict[str, float]]:
    return trainer.state.log_history


def rollout_operations(sizes: Sizes, prompt: int, completions: float) -> float:
    """One prefill of the prompt with its video, then each token over what stands before it."""
    shape, each = sizes.shape, completions / sizes.group
    prefill = vision(shape, prompt, (sizes.side // 14) ** 2) + tokens(shape, prompt, prompt**2 / 2)
    decode = tokens(shape, round(completions), completions * (prompt + each / 2)) + head(shape, round(completions))
    return prefill + decode


# --- what is written


def about(device: torch.device) -> dict[str, Any]:
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__,
                "accelerate": accelerate.__version__}  # fmt: skip
    facts: dict[str, Any] = {"name": "CPU", "peak_tflops": None, "memory_gib": None, "product_tflops": None}
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        facts = {"name": name, "peak_tflops": peak_of(name),
                 "memory_gib": torch.cuda.get_device_properties(device).total_memory / 2**30,
                 "product_tflops": product(device), "cuda": torch.version.cuda}  # fmt: skip
    return {**facts, "versions": {name: str(version) for name, version in versions.items()}}


def peak_of(name: str) -> float | None:
    return next((float(peak) for start, peak in PEAKS.items() if name.startswith(start)), None)


def product(device: torch.device, size: int = 8192) -> float:
    """bf16 TFLOP/s of a square matrix product, the best of ten."""
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    taken = []
    for _ in range(12):
        began = now(device)
        one @ other
        taken.append(now(device) - began)
    return 2 * size**3 / min(taken[2:]) / 1e12


def faults(found: dict[str, Any]) -> list[str]:
    """What exceeds its tolerance, a sentence each."""
    wrong = [
        f"attention, {line['way']}, {line['dtype']}: {line['difference']:.2g}, tolerance {line['tolerance']:g}"
        for line in found.get("attention", []) if not line["difference"] <= line["tolerance"]
    ]  # fmt: skip
    for line in found.get("parity", []):
        for what in ("values", "gradients"):
            if not line[what] <= line[f"{what}_tolerance"]:
                wrong.append(f"{line['what']}, {line['dtype']}: {what} differ by {line[what]:.2g}, "
                             f"tolerance {line[f'{what}_tolerance']:.2g}")  # fmt: skip
    wrong += [f"doctor, {line['path']} at {line['fps']:g} fps, {line['dtype']}: {line['fault']}"
              for line in found.get("doctor", []) if line["fault"]]  # fmt: skip
    wrong += [
        f"share_prefix {line['share_prefix']}: {line['fault']}" for line in found.get("train", []) if "fault" in line
    ]
    return wrong


def page(found: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    device, peak = found["device"], found["device"]["peak_tflops"]
    versions = ", ".join(f"{name} {version}" for name, version in device["versions"].items())
    memory = f", {device['memory_gib']:.0f} GiB" if device["memory_gib"] else ""
    text = [
        "# What one GPU shows", "",
        f"Written by `python -m benchmarks.gpu --shape {found['shape']}` on: **{device['name']}**{memory}; {versions}. "
        "Random weights, a made video.", "",
    ]  # fmt: skip
    if device["product_tflops"]:
        text += [f"A square bf16 matrix product of 8,192 reaches {device['product_tflops']:.0f} TFLOP/s; the data "
                 f"sheet says {'nothing that this script knows' if peak is None else f'{peak:.0f}'}.", ""]  # fmt: skip
    wrong = faults(found)
    text += ["Every tolerance was kept." if not wrong else "Not as it should be:", "", *(f"- {each}" for each in wrong)]
    if "attention" in found:
        text += ["", "## Attention of a prefix tree, against dense attention in float32", "",
                 "| way | precision | largest relative difference | tolerance |", "|---|---|---|---|"]  # fmt: skip
        text += [f"| {line['way']} | {line['dtype']} | {line['difference']:.1e} | {line['tolerance']:.1e} |"
                 for line in found["attention"]]  # fmt: skip
    if "parity" in found:
        text += ["", "## A shared prompt against full rows", "",
                 "| what | precision | log-probability | tolerance | gradients | tolerance |",
                 "|---|---|---|---|---|---|"]  # fmt: skip
        text += [f"| {line['what']} | {line['dtype']} | {line['values']:.1e} | {line['values_tolerance']:.1e} "
                 f"| {line['gradients']:.1e} | {line['gradients_tolerance']:.1e} |"
                 for line in found["parity"]]  # fmt: skip
        text += ["", "Log-probabilities: the largest difference. Gradients: the norm of all differences over that of "
                 "all gradients."]  # fmt: skip
    if "doctor" in found:
        text += ["", "## Positions and log-probabilities on every path", "",
                 "| path | precision | fps | log-probability | |", "|---|---|---|---|---|"]  # fmt: skip
        for line in found["doctor"]:
            far = "-" if line["difference"] is None else f"{line['difference']:.1e}"
            text.append(f"| {line['path']} | {line['dtype']} | {line['fps']:g} | {far} | {line['fault'] or 'right'} |")
    if "train" in found:
        text += ["", "## GRPO steps by the real trainer", "",
                 "Language model trained whole (float32 weights and AdamW, bf16 autocast, checkpointing), vision "
                 "frozen, generation by Hugging Face. Medians over the steps; tokens are those of all rows, prompts "
                 "included, whichever way they are run.", "",
                 "| prompt shared | P | G | C | step | rollout | update | rollout tokens/s | update tokens/s | "
                 "step tokens/s | update MFU | step MFU | peak memory |",
                 "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for line in found["train"]:
            shared = "yes" if line["share_prefix"] else "no"
            if "fault" in line:
                text.append(f"| {shared} | {line['fault']} |" + " |" * 11)
                continue
            mfu = ["-" if line[key] is None else f"{line[key]:.1%}" for key in ("update_mfu", "step_mfu")]
            memory = "-" if line["peak_gib"] is None else f"{line['peak_gib']:.1f} GiB"
            text.append(
                f"| {shared} | {line['prompt']} | {line['group']} | {line['completion']:.0f} "
                f"| {line['step_seconds']:.2f} s | {line['rollout_seconds']:.2f} s | {line['update_seconds']:.2f} s "
                f"| {line['rollout_tokens_per_second']:.0f} | {line['update_tokens_per_second']:.0f} "
                f"| {line['step_tokens_per_second']:.0f} | {mfu[0]} | {mfu[1]} | {memory} |"
            )
        text += ["", "MFU: the operations that the way needs (`rlvtg/cost/flops.py`; what checkpointing repeats is not "
                 "counted) over time and " + ("the device's peak, which this script does not know for this device."
                 if peak is None else f"{peak:.0f} TFLOP/s.")]  # fmt: skip
    return "\n".join(text) + "\n"


@contextmanager
def part(name: str, device: torch.device) -> Iterator[None]:
    began = now(device)
    print(f"{name} ...", flush=True)
    yield
    release(device)
    print(f"{name}: {now(device) - began:.0f} s", flush=True)


PARTS = ("attention", "parity", "doctor", "train")


def measure(name: str, device: torch.device, only: Sequence[str], steps: int) -> dict[str, Any]:
    """All parts that are asked for."""
    sizes = SIZES[name]
    found: dict[str, Any] = {"shape": name, "device": about(device)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        work: dict[str, Callable[[], Any]] = {
            "attention": lambda: compare_attention(sizes, device),
            "parity": lambda: compare_passes(sizes, device, folder),
            "doctor": lambda: examine(sizes, device, folder),
            "train": lambda: train(sizes, device, folder, steps, found["device"]["peak_tflops"]),
        }
        for each in only:
            with part(each, device):
                found[each] = work[each]()
    return found


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SIZES, default="3b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--steps", type=int, default=3, help="that count, of each way")
    parser.add_argument("--group", type=int, help="completions of a prompt")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--page", type=Path, help="default: docs/gpu.md, and none from a CPU")
    parser.add_argument("--render", type=Path, help="write the page of an earlier call's JSON, and measure nothing")
    given = parser.parse_args(argv)
    if given.render is not None:
        found = json.loads(given.render.read_text(encoding="utf-8"))
    else:
        device = torch.device(given.device)
        # with several at hand Hugging Face's trainer would deal every batch out to all of them
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
        if device.type == "cuda" and not torch.cuda.is_available():
            parser.error("--device cuda: torch finds no GPU here; --shape tiny --device cpu runs the same code")
        if given.group is not None:
            SIZES[given.shape] = replace(SIZES[given.shape], group=given.group)
        found = measure(given.shape, device, given.only, given.steps)
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    written = page(found)
    target = given.page or (Path("docs/gpu.md") if found["device"]["name"] != "CPU" else None)
    if target is not None:
        target.write_text(written, encoding="utf-8")
    print(written)
    return 1 if faults(found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
