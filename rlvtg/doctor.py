"""Is time right on this machine, with this model? One video goes through every path that a run takes, and what reaches
the language model on each is held against the times in the file.

The positions that a path must use are worked out here from the frames' presentation times, token by token, and from
nothing that the paths use; the log-probabilities that it must give come from one plain, unpadded call of the model with
those positions. So a library that drops or changes time anywhere on the way is caught, whichever version it is.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from transformers import PreTrainedModel

from rlvtg.data.inverse import inverse_samples
from rlvtg.data.read import read
from rlvtg.data.row import rows
from rlvtg.data.sample import Sample
from rlvtg.evaluation.predict import greedy, predict
from rlvtg.model import tiny as tiny_model
from rlvtg.model.family import Family, family
from rlvtg.model.inputs import Encoder, Inputs, batch
from rlvtg.model.load import load_config, load_model, load_processor
from rlvtg.model.prefix_attention import obstacle
from rlvtg.recipe import GrpoStage, Recipe, RecipeError, is_made, tasks_of
from rlvtg.rollout.client import OneForAll
from rlvtg.rollout.engine import Engine
from rlvtg.rollout.hf import rollout
from rlvtg.rollout.request import request
from rlvtg.training.engine_rollout import engine_of
from rlvtg.training.prefix import packed, unpacked
from rlvtg.training.sft import collator, target
from rlvtg.video.decode import Clip
from rlvtg.video.sampling import FRAMES_PER_PATCH

Row = Mapping[str, Any]

TOLERANCE = 1e-4
"""Of log-probabilities in float32."""
COARSE_TOLERANCE = 0.3
"""Of log-probabilities in bfloat16 or float16, whose rounding depends on how rows are batched and padded."""

_NEW_TOKENS = 8


class ParityError(RecipeError):
    """This recipe's model, on this machine, does not see the time that a video has."""


@dataclass(frozen=True)
class Line:
    """What one path did with one video.

    Attributes:
        path: decoder, processor, policy, shared prefix, rollout, sft, evaluation or vllm.
        video: the row's id.
        fps: frames per second that were asked for.
        seconds_per_grid: seconds from one temporal patch to the next, by the frames' presentation times.
        last_frame: time position of the last temporal patch, relative to the first; None for the decoder.
        text: time position of the first token behind the video, relative to the first patch; None for the decoder.
        difference: largest difference of a log-probability; None where the path gives none.
        fault: what is wrong, or None.
    """

    path: str
    video: str
    fps: float
    seconds_per_grid: float
    last_frame: int | None
    text: int | None
    difference: float | None
    fault: str | None


def check_parity(
    model: PreTrainedModel,
    encoder: Encoder,
    row: Row,
    rates: Sequence[float] = (),
    *,
    tolerance: float | None = None,
    engine: Engine | OneForAll | None = None,
) -> list[Line]:
    """One line per path and frame rate; every path is tried, whatever the others did.

    Args:
        model: a model from `load_model`, or a PEFT wrapper of one.
        encoder: a run's encoder; its own frame rate is tried first.
        row: a row of a run, with `prompt`, `video`, `id`, `query`, `duration` and `spans`.
        rates: further frame rates.
        tolerance: of log-probabilities; default by the model's dtype.
        engine: vLLM with the same weights, if it is to be tried too.
    """
    if tolerance is None:
        exact = model.dtype == torch.float32 and not torch.is_autocast_enabled(model.device.type)
        tolerance = TOLERANCE if exact else COARSE_TOLERANCE
    lines = []
    was_training = model.training
    model.eval()
    try:
        for fps in dict.fromkeys([encoder.settings.fps, *rates]):
            lines += _at_one_rate(model, _at(encoder, fps), row, tolerance, engine)
    finally:
        model.train(was_training)
    return lines


def require_parity(model: PreTrainedModel, encoder: Encoder, row: Row) -> None:
    """The short form, before the first step of a stage: the run's own frame rate.

    Raises:
        ParityError: what is wrong, and on which path.
    """
    faults = [f"{line.path}: {line.fault}" for line in check_parity(model, encoder, row) if line.fault]
    if faults:
        raise ParityError(
            f"time is wrong for {row['video']}, so nothing is trained: {'; '.join(faults)}; "
            "rlvtg doctor recipe=... shows every path"
        )


RATES = (1.0, 2.0, 4.0)
_FRAMES, _FPS = 64, 8  # of the clip whose times are known


