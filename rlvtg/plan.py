"""Does a recipe fit its GPUs, and what does a step of it cost? Answered from shapes alone, before anything loads.

`report` is what `rlvtg plan` prints, `warning` the sentence that a run begins with where it cannot fit. What is counted
and how far off it was where it could be measured: docs/plan.md.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlvtg.cost import flops
from rlvtg.cost.memory import PHASES, Memory, Setting, Work, counts, held, rollout, step, update
from rlvtg.cost.shapes import Shape, layers, parameters, shape
from rlvtg.recipe import GrpoStage, Lora, Recipe, RecipeError, SftStage, Video, trained
from rlvtg.video.sampling import FRAMES_PER_PATCH, frame_count, frame_size

GIB = 2**30
RESERVE = 0.1
"""The share of a GPU that is kept back for what is not counted."""
SOURCE = (720, 1280, 30.0)
"""Height, width and rate of the videos that are planned for; larger ones get no more tokens."""
ANSWER = 64
"""Tokens of a target of SFT."""
WORDS_OF_CHAT = 40
"""Tokens of a query and of the chat template around a prompt."""
STAMP = 10
"""Tokens of a stamp in the text and of the markers around its frames."""
ZERO = (0, 1, 2, 3)
HELPS = 0.99
"""A change helps that leaves less than this share of the peak."""

Stage = SftStage | GrpoStage


@dataclass(frozen=True)
class Machine:
    """What a recipe is to run on: so many GPUs of `memory` GiB (2**30 bytes) each, under a stage of ZeRO (0: DDP)."""

    gpus: int = 8
    memory: float = 80.0
    zero: int = 3

    @property
    def usable(self) -> float:
        """Bytes of a GPU that are planned with."""
        return self.memory * GIB * (1 - RESERVE)


@dataclass(frozen=True)
class Clip:
    """A video as the model is shown it."""

    seconds: float
    frames: int
    height: int
    width: int
    patches: int
    tokens: int


@dataclass(frozen=True)
class Change:
    """A setting to change: how it is written, what it costs, and the peak in bytes that it would leave."""

    words: str
    cost: str
    peak: float


@dataclass(frozen=True)
class StagePlan:
    """What is known of one stage on a machine.

    Attributes:
        name: of the stage.
        prompt: tokens of a prompt.
        completion: tokens of a completion.
        trained: parameters that are trained.
        memory: by stage of ZeRO.
        tokens: that an update runs in one optimizer step, all GPUs together.
        operations: floating-point operations of one optimizer step, all GPUs together, by what they are for.
        gain: operations of an update with full rows over those with a shared prompt, and the same with the vision
            shared by full rows; None for SFT.
        longest: seconds of the longest video that fits, or None where every video does.
        longest_prompt: tokens of the longest prompt that fits at this frame size; 0 for none.
        limited_by: the phase that a longer one would not fit in.
        changes: single changes that help, in order of what they cost, and what they would leave.
        remedy: changes that together make it fit; empty where none do, or none is needed.
    """

    name: str
    prompt: int
    completion: int
    trained: int
    memory: dict[int, Memory]
    tokens: int
    operations: dict[str, float]
    gain: tuple[float, float] | None
    longest: float | None
    longest_prompt: int
    limited_by: str
    changes: tuple[Change, ...]
    remedy: tuple[Change, ...]


@dataclass(frozen=True)
class Plan:
    """What is known of a recipe on a machine."""

    recipe: Recipe
    machine: Machine
    shape: Shape
    clip: Clip
    stages: tuple[StagePlan, ...]

    def fits(self, stage: StagePlan, zero: int | None = None) -> bool:
        """Whether a stage stays within what is planned with."""
        return stage.memory[self.machine.zero if zero is None else zero].peak <= self.machine.usable


def machine(words: Sequence[str]) -> tuple[Machine, float | None, list[str]]:
    """The machine, the seconds of the videos (None: the largest) and the other words of a command line.

    Raises:
        RecipeError: a number that is none, or that no machine has.
    """
    known: dict[str, tuple[type, Callable[[Any], bool], str]] = {
        "gpus": (int, lambda x: x >= 1, "1 or more"),
        "gpu_memory": (float, lambda x: x > 0, "GiB of one GPU, above 0, e.g. 80"),
        "zero": (int, lambda x: x in ZERO, "0 (DDP), 1, 2 or 3"),
        "seconds": (float, lambda x: x > 0, "the length of the videos, above 0"),
    }
    found: dict[str, Any] = {}
    rest = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in known:
            rest.append(word)
            continue
        kind, holds, allowed = known[key]
        try:
            number = kind(text)
        except ValueError:
            number = None
        if number is None or not math.isfinite(number) or not holds(number):
            raise RecipeError(f"{key}: got {text!r}, allowed: {allowed}")
        found[key] = number
    seconds = found.pop("seconds", None)
    if "gpu_memory" in found:
        found["memory"] = found.pop("gpu_memory")
    return Machine(**found), seconds, rest


def plan(recipe: Recipe, machine: Machine, *, seconds: float | None = None, known: Shape | None = None) -> Plan:
    """What `recipe` holds and does on `machine`.

    Args:
        recipe: the recipe.
        machine: where it is to run.
        seconds: how long the videos are; None is as long as the settings of frames can tell apart.
        known: the model's shape, where that is known; None looks for it.

    Raises:
        RecipeError: a model whose shape cannot be known.
    """
    found = shape(recipe.model) if known is None else known
    shown = clip(recipe.video, found, seconds) if seconds is not None else largest(recipe.video, found)
    stages = tuple(_stage(recipe, name, machine, found, shown) for name in recipe.stages)
    return Plan(recipe, machine, found, shown, stages)


def clip(video: Video, shape: Shape, seconds: float) -> Clip:
    """How a video of `seconds` is shown under the recipe's settings.

    Raises:
        RecipeError: settings that leave no frame.
    """
    height, width, rate = SOURCE
    try:
        frames = frame_count(max(1, round(seconds * rate)), rate, video)
        tall, wide = frame_size(height, width, frames, video, shape.pixel_unit)
    except ValueError as error:
        raise RecipeError(f"video: {error}") from None
    side = shape.pixel_unit // math.isqrt(shape.merge)
    patches = frames // FRAMES_PER_PATCH * (tall // side) * (wide // side)
    return Clip(seconds, frames, tall, wide, patches, patches // shape.merge)


def largest(video: Video, shape: Shape) -> Clip:
    """The video with the most tokens; up to as many seconds as get frames of their own."""
    return max((clip(video, shape, seconds) for seconds in _lengths(video)), key=lambda each: each.tokens)


def _lengths(video: Video) -> list[float]:
    """Lengths of videos to try, in seconds, from short to as long as gets frames of its own."""
    horizon = video.max_frames / video.fps
    return [horizon * part / 64 for part in range(1, 65)]


def _prompt_tokens(recipe: Recipe, stage: Stage, shape: Shape, shown: Clip) -> int:
    template = recipe.prompt if stage.prompt is None else stage.prompt
    stamped = recipe.video.time == "text" or shape.family == "qwen3_vl"
    stamps = STAMP * shown.frames // FRAMES_PER_PATCH if stamped else 0
    return shown.tokens + stamps + len(template + (recipe.system or "")) // 4 + WORDS_OF_CHAT


def _completion_tokens(stage: Stage) -> int:
    return stage.max_completion_length if isinstance(stage, GrpoStage) else ANSWER


def setting(recipe: Recipe, stage: Stage, shape: Shape, machine: Machine) -> Setting:
    """A stage as `rlvtg.cost.memory` asks for it."""
    found = layers(shape)
    if stage.lora is None:
        own, adapted = trained(stage, [layer.name for layer in found]), []
    else:
        own, adapted = [], trained(stage, [layer.name for layer in found if layer.linear])
    return Setting(
        shape,
        frozenset(own),
        frozenset(adapted),
        rank=stage.lora.r if stage.lora else 0,
        zero=machine.zero,
        gpus=machine.gpus,
        bf16=recipe.bf16,
        checkpointing=stage.gradient_checkpointing,
        reference=isinstance(stage, GrpoStage) and stage.beta > 0 and stage.lora is None,
        accumulates=stage.gradient_accumulation_steps > 1,
        cuda=not recipe.use_cpu,
    )


def calls(stage: Stage, shown: Clip, prompt: int, completion: int) -> list[Work]:
    """The calls of one micro-batch of a stage on one GPU, whose videos all differ."""
    frame = shown.patches * FRAMES_PER_PATCH // shown.frames
    rows = stage.per_device_train_batch_size
    if isinstance(stage, SftStage):
        return [Work(shown.patches * rows, frame, prompt, completion, prompts=rows, loads_ahead=True)]
    group = stage.num_generations
    prompts = rows // group
    if not stage.share_prefix or stage.max_tokens_per_forward is None:
        return [Work(shown.patches * prompts, frame, prompt, completion, prompts, group, stage.share_prefix)]
    whole = prompt - 1 + group * completion
    one = Work(shown.patches, frame, prompt, completion, 1, group, shared=True)
    if whole <= stage.max_tokens_per_forward:
        together = min(prompts, stage.max_tokens_per_forward // whole)
        several = replace(one, patches=shown.patches * together, prompts=together)
        return [several] * (prompts // together) + [one] * (prompts % together)
    fitting = max(1, (stage.max_tokens_per_forward - prompt + 1) // completion)
    cut = [min(fitting, group - start) for start in range(0, group, fitting)]
    return [replace(one, group=size) for size in cut] * prompts


def memory(recipe: Recipe, stage: Stage, shape: Shape, machine: Machine, shown: Clip) -> Memory:
    """Bytes on each GPU in a stage of videos that are shown as `shown`."""
    stage_setting = setting(recipe, stage, shape, machine)
    prompt, completion = _prompt_tokens(recipe, stage, shape, shown), _completion_tokens(stage)
    work = calls(stage, shown, prompt, completion)
    there = held(stage_setting)
    generated: dict[str, float] = {}
    if isinstance(stage, GrpoStage):
        engine = getattr(stage, "vllm_gpu_memory_utilization", 0.0) * machine.memory * GIB
        if not getattr(stage, "use_vllm", False):
            prompts = max(1, stage.per_device_train_batch_size // stage.num_generations)
            videos = Work(shown.patches * prompts, work[0].frame, prompt, completion, prompts, stage.num_generations)
            generated = rollout(stage_setting, videos)
        elif getattr(stage, "vllm_mode", "colocate") != "colocate":
            pass  # the engine has GPUs of its own
        elif getattr(stage, "vllm_enable_sleep_mode", False):
            generated = {"vLLM": engine}
        else:
            there["vLLM"] = engine
    asked = recipe.evaluation
    tested = Work(shown.patches * asked.batch_size, work[0].frame, prompt, asked.max_new_tokens, asked.batch_size)
    return Memory(there, update(stage_setting, work), step(stage_setting), generated, rollout(stage_setting, tested))


# What a step costs


def operations(
    recipe: Recipe, stage: Stage, shape: Shape, machine: Machine, shown: Clip
) -> tuple[int, dict[str, float]]:
    """(tokens that the update runs, operations by what they are for) of one optimizer step on all GPUs."""
    stage_setting = setting(recipe, stage, shape, machine)
    prompt, completion = _prompt_tokens(recipe, stage, shape, shown), _completion_tokens(stage)
    micro_batches = stage.gradient_accumulation_steps * machine.gpus
    vision = language = 0.0
    run = 0
    for work in calls(stage, shown, prompt, completion):
        vision += work.patches / shown.patches * flops.vision(shape, shown.tokens, work.frame)
        length = prompt + completion
        pairs = work.rows * length**2 / 2
        if work.shared:
            pairs = work.prompts * prompt**2 / 2 + work.rows * completion * (prompt + completion / 2)
        language += flops.tokens(shape, work.tokens, pairs) + flops.head(shape, work.scored)
        run += work.tokens
    whole, _, learnt = counts(stage_setting)
    # forward, again where it is checkpointed, gradients of what lies before, gradients of weights
    passes = 2 + stage_setting.checkpointing + min(1.0, learnt / whole)
    found = {"update": micro_batches * (passes * language + (passes if stage_setting.learns_tower else 1) * vision)}
    if isinstance(stage, GrpoStage):
        scorings = (stage.beta > 0) + (_asks_for_old(stage))
        found["scoring"] = micro_batches * scorings * (language + vision)
        prompts = stage.per_device_train_batch_size // stage.num_generations
        rolled = micro_batches * prompts / stage.num_iterations
        tower = flops.vision(shape, shown.tokens, shown.patches * FRAMES_PER_PATCH // shown.frames)
        found["prefill"] = rolled * (tower + flops.tokens(shape, prompt, prompt**2 / 2))
        found["decode"] = rolled * stage.num_generations * flops.decoded(shape, prompt, completion)
    return run * micro_batches, found


def _asks_for_old(stage: GrpoStage) -> bool:
    """Whether log-probabilities of the weights that sampled are needed besides those of the update."""
    steps = stage.steps_per_generation or stage.gradient_accumulation_steps
    stale = stage.gradient_accumulation_steps % (steps * stage.num_iterations) != 0
    return stale or bool(getattr(stage, "use_vllm", False))


def gain(stage: GrpoStage, shape: Shape, stage_setting: Setting, prompt: int, shown: Clip) -> tuple[float, float]:
    """How many times the operations of a shared prompt an update takes with full rows, and if they share the vision."""
    found = flops.update(
        shape,
        prompt,
        stage.num_generations,
        stage.max_completion_length,
        frame=shown.patches * FRAMES_PER_PATCH // shown.frames,
        frozen=not stage_setting.learns_tower,
    )
    return found.full_rows / found.prefix_shared, found.vision_shared / found.prefix_shared


# What fits, and what to change


def _stage(recipe: Recipe, name: str, machine: Machine, shape: Shape, shown: Clip) -> StagePlan:
    stage = recipe.stages[name]
    own = setting(recipe, stage, shape, machine)
    found = {zero: memory(recipe, stage, shape, replace(machine, zero=zero), shown) for zero in ZERO}
    prompt, completion = _prompt_tokens(recipe, stage, shape, shown), _completion_tokens(stage)
    run, steps = operations(recipe, stage, shape, machine, shown)
    fits = found[machine.zero].peak <= machine.usable
    most = memory(recipe, stage, shape, machine, largest(recipe.video, shape)).peak
    longest = None if most <= machine.usable else _longest(recipe, stage, shape, machine)
    longest_prompt, limited_by = _longest_prompt(recipe, stage, shape, machine, shown)
    changes, remedy = ((), ()) if fits else _changes(recipe, name, shape, machine, shown)
    return StagePlan(
        name=name,
        prompt=prompt,
        completion=completion,
        trained=counts(own)[2],
        memory=found,
        tokens=run,
        operations=steps,
        gain=gain(stage, shape, own, prompt, shown) if isinstance(stage, GrpoStage) else None,
        longest=longest,
        longest_prompt=longest_prompt,
        limited_by=limited_by,
        changes=changes,
        remedy=remedy,
    )


def _longest(recipe: Recipe, stage: Stage, shape: Shape, machine: Machine) -> float:
    """Seconds of the longest video such that it and all that are tried below it fit; 0 if the shortest does not."""
    best = 0.0
    for seconds in _lengths(recipe.video):
        if memory(recipe, stage, shape, machine, clip(recipe.video, shape, seconds)).peak > machine.usable:
            break
        best = seconds
    return best


def _longest_prompt(recipe: Recipe, stage: Stage, shape: Shape, machine: Machine, shown: Clip) -> tuple[int, str]:
    """(tokens of the longest prompt that fits, if videos had as many frames of this size as it takes, 0 for none; the
    phase that would not fit with a longer one)."""
    each = shown.patches * FRAMES_PER_PATCH // shown.frames

    def at(pairs: int) -> Clip:
        patches = pairs * each
        return replace(shown, frames=pairs * FRAMES_PER_PATCH, patches=patches, tokens=patches // shape.merge)

    low, high = 0, 2**20 * shape.merge // each
    while low < high:
        middle = (low + high + 1) // 2
        if memory(recipe, stage, shape, machine, at(middle)).peak <= machine.usable:
            low = middle
        else:
            high = middle - 1
    sums = memory(recipe, stage, shape, machine, at(low + 1)).sums()
    return _prompt_tokens(recipe, stage, shape, at(low)) if low else 0, max(sums, key=lambda phase: sums[phase])


@dataclass(frozen=True)
class _State:
    """A recipe and a machine that changes are made to."""

    recipe: Recipe
    machine: Machine

    def staged(self, name: str, **changes: Any) -> "_State":
        stages = self.recipe.stages | {name: replace(self.recipe.stages[name], **changes)}
        return replace(self, recipe=replace(self.recipe, stages=stages))


def _possible(state: _State, name: str, shown: Clip, shape: Shape) -> Iterator[tuple[str, str, _State]]:
    """(words, cost, what comes of it) of what can be changed in a stage, the cheapest first."""
    recipe, stage, zero = state.recipe, state.recipe.stages[name], state.machine.zero
    at = f"stages.{name}"
    grpo = stage if isinstance(stage, GrpoStage) else None
    if grpo is not None and not grpo.share_prefix and recipe.attn_implementation == "sdpa":
        yield f"{at}.share_prefix=true", "nothing, and is faster", state.staged(name, share_prefix=True)
    if recipe.evaluation.batch_size > 1:
        asked = replace(recipe.evaluation, batch_size=1)
        changed = replace(state, recipe=replace(recipe, evaluation=asked))
        yield "evaluation.batch_size=1", "slower evaluation", changed
    for other in ZERO if state.machine.gpus > 1 else ():
        cost = "more traffic between GPUs" if other > zero else "less traffic between GPUs"
        if other != zero:
            yield f"zero={other}", cost, replace(state, machine=replace(state.machine, zero=other))
    if not stage.gradient_checkpointing:
        cost = "one more forward pass in each update"
        yield f"{at}.gradient_checkpointing=true", cost, state.staged(name, gradient_checkpointing=True)
    least = grpo.num_generations if grpo else 1
    times = stage.per_device_train_batch_size // least
    if times > 1:
        steps = stage.gradient_accumulation_steps * times
        words = f"{at}.per_device_train_batch_size={least} {at}.gradient_accumulation_steps={steps}"
        changed = state.staged(name, per_device_train_batch_size=least, gradient_accumulation_steps=steps)
        yield words, "smaller calls, the same batch", changed
    if grpo is not None and grpo.share_prefix and grpo.gradient_checkpointing:
        tokens = _prompt_tokens(recipe, grpo, shape, shown) + grpo.max_completion_length
        if grpo.max_tokens_per_forward is None or grpo.max_tokens_per_forward > tokens:
            cost = "the prompt runs once for each completion"
            changed = state.staged(name, max_tokens_per_forward=tokens)
            yield f"{at}.max_tokens_per_forward={tokens}", cost, changed
    if stage.lora is None:
        changed = state.staged(name, lora=Lora())
        yield f"{at}.lora.r={Lora().r}", "another method: adapters instead of all weights", changed
    if not any(prefix == "visual" for prefix in stage.freeze) and stage.lora is None:
        changed = state.staged(name, freeze=[*stage.freeze, "visual"])
        yield f"{at}.freeze=[visual]", "the vision tower does not learn", changed
    for pixels in (recipe.video.total_pixels // 2, recipe.video.total_pixels // 4):
        if pixels >= recipe.video.min_pixels:
            changed = replace(state, recipe=replace(recipe, video=replace(recipe.video, total_pixels=pixels)))
            yield f"video.total_pixels={pixels}", "the model sees less of long videos", changed
    for frames in (recipe.video.max_frames // 2, recipe.video.max_frames // 4):
        if frames >= max(2, recipe.video.min_frames):
            changed = replace(state, recipe=replace(recipe, video=replace(recipe.video, max_frames=frames)))
            yield f"video.max_frames={frames}", "the model sees fewer frames of long videos", changed


def _changes(
    recipe: Recipe, name: str, shape: Shape, machine: Machine, shown: Clip
) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """(each change alone, changes that together make the stage fit: the cheapest that help, one after another)."""

    def peak(state: _State) -> float:
        seen = shown
        if state.recipe.video != recipe.video:
            seen = clip(state.recipe.video, shape, shown.seconds)
        return memory(state.recipe, state.recipe.stages[name], shape, state.machine, seen).peak

    state = _State(recipe, machine)
    now = peak(state)
    tried = (Change(words, cost, peak(after)) for words, cost, after in _possible(state, name, shown, shape))
    alone = tuple(change for change in tried if change.peak < HELPS * now)
    taken: list[Change] = []
    while now > machine.usable:
        for words, cost, after in _possible(state, name, shown, shape):
            left = peak(after)
            if left < HELPS * now:
                state, now = after, left
                taken.append(Change(words, cost, left))
                break
        else:
            return alone, ()
    return alone, _needed(taken)


def _needed(taken: Sequence[Change]) -> tuple[Change, ...]:
    """The changes without those that a later one of the same setting replaces."""
    last = {change.words.split("=")[0]: change for change in taken}
    return tuple(change for change in taken if last[change.words.split("=")[0]] is change)


# What is said


def warning(recipe: Recipe, machine: Machine, known: Shape | None = None) -> str | None:
    """One sentence where a stage cannot fit with the largest videos that the recipe shows, or None.

    Raises:
        RecipeError: a model whose shape cannot be known.
    """
    found = plan(recipe, machine, known=known)
    for stage in found.stages:
        if not found.fits(stage):
            peak = stage.memory[machine.zero].peak / GIB
            said = f"stages.{stage.name} needs about {peak:.1f} GiB on each GPU of {machine.memory:.1f} GiB"
            return f"{said} for videos of {found.clip.tokens} tokens; {_advice(stage)}"
    return None


def _advice(stage: StagePlan) -> str:
    if not stage.remedy:
        return "no single setting that is known here makes it fit; more GPUs, or a smaller model"
    words = " ".join(change.words for change in stage.remedy)
    return f"it would take {stage.remedy[-1].peak / GIB:.1f} GiB with {words}"


LEFT_OUT = (
    "Not counted, and what the share that is kept back is for: the CUDA context (0.5 to 1 GiB), NCCL's buffers,\n"
    "fragmentation of the allocator, workspaces of kernels, and whatever else runs on the same GPU."
)


def report(found: Plan) -> str:
    """A plan as `rlvtg plan` prints it."""
    machine, video, shown = found.machine, found.recipe.video, found.clip
    tower = sum(layer.parameters for layer in layers(found.shape) if layer.name.startswith("visual."))
    lines = [
        f"{found.recipe.name} on {machine.gpus} GPU{'s' if machine.gpus > 1 else ''} of {machine.memory:g} GiB "
        f"(2**30 bytes), {_named(machine.zero)}; {machine.usable / GIB:.1f} GiB of each are planned with",
        f"model: {found.recipe.model}, {parameters(found.shape) / 1e9:.2f} billion parameters, {tower / 1e9:.2f} of "
        "them in the vision tower",
        f"video: {shown.seconds:g} s at {video.fps:g} frames a second: {shown.frames} frames of {shown.width} x "
        f"{shown.height}, {shown.tokens} tokens",
    ]
    for stage in found.stages:
        lines += ["", *_stage_lines(found, stage)]
    return "\n".join([*lines, "", LEFT_OUT])


def _named(zero: int) -> str:
    return "DDP" if zero == 0 else f"ZeRO-{zero}"


def _stage_lines(found: Plan, stage: StagePlan) -> Iterator[str]:
    machine, own = found.machine, found.recipe.stages[stage.name]
    way = f"LoRA of rank {own.lora.r}" if own.lora else "full fine-tuning"
    rows = own.per_device_train_batch_size
    said = f"{own.num_generations} completions of {stage.completion}" if isinstance(own, GrpoStage) else (
        f"answers of {stage.completion} (assumed)")  # fmt: skip
    yield (
        f"stage {stage.name}: {own.kind}, {way}, {stage.trained / 1e6:.1f} million parameters trained\n"
        f"  rows on a GPU: {rows}, with prompts of {stage.prompt} tokens and {said}"
    )
    yield from _table(found, stage)
    total = sum(stage.operations.values())
    parts = ", ".join(f"{name} {number / total:.0%}" for name, number in stage.operations.items() if number)
    yield f"  a step: {stage.tokens:,} tokens in the update, {total / 1e15:.1f} PFLOP on all GPUs ({parts})"
    if stage.gain is not None:
        used = isinstance(own, GrpoStage) and own.share_prefix
        yield (
            f"  sharing the prompt{'' if used else ' (it is off)'}: an update takes {stage.gain[0]:.1f} times fewer "
            f"operations than full rows, {stage.gain[1]:.1f} if those share the vision"
        )
    fitting = f"prompts up to {stage.longest_prompt:,} tokens fit" if stage.longest_prompt else "no prompt fits"
    fitting += f"; what limits them is the {stage.limited_by}"
    longest = "any, since longer ones get no more tokens" if stage.longest is None else f"{stage.longest:.0f} s"
    yield f"  longest video: {longest}; {fitting}"
    if found.fits(stage):
        return
    peak = stage.memory[machine.zero].peak / GIB
    yield f"  it does not fit: {peak:.1f} GiB of {machine.usable / GIB:.1f}. What could be changed, one at a time:"
    for change in stage.changes:
        yield f"    {change.peak / GIB:6.1f} GiB with {change.words} ({change.cost})"
    yield f"  {_advice(stage)}"


def _table(found: Plan, stage: StagePlan) -> Iterator[str]:
    """Rows of bytes, columns of ZeRO; the machine's own stage has a star."""
    columns = [stage.memory[zero] for zero in ZERO]
    heads = [_named(zero) + ("*" if zero == found.machine.zero else "") for zero in ZERO]
    yield f"  {'GiB on each GPU':<32}" + "".join(f"{head:>10}" for head in heads)

    def line(label: str, numbers: Sequence[float]) -> str:
        return f"  {label:<32}" + "".join(f"{number / GIB:>10.2f}" for number in numbers)

    for what in dict.fromkeys(what for column in columns for what in column.held):
        yield line(what, [column.held.get(what, 0.0) for column in columns])
    for phase in PHASES:
        parts = dict.fromkeys(what for column in columns for what in getattr(column, phase))
        for what in parts:
            numbers = [getattr(column, phase).get(what, 0.0) for column in columns]
            if max(numbers) >= 0.005 * GIB:
                yield line(f"  {phase}: {what}", numbers)
    for phase in PHASES:
        if any(getattr(column, phase) for column in columns):
            yield line(f"peak of the {phase}", [column.sums()[phase] for column in columns])
    yield f"  {'fits':<32}" + "".join(f"{'yes' if found.fits(stage, zero) else 'no':>10}" for zero in ZERO)