def examine(recipe: Recipe, *, tolerance: float | None = None) -> list[Line]:
    """Every path at several frame rates with a clip whose times are known from its pictures, and at the recipe's rate
    with the first video of each stage, or of each of its tasks.

    Args:
        recipe: a loaded recipe; its model is loaded as its first stage would load it.
        tolerance: of log-probabilities; default by the model's dtype.
    """
    if recipe.tiny is not None and is_made(recipe, recipe.model):
        tiny_model.make(recipe.model, seed=recipe.tiny.seed, family=recipe.family)
    kind = family(load_config(recipe.model), recipe.family)
    processor = load_processor(recipe.model)
    stage = next(iter(recipe.stages.values()))
    dtype = torch.bfloat16 if recipe.bf16 and stage.lora is not None else torch.float32
    device = "cuda" if torch.cuda.is_available() and not recipe.use_cpu else "cpu"
    model = load_model(recipe.model, dtype=dtype, attn_implementation=recipe.attn_implementation).to(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clock.mp4"
        _write_clock(path)
        sample = Sample("clock", str(path), _FRAMES / _FPS, "the picture becomes white", ((2.0, 5.0),),
                        masked_query="the picture white", options=("yes", "no"))  # fmt: skip
        row = rows([sample], recipe.prompt, recipe.system)[0]
        encoder = Encoder(processor, kind, recipe.video)
        engine = _engine(recipe, encoder)
        lines = [_clock_line(_at(encoder, fps), row) for fps in dict.fromkeys([recipe.video.fps, *RATES])]
        lines += check_parity(model, encoder, row, RATES, tolerance=tolerance, engine=engine)
    for own in _first_rows(recipe):
        lines += check_parity(model, encoder, own, tolerance=tolerance, engine=engine)
    return lines


def _engine(recipe: Recipe, encoder: Encoder) -> Engine | OneForAll | None:
    """That of the first stage that samples with vLLM in its own process; a server may be at work for another run."""
    for stage in recipe.stages.values():
        if isinstance(stage, GrpoStage) and stage.use_vllm and stage.vllm_mode == "colocate":
            return engine_of(recipe, stage, recipe.model, encoder)
    return None


def report(lines: Sequence[Line]) -> str:
    """The lines as a table, the failing ones marked and explained below it."""
    head = ("", "video", "path", "fps", "s/grid", "last frame", "text", "log-prob")
    table = ["{:4}  {:20}  {:13}  {:>5}  {:>7}  {:>10}  {:>5}  {:>8}".format(*head)]
    for line in lines:
        last, text = ("-" if position is None else str(position) for position in (line.last_frame, line.text))
        difference = "-" if line.difference is None else f"{line.difference:.1e}"
        table.append(
            f"{'FAIL' if line.fault else 'ok':4}  {line.video[-20:]:20}  {line.path:13}  {line.fps:5g}  "
            f"{line.seconds_per_grid:7.3f}  {last:>10}  {text:>5}  {difference:>8}"
        )
    faults = [f"FAIL  {line.path} at {line.fps:g} fps, {line.video}: {line.fault}" for line in lines if line.fault]
    return "\n".join([*table, "", *(faults or ["time is right on every path"])])


def _first_rows(recipe: Recipe) -> list[dict[str, Any]]:
    """The first row of each stage, or of each of its tasks, whose data is there."""
    found = []
    tasks = [task for stage in recipe.stages.values() for task in tasks_of(recipe, stage).values()]
    for name, prompt, inverse in dict.fromkeys((str(task.data), str(task.prompt), task.inverse) for task in tasks):
        source = recipe.data[name]
        if Path(source.annotations).is_file():
            good = [sample for sample in read(source) if Path(sample.video).is_file()]
            if inverse is not None:
                good, _ = inverse_samples(good, tasks=(inverse,), shortest=FRAMES_PER_PATCH / recipe.video.fps)
            found += rows(good[:1], prompt, recipe.system)
    return found


def _write_clock(path: Path) -> None:
    """A video whose pictures tell their number: the n-th is grey of brightness 20 + 3 n."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_FPS)
        stream.width, stream.height, stream.pix_fmt = 224, 224, "yuv420p"  # square fits every budget
        for number in range(_FRAMES):
            picture = np.full((224, 224, 3), 20 + 3 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _clock_line(encoder: Encoder, row: Row) -> Line:
    """Whether the frames of the clip of known times are the ones that their time stamps say."""
    clip = encoder.clip(row)
    told = (clip.frames.mean(axis=(1, 2, 3)) - 20) / 3 / _FPS
    wrong = int((np.abs(told - clip.timestamps) > 0.5 / _FPS).sum())
    step = encoder.family.temporal_patch_size * float(clip.timestamps[-1] - clip.timestamps[0]) / (len(told) - 1)
    return Line(
        path="decoder",
        video=row["id"],
        fps=encoder.settings.fps,
        seconds_per_grid=step,
        last_frame=None,
        text=None,
        difference=None,
        fault=f"{wrong} of {len(told)} frames are not those of their times" if wrong else None,
    )


def expected_positions(
    ids: Sequence[int], grids: Sequence[Sequence[int]], clip: Clip, family: Family, *, text_time: bool
) -> tuple[torch.Tensor, int]:
    """The positions (3, P) of a prompt and of its first completion token, by the rule of its family.

    Args:
        ids: P token ids.
        grids: (t, h, w) of each video, in patches.
        clip: the frames' presentation times.
        family: pads and clock.
        text_time: whether each temporal patch is a video of its own behind its stamp; the clip's seconds are then in
            the text alone.
    """
    times = clip.timestamps
    second_per_patch = family.temporal_patch_size * (times[-1] - times[0]) / (len(times) - 1)
    # positions for each temporal patch: as many as its seconds are worth, or one where positions hold no seconds
    worth = 1.0 if family.tokens_per_second is None else second_per_patch * family.tokens_per_second
    places: list[tuple[int, int, int]] = []
    here, token, video = 0, 0, 0
    while token < len(ids):
        if ids[token] != family.video_token_id:
            places.append((here, here, here))
            here, token = here + 1, token + 1
            continue
        steps, rows, columns = grids[video][0], *(side // family.merge_size for side in grids[video][1:])
        for step in range(steps):
            moment = 0 if text_time else math.floor(step * worth + 1e-9)
            places += [(here + moment, here + r, here + c) for r in range(rows) for c in range(columns)]
        here = max(max(place) for place in places[token:]) + 1
        token, video = len(places), video + 1
    return torch.tensor(places).T, here


def _at(encoder: Encoder, fps: float) -> Encoder:
    if fps == encoder.settings.fps:
        return encoder
    return Encoder(encoder.processor, encoder.family, replace(encoder.settings, fps=fps), store=encoder.clips.store)


@dataclass
class _Truth:
    """What every path is held against."""

    row: Row
    prompt: Inputs
    positions: torch.Tensor  # (3, P)
    next_position: int
    target: torch.Tensor  # (C,) a completion, the same for all
    log_probs: torch.Tensor  # (C,)


def _at_one_rate(
    model: PreTrainedModel, encoder: Encoder, row: Row, tolerance: float, engine: Engine | OneForAll | None
) -> list[Line]:
    paths = _PATHS if engine is None else _PATHS | {"vllm": partial(_vllm, engine)}
    settings, clip, kind = encoder.settings, encoder.clip(row), encoder.family
    with torch.no_grad():
        truths = [_truth(model, encoder, some) for some in (row, _longer(row))]
        faults: list[tuple[str, float | None, str | None]] = []
        for name, path in paths.items():
            stamps_are_ours = settings.time == "text" and not (kind.writes_stamps and settings.time_format is None)
            if name == "processor" and stamps_are_ours:
                continue  # a processor alone knows nothing of them
            difference, fault = path(model, encoder, truths)
            is_coarse = name == "vllm" and engine is not None and not engine.is_exact
            allowed = max(tolerance, COARSE_TOLERANCE) if is_coarse else tolerance
            if fault is None and difference is not None and not difference <= allowed:
                fault = f"log-probabilities differ by {difference:.2g}, tolerance {allowed:g}"
            faults.append((name, difference, fault))
    truth = truths[0]
    is_video = truth.prompt.input_ids == encoder.family.video_token_id
    moments = truth.positions[0][is_video]
    behind = int(is_video.nonzero()[-1]) + 1
    text = truth.positions[0, behind] if behind < len(is_video) else torch.tensor(truth.next_position)
    seconds = (clip.timestamps[-1] - clip.timestamps[0]) / (len(clip.timestamps) - 1)
    return [
        Line(
            path=name,
            video=row["id"],
            fps=settings.fps,
            seconds_per_grid=float(seconds) * encoder.family.temporal_patch_size,
            last_frame=int(moments.max() - moments.min()),
            text=int(text - moments.min()),
            difference=difference,
            fault=fault,
        )
        for name, difference, fault in faults
    ]


def _longer(row: Row) -> Row:
    """The same video with a longer question, so that prompts of two lengths are padded together."""
    messages = [dict(message) for message in row["prompt"]]
    content = messages[-1]["content"]
    messages[-1]["content"] = [*content, {"type": "text", "text": " Answer for this video alone."}]
    return {**row, "prompt": messages, "id": f"{row['id']} (longer)"}


def _truth(model: PreTrainedModel, encoder: Encoder, row: Row) -> _Truth:
    prompt = encoder(row)
    start, end = row["spans"][0] if row.get("spans") else (0.0, 1.0)
    answer = [{"role": "assistant", "content": [{"type": "text", "text": f"{start:.1f} to {end:.1f}"}]}]
    ids = target(answer, encoder.processor)
    positions, after = expected_positions(
        prompt.input_ids.tolist(),
        prompt.video.grids.tolist(),
        encoder.clip(row),
        encoder.family,
        text_time=encoder.family.has_stamps(encoder.settings.time),
    )
    places = torch.cat([positions, (after + torch.arange(len(ids))).expand(3, -1)], dim=1)
    device = model.device
    logits = model(
        input_ids=torch.cat([prompt.input_ids, ids])[None].to(device),
        position_ids=places[:, None].to(device),
        pixel_values_videos=prompt.video.pixel_values.to(device),
        video_grid_thw=prompt.video.grids.to(device),
    ).logits
    log_probs = _log_probs(logits[:, -len(ids) - 1 : -1], ids[None].to(device))[0]
    return _Truth(row, prompt, positions, after, ids, log_probs)


def _log_probs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (B, C) of ids (B, C) under logits (B, C, vocabulary), in float32."""
    return logits.float().log_softmax(-1).gather(2, ids[..., None])[..., 0].cpu()


@contextmanager
def _seen(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """The positions (3, B, L) that reach the language model in each of its calls."""
    [language_model] = [part for name, part in model.named_modules() if name.endswith("language_model")]
    calls: list[torch.Tensor] = []

    def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        places = kwargs.get("position_ids")
        # a fourth row in front counts tokens, for masks
        calls.append(torch.empty(3, 0, 0) if places is None else places[-3:].detach().cpu())

    handle = language_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def _position_fault(seen: torch.Tensor, prompt: torch.Tensor, after: torch.Tensor) -> str | None:
    """What is wrong with the positions (3, L) of a prompt and the tokens that follow it."""
    wanted = torch.cat([prompt, after], dim=1)
    if seen.shape != wanted.shape:
        return f"{tuple(seen.shape)} positions reached the model, want {tuple(wanted.shape)}"
    wrong = (seen != wanted).any(dim=0).nonzero().flatten().tolist()
    if not wrong:
        return None
    place = wrong[0]
    return (
        f"{len(wrong)} of {wanted.shape[1]} positions are wrong; token {place} has {seen[:, place].tolist()}, "
        f"want {wanted[:, place].tolist()}"
    )


def _follow(truth: _Truth, count: int) -> torch.Tensor:
    return (truth.next_position + torch.arange(count)).expand(3, -1)


def _teacher_forced(
    model: PreTrainedModel, call: dict[str, Any], truths: Sequence[_Truth]
) -> tuple[float | None, str | None]:
    """One padded call over [prompt, target] rows."""
    with _seen(model) as calls:
        logits = model(**{key: value for key, value in call.items() if key != "labels"}).logits
    if len(calls) != 1:
        return None, f"the language model was called {len(calls)} times, want once"
    difference = 0.0
    for index, truth in enumerate(truths):
        ids = truth.target[None].to(logits.device)
        width = call["input_ids"].shape[1] - max(len(some.target) for some in truths)
        mine = slice(width - len(truth.prompt.input_ids), width + len(truth.target))
        seen = calls[0][:, min(index, calls[0].shape[1] - 1), mine]
        fault = _position_fault(seen, truth.positions, _follow(truth, len(truth.target)))
        if fault:
            return None, fault
        found = _log_probs(logits[index : index + 1, width - 1 : width - 1 + len(truth.target)], ids)[0]
        difference = max(difference, float((found - truth.log_probs).abs().max()))
    return difference, None


def _processor(model: PreTrainedModel, encoder: Encoder, truths: Sequence[_Truth]) -> tuple[float | None, str | None]:
    """The model's processor, given frames and their metadata, makes the ids and the clock that a run uses.

    Where it stamps every temporal patch, transformers 5.19 leaves the markers of the whole video standing around all of
    them. transformers 4.57, with which Qwen3-VL was released, and vLLM have them replaced (vllm#46817), and so has a
    run: here the processor is given a bare pad.
    """
    processor, stamped = encoder.processor, encoder.family.writes_stamps
    for truth in truths:
        clip, prompt = encoder.clip(truth.row), truth.prompt
        text = processor.apply_chat_template(truth.row["prompt"], tokenize=False, add_generation_prompt=True)
        if stamped:
            markers = processor.vision_start_token, processor.vision_end_token
            text = text.replace(processor.video_token.join(markers), processor.video_token)
        metadata = {
            "total_num_frames": len(clip.frames),
            "fps": clip.fps,
            "duration": len(clip.frames) / clip.fps,
            "frames_indices": list(range(len(clip.frames))),
        }
        if stamped:  # made from the times of frames, which need not be evenly spaced
            metadata |= {"fps": 1.0, "frames_indices": clip.timestamps.tolist()}
        made = processor(
            text=[text],
            videos=[torch.from_numpy(clip.frames).permute(0, 3, 1, 2)],
            video_metadata=[metadata],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )
        if made["input_ids"][0].tolist() != prompt.input_ids.tolist():
            wrote = processor.tokenizer.decode(made["input_ids"][0]).replace(processor.video_token, "")
            return None, f"{made['input_ids'].shape[1]} ids, want the run's {len(prompt.input_ids)}; it wrote {wrote!r}"
        if "second_per_grid_ts" in made:
            found, wanted = float(made["second_per_grid_ts"][0]), prompt.video.seconds_per_grid[0]
            if abs(found - wanted) > 1e-6 * wanted:
                return None, f"{found:g} seconds per grid, want {wanted:g}"
    return None, None


def _policy(model: PreTrainedModel, encoder: Encoder, truths: Sequence[_Truth]) -> tuple[float | None, str | None]:
    """The plain update: padded rows, each with its completion."""
    pad = encoder.processor.tokenizer.pad_token_id
    ids, mask = _targets(model, truths, pad)
    return _teacher_forced(model, batch([truth.prompt for truth in truths], ids, mask, pad_token_id=pad), truths)


def _targets(model: PreTrainedModel, truths: Sequence[_Truth], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets (B, C), padded, and where they have tokens."""
    ids = torch.full((len(truths), max(len(truth.target) for truth in truths)), pad)
    mask = torch.zeros_like(ids)
    for index, truth in enumerate(truths):
        ids[index, : len(truth.target)] = truth.target
        mask[index, : len(truth.target)] = 1
    return ids.to(model.device), mask.to(model.device)


def _shared_prefix(
    model: PreTrainedModel, encoder: Encoder, truths: Sequence[_Truth]
) -> tuple[float | None, str | None]:
    """The update in which a prompt is run once for its group: two completions behind each prompt."""
    if obstacle(model) is not None:
        return None, None  # such a model runs the plain update
    twice = [truth for truth in truths for _ in range(2)]
    ids, mask = _targets(model, twice, encoder.processor.tokenizer.pad_token_id)
    call, places = packed([truth.prompt for truth in twice], ids, mask, video_token_id=encoder.family.video_token_id)
    labels, plan = call.pop("shift_labels"), call["prefix_plan"]
    with _seen(model) as calls:
        logits = model(**call).logits
    found = unpacked(_log_probs(logits, labels.clamp_min(0)), places.cpu())
    if len(calls) != 1 or found is None:
        return None, f"the language model was called {len(calls)} times, want once"
    difference = 0.0
    for row, truth in enumerate(twice):
        count = len(truth.target)
        branch = plan.offsets.index(int(plan.scored[places[row, 0]]))
        seen = calls[0][:, 0, plan.seen(branch)]
        fault = _position_fault(seen, truth.positions, _follow(truth, count - 1))
        if fault:
            return None, fault
        difference = max(difference, float((found[row, :count] - truth.log_probs).abs().max()))
    return difference, None


def _sft(model: PreTrainedModel, encoder: Encoder, truths: Sequence[_Truth]) -> tuple[float | None, str | None]:
    """Supervised training's collator."""
    rows = []
    for truth in truths:
        text = encoder.processor.tokenizer.decode(truth.target[:-1])
        answer = [{"role": "assistant", "content": [{"type": "text", "text": text}]}]
        rows.append({**truth.row, "completion": answer})
    call = {
        key: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for key, value in collator(encoder)(rows).items()
    }
    return _teacher_forced(model, call, truths)


def _rollout(model: PreTrainedModel, encoder: Encoder, truths: Sequence[_Truth]) -> tuple[float | None, str | None]:
    """Greedy generation: the positions of prefill and steps, and that each token is the likeliest one."""
    config = greedy(encoder, _NEW_TOKENS)
    with _seen(model) as calls:
        completions = rollout(model, [truth.prompt for truth in truths], config)
    seen = torch.cat(calls, dim=2)
    width = max(len(truth.prompt.input_ids) for truth in truths)
    difference = 0.0
    for index, (truth, ids) in enumerate(zip(truths, completions, strict=True)):
        start = width - len(truth.prompt.input_ids)
        found = seen[:, index, start : width + len(ids) - 1]
        fault = _position_fault(found, truth.positions, _follow(truth, len(ids) - 1))
        if fault:
            return None, fault
        difference = max(difference, _below_best(model, truth, ids))
    return difference, None


def _below_best(model: PreTrainedModel, truth: _Truth, ids: Sequence[int]) -> float:
    """By how much a token's log-probability falls short of the likeliest token's, at most."""
    logits = _plain_logits(model, truth, ids)
    best = logits.float().log_softmax(-1).amax(-1).cpu()
    return float((best - _log_probs(logits, torch.tensor([ids]).to(logits.device))).max())


def _plain_logits(model: PreTrainedModel, truth: _Truth, ids: Sequence[int]) -> torch.Tensor:
    """Logits (1, C, vocabulary) from which the C tokens behind the prompt come, by a plain call."""
    places = torch.cat([truth.positions, _follow(truth, len(ids))], dim=1)
    logits: torch.Tensor = model(
        input_ids=torch.cat([truth.prompt.input_ids, torch.tensor(ids)])[None].to(model.device),
        position_ids=places[:, None].to(model.device),
        pixel_values_videos=truth.prompt.video.pixel_values.to(model.device),
        video_grid_thw=truth.prompt.video.grids.to(model.device),
    ).logits
    return logits[:, -len(ids) - 1 : -1]


def _evaluation(model: PreTrainedModel, encoder: Encoder, truths: Sequence[_Truth]) -> tuple[float | None, str | None]:
    """Evaluation writes what rollout samples greedily."""
    completions = rollout(model, [truth.prompt for truth in truths], greedy(encoder, _NEW_TOKENS))
    wanted = encoder.processor.batch_decode(completions, skip_special_tokens=True)
    rows = [truth.row for truth in truths]
    [made] = predict(model, encoder, [rows], grammar_name="to", max_new_tokens=_NEW_TOKENS, quiet=True)
    for prediction, text in zip(made, wanted, strict=True):
        if prediction["completion"] != text:
            return None, f"wrote {prediction['completion']!r} where the rollout wrote {text!r}"
    return None, None


def _vllm(
    engine: Engine | OneForAll, model: PreTrainedModel, encoder: Encoder, truths: Sequence[_Truth]
) -> tuple[float | None, str | None]:
    """What vLLM samples: its ids of the prompt, and the log-probabilities with which it sampled."""
    stop = encoder.processor.tokenizer.eos_token_id
    try:
        samples = engine.generate(
            [request(truth.row, truth.prompt, encoder) for truth in truths], n=1, temperature=1.0, top_p=1.0, top_k=0,
            max_tokens=_NEW_TOKENS, stop_token_ids=[stop], seed=0,
        )  # fmt: skip
    except RuntimeError as error:  # it makes another prompt of the row
        return None, str(error)
    difference = 0.0
    for truth, [sample] in zip(truths, samples, strict=True):
        logits = _plain_logits(model, truth, sample.token_ids)
        found = _log_probs(logits, torch.tensor([sample.token_ids]).to(logits.device))[0]
        difference = max(difference, float((found - torch.tensor(sample.logprobs)).abs().max()))
    return difference, None


_PATHS: dict[str, Callable[..., tuple[float | None, str | None]]] = {
    "processor": _processor,
    "policy": _policy,
    "shared prefix": _shared_prefix,
    "sft": _sft,
    "rollout": _rollout,
    "evaluation": _evaluation,
}
