"""How many bytes a stage of training holds on one GPU, counted from shapes tensor by tensor.

What lies there all the time (weights, optimizer, reference) is exact but for padding. Activations are the tensors that
autograd keeps for the backward pass of transformers' own layers, plus what the largest step of that pass makes besides.
The backward pass is gone through layer by layer, since gradients grow while activations shrink; the peak is the largest
sum on the way.

Dtypes are what `rlvtg.training.setup` asks for. Without `bf16` everything is float32. With it, DeepSpeed (ZeRO 1 to 3)
holds and computes bfloat16 and keeps a float32 copy of what is trained beside the optimizer's states; DDP (stage 0)
computes under autocast from float32 weights, or from bfloat16 ones under LoRA, whose adapters are float32.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from rlvtg.cost.shapes import Layer, Shape, layers

TILE_TOKENS = 4096
"""Tokens of a tile of TRL 1.16's fused head."""
TILE_WIDTH = 32768
"""Vocabulary of a tile, all of which is allocated however small the vocabulary is."""
BUCKET = 500_000_000
"""Elements of the buffer in which DeepSpeed 0.19 reduces gradients, whatever is trained."""
LIVE = 1_000_000_000
"""Elements of weights that ZeRO-3 may hold whole at one time in an update (stage3_max_live_parameters)."""
SUB_GROUP = 1_000_000_000
"""Elements that ZeRO-3 updates at one time."""
STORED = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Setting:
    """What is trained, where and how.

    Attributes:
        shape: of the model.
        trained: names of the layers whose own weights are trained.
        adapted: names of the layers that have an adapter.
        rank: of the adapters.
        zero: 0 is DDP (or one process alone), 1 to 3 are DeepSpeed's stages.
        gpus: processes, one on each GPU.
        bf16: as in a recipe.
        checkpointing: layers keep their input alone and run again in the backward pass.
        reference: a second model is there that is not trained.
        accumulates: gradients are there already when a micro-batch begins.
        cuda: on a GPU, where a kernel of its own scores tokens, and those alone that have a label.
        tile_width: of the fused head.
    """

    shape: Shape
    trained: frozenset[str]
    adapted: frozenset[str] = frozenset()
    rank: int = 0
    zero: int = 0
    gpus: int = 1
    bf16: bool = True
    checkpointing: bool = False
    reference: bool = False
    accumulates: bool = False
    cuda: bool = True
    tile_width: int = TILE_WIDTH

    @property
    def computed(self) -> int:
        """Bytes of a number in matrix products."""
        return 2 if self.bf16 else STORED

    @property
    def stream(self) -> int:
        """Bytes of a number between layers."""
        return STORED if not self.bf16 or (self.zero == 0 and not self.rank) else 2

    @property
    def autocast(self) -> bool:
        """Whether what is trained is float32 and is cast for each product."""
        return self.bf16 and self.zero == 0

    def learns(self, name: str) -> bool:
        """Whether a layer's weights or its adapter are trained, so that its input is kept."""
        return name in self.trained or name in self.adapted

    @property
    def learns_tower(self) -> bool:
        """Whether the backward pass runs through the vision tower."""
        return any(name.startswith("visual.") for name in self.trained | self.adapted)


@dataclass(frozen=True)
class Work:
    """What one call of the model runs.

    Attributes:
        patches: of all videos of the call, each video once.
        frame: patches in a pair of frames.
        prompt: tokens of a prompt.
        completion: tokens of a completion.
        prompts: different ones.
        group: completions of a prompt.
        shared: a prompt runs once for its group.
        ragged: rows are padded, so that full rows need a mask.
        loads_ahead: the next call's pixels are there already, in the processor's memory, as in SFT.
    """

    patches: int
    frame: int
    prompt: int
    completion: int
    prompts: int = 1
    group: int = 1
    shared: bool = False
    ragged: bool = True
    loads_ahead: bool = False

    @property
    def rows(self) -> int:
        """Completions of the call."""
        return self.prompts * self.group

    @property
    def tokens(self) -> int:
        """Tokens that run through the language model."""
        if self.shared:
            return self.prompts * (self.prompt - 1 + self.group * self.completion)
        return self.rows * (self.prompt + self.completion)

    @property
    def keys(self) -> int:
        """Places of keys that are gathered where a prompt is shared: its own, and all again for each completion."""
        return self.prompts * (self.prompt - 1 + self.group * (self.prompt - 1 + self.completion))

    @property
    def scored(self) -> int:
        """Tokens that have a label."""
        return self.rows * self.completion


PHASES = ("update", "step", "rollout", "evaluation")
"""What happens at different times of a stage."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU by what they are for, and the sums that matter.

    `held` is there all the time; the others come on top of it at different times.
    """

    held: dict[str, float]
    update: dict[str, float]
    step: dict[str, float]
    rollout: dict[str, float] = field(default_factory=dict)
    evaluation: dict[str, float] = field(default_factory=dict)

    def sums(self) -> dict[str, float]:
        """The peak of each phase."""
        base = sum(self.held.values())
        return {name: base + sum(getattr(self, name).values()) for name in PHASES}

    @property
    def peak(self) -> float:
        """The most that is there at any time."""
        return max(self.sums().values())


def adapter(layer: Layer, rank: int) -> int:
    """Parameters of a low-rank adapter on a layer."""
    return rank * sum(layer.linear) if layer.linear else 0


@lru_cache(maxsize=64)
def counts(setting: Setting) -> tuple[int, int, int]:
    """(all parameters of the model, parameters of adapters, parameters that are trained)."""
    found = list(layers(setting.shape))
    own = sum(layer.parameters for layer in found if layer.name in setting.trained)
    low_rank = sum(adapter(layer, setting.rank) for layer in found if layer.name in setting.adapted)
    return sum(layer.parameters for layer in found), low_rank, own + low_rank


def held(setting: Setting) -> dict[str, float]:
    """Weights, gradients' buffers, optimizer and reference: what is there from the first step to the last."""
    whole, low_rank, trained = counts(setting)
    split = setting.gpus if setting.zero == 3 else 1
    at_rest = 2 if setting.bf16 and (setting.zero or setting.rank) else STORED
    adapters = (2 if setting.bf16 and setting.zero else STORED) * low_rank
    made: dict[str, float] = {"weights": (at_rest * whole + adapters) / split}
    if setting.zero == 0:
        made["optimizer"] = 8.0 * trained
        # DDP's own copy of the gradients
        made["gradient buffers"] = STORED * trained if setting.gpus > 1 else 0.0
    else:
        made["optimizer"] = 12.0 * trained / setting.gpus  # the float32 copy and two moments
        made["gradient buffers"] = float(setting.computed * BUCKET)
        if setting.zero >= 2:
            made["gradient buffers"] += setting.computed * trained / setting.gpus
    if setting.reference:
        made["reference"] = (2 if setting.bf16 and setting.zero else STORED) * whole / split
    return made


# The update

KINDS = ("tower", "language", "head")
"""What activations are called, by where they are."""


@dataclass(frozen=True)
class _Part:
    """A part of the model in the order of the forward pass.

    Attributes:
        kind: one of KINDS.
        kept: bytes that the forward pass leaves for the backward pass.
        again: bytes that are made again when the backward pass comes to a part that is checkpointed.
        largest: bytes besides at the largest step of its backward pass.
        gradients: bytes of the gradients that it leaves.
    """

    kind: str
    kept: float
    again: float = 0.0
    largest: float = 0.0
    gradients: float = 0.0


def update(setting: Setting, calls: Sequence[Work]) -> dict[str, float]:
    """What a micro-batch's forward passes and its backward pass hold at their peak, by what it is for.

    Args:
        setting: of the stage.
        calls: all calls of the micro-batch; the backward pass comes when the last of them is done.
    """
    whole, _, trained = counts(setting)
    everything = float(_gradient_bytes(setting) * trained)
    parts = [list(_parts(setting, work)) for work in calls]
    kept = {kind: sum(each.kept for call in parts for each in call if each.kind == kind) for kind in KINDS}
    forward = sum(kept.values()) + 2.0 * trained
    gradients = everything if setting.accumulates else 0.0
    peak: dict[str, float] = {}
    for call in reversed(parts):
        made = 0.0
        for part in reversed(call):
            made += part.gradients
            found = {"gradients": max(gradients, made)} | kept
            found[part.kind] += part.again + part.largest
            if sum(found.values()) > sum(peak.values()):
                peak = found
            kept[part.kind] -= part.kept
        gradients = everything
    if setting.autocast and setting.checkpointing:
        # the casts of all weights live until the forward pass ends; where activations are kept, they are among them
        peak["cast weights"] = max(0.0, forward - sum(peak.values()))
    if setting.zero == 3:
        peak["gathered weights"] = float(setting.computed * min(whole, LIVE))
    return peak | {"inputs": _pixels(setting, calls)}


def _gradient_bytes(setting: Setting) -> int:
    """Bytes of a gradient where the backward pass leaves it: ZeRO-2 and 3 move it to a buffer that is there already."""
    return {0: STORED, 1: setting.computed}.get(setting.zero, 0)


def _pixels(setting: Setting, calls: Sequence[Work]) -> float:
    """Pixels as they are given, and of each call as a tower keeps them that learns to read them.

    On the CPU they are also where rows keep them, and where others wait.
    """
    numbers = [float(work.patches * setting.shape.patch) for work in calls]
    copies = 1 if setting.cuda else 3 if calls[0].loads_ahead else 2
    found = STORED * copies * max(numbers)
    if "visual.patch_embed.proj" in setting.trained:  # in float32 it keeps what it is given
        found += setting.computed * (sum(numbers) - (0.0 if setting.bf16 else max(numbers)))
    return found


def _parts(setting: Setting, work: Work) -> Iterator[_Part]:
    """The model's parts with what they keep, as far as a gradient reaches."""
    shape = setting.shape
    # for adapters under checkpointing the outputs of both embeddings need a gradient, in a tower that learns anything
    forced = setting.checkpointing and bool(setting.rank)
    reached = forced and setting.learns_tower
    for name, inside in _blocks(shape).items():
        kind = "tower" if name.startswith("visual") else "head" if name == "lm_head" else "language"
        if name == "language_model.embed_tokens":
            reached = reached or forced or setting.learns(name)
            yield _embedding(setting, work, inside)
            continue
        reached = reached or any(setting.learns(layer.name) for layer in inside)
        if kind == "head":
            continue
        gradients = _gradients(setting, inside)
        if ".blocks." in name or ".layers." in name:
            kept, largest, incoming = (_block if kind == "tower" else _decoder)(setting, work, name)
            casts = _casts(setting, inside)
            if not reached:
                kept = largest = incoming = casts = 0.0
            if setting.checkpointing and reached:
                # a float32 stream's input is one of the tensors that the layer keeps
                shared = incoming if setting.stream == STORED else 0.0
                yield _Part(kind, incoming, kept + casts - shared, largest, gradients)
            else:
                yield _Part(kind, kept + casts, 0.0, largest, gradients)
        elif name.startswith(("visual.merger", "visual.deepstack")):
            yield _merger(setting, work, reached, gradients)
        elif name == "language_model.norm":
            yield _Part(kind, (STORED + setting.stream) * shape.hidden * work.tokens, 0.0, 0.0, gradients)
        else:
            yield _Part(kind, 0.0, 0.0, 0.0, gradients)
    yield _head(setting, work)


@lru_cache(maxsize=16)
def _blocks(shape: Shape) -> dict[str, list[Layer]]:
    """The layers by the block that they are in, in the order of the forward pass."""
    found: dict[str, list[Layer]] = {}
    for layer in layers(shape):
        found.setdefault(_block_of(layer.name), []).append(layer)
    return found


def _block_of(name: str) -> str:
    """`visual.blocks.3.attn.qkv` -> `visual.blocks.3`; mergers and what is no block stay together."""
    words = name.split(".")
    for index, word in enumerate(words):
        if word in ("blocks", "layers", "deepstack_merger_list"):
            return ".".join(words[: index + 2])
    return ".".join(words[:2])


def _gradients(setting: Setting, inside: Iterable[Layer]) -> float:
    number = 0
    for layer in inside:
        if layer.name in setting.trained:
            number += layer.parameters
        elif layer.name in setting.adapted:
            number += adapter(layer, setting.rank)
    return float(_gradient_bytes(setting) * number)


def _casts(setting: Setting, inside: Iterable[Layer]) -> float:
    """Under autocast the casts of the weights that are trained are kept for the backward pass."""
    if not setting.autocast:
        return 0.0
    own = sum(layer.weights for layer in inside if layer.name in setting.trained)
    return 2.0 * (own + sum(adapter(layer, setting.rank) for layer in inside if layer.name in setting.adapted))


def _norm(setting: Setting, name: str, consumers: Iterable[str], width: int) -> float:
    """Bytes a token that a norm and the products behind it keep: its float32 input, what it scales, its output."""
    wanted = sum(setting.learns(each) for each in consumers)
    copies = wanted if setting.autocast else min(wanted, 1)  # under autocast each product casts for itself
    scaled = setting.stream if name in setting.trained else 0
    return float(width * (STORED + scaled + setting.computed * copies))


def _decoder(setting: Setting, work: Work, at: str) -> tuple[float, float, float]:
    """(bytes that a decoder layer keeps, the largest step of its backward pass, its input)."""
    shape, e, count = setting.shape, setting.computed, work.tokens
    attended, keys = shape.heads * shape.head_width, shape.key_heads * shape.head_width
    token = _norm(setting, f"{at}.input_layernorm", [f"{at}.self_attn.{x}_proj" for x in "qkv"], shape.hidden)
    token += _norm(
        setting, f"{at}.post_attention_layernorm", [f"{at}.mlp.gate_proj", f"{at}.mlp.up_proj"], shape.hidden
    )
    if shape.family == "qwen3_vl":
        token += (attended + keys) * (STORED + (setting.stream if f"{at}.self_attn.q_norm" in setting.trained else 0))
    token += e * 2 * attended + STORED * shape.heads  # queries, outputs and their normalisers
    copied = not setting.cuda and work.shared  # the kernel for any device puts outputs into the order of the row
    token += e * attended if copied and setting.learns(f"{at}.self_attn.o_proj") else 0
    token += e * shape.intermediate * (4 if setting.learns(f"{at}.mlp.down_proj") else 3)
    token += e * setting.rank * sum(f"{at}.{name}" in setting.adapted for name in _PROJECTIONS)
    kept = float(token * count)
    masked = not work.shared and work.ragged and work.rows > 1
    if work.shared:
        kept += e * 2 * keys * work.keys
    elif masked:  # keys are repeated for all heads, and the mask becomes numbers
        kept += e * 2 * attended * count + e * work.rows * (work.prompt + work.completion) ** 2
    else:
        kept += e * 2 * keys * count
    largest = count * (2 * e * shape.intermediate + 2 * setting.stream * shape.hidden)
    return kept, float(largest), float(setting.stream * shape.hidden * count)


_PROJECTIONS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)


def _block(setting: Setting, work: Work, at: str) -> tuple[float, float, float]:
    """(bytes that a block of the tower keeps, the largest step of its backward pass, its input)."""
    shape, e, v, wide = setting.shape, setting.computed, setting.shape.vision_hidden, setting.shape.vision_intermediate
    names = ("gate_proj", "up_proj") if shape.gated_vision else ("fc1", "linear_fc1")
    patch = _norm(setting, f"{at}.norm1", [f"{at}.attn.qkv"], v)
    patch += _norm(setting, f"{at}.norm2", [f"{at}.mlp.{name}" for name in names], v)
    # queries and keys turned, values with the product that they are a part of, outputs in two orders
    patch += e * 7 * v + STORED * shape.vision_heads
    ends = any(setting.learns(f"{at}.mlp.{name}") for name in ("down_proj", "fc2", "linear_fc2"))
    patch += e * wide * ((3 if shape.gated_vision else 1) + ends)
    largest = 2 * e * wide + 2 * setting.stream * v
    return float(patch * work.patches), float(largest * work.patches), float(setting.stream * v * work.patches)


def _merger(setting: Setting, work: Work, reached: bool, gradients: float) -> _Part:
    wide = setting.shape.merge * setting.shape.vision_hidden
    tokens = work.patches // setting.shape.merge
    kept = tokens * (wide * (2 * STORED + 3 * setting.computed) + 2 * setting.stream * setting.shape.hidden)
    return _Part("tower", float(kept) if reached else 0.0, 0.0, 0.0, gradients)


def _embedding(setting: Setting, work: Work, inside: Iterable[Layer]) -> _Part:
    shape = setting.shape
    table = shape.vocabulary * shape.hidden
    learns = "language_model.embed_tokens" in setting.trained
    # the gradient of the table is made whole, and added to the head's where that is the same
    largest = float(_dense(setting) * table) if learns else 0.0
    gradients = 0.0 if shape.tied else _gradients(setting, inside)
    turned = 2 * setting.stream * shape.head_width
    return _Part("language", float(work.tokens * (setting.stream * shape.hidden + turned)), 0.0, largest, gradients)


def _dense(setting: Setting) -> int:
    return STORED if not setting.bf16 or setting.zero == 0 else 2


def _head(setting: Setting, work: Work) -> _Part:
    """TRL's fused head: tiles of scores, never all of them; gradients are summed in float32."""
    shape = setting.shape
    everywhere = not setting.cuda and not work.shared
    scored = work.tokens if everywhere else work.scored
    height = min(scored, TILE_TOKENS)
    tile = float(setting.computed * height * setting.tile_width)
    if not setting.cuda:  # the kernel for any device makes seven more of the part of the tile that is filled
        tile += 7.25 * STORED * height * min(setting.tile_width, shape.vocabulary)
    name = "language_model.embed_tokens" if shape.tied else "lm_head"
    learns = name in setting.trained
    weight = (STORED + (2 if _dense(setting) == 2 else 0)) * shape.vocabulary * shape.hidden if learns else 0
    gradients = float(_gradient_bytes(setting) * shape.vocabulary * shape.hidden) if learns else 0.0
    largest = tile + weight - min(weight, gradients) + STORED * shape.hidden * scored
    if scored < work.tokens:
        largest += setting.stream * shape.hidden * work.tokens  # their gradient, spread over the row
    return _Part("head", float(setting.stream * shape.hidden * scored), 0.0, float(largest), gradients)


# The optimizer's step and the rollout


def step(setting: Setting) -> dict[str, float]:
    """What is there while the weights are changed: gradients, and DeepSpeed's float32 copy of its share of them."""
    _, _, trained = counts(setting)
    made = {"gradients": float(_gradient_bytes(setting) * trained)}
    if setting.zero:
        share = trained / setting.gpus
        made["gradients"] += STORED * (min(share, SUB_GROUP) if setting.zero == 3 else share)
    return made


def forward(setting: Setting, work: Work) -> dict[str, float]:
    """What a pass without gradients over one call holds at its peak."""
    shape, e = setting.shape, setting.computed
    tower = work.patches * (e * 3 * shape.vision_intermediate + 3 * STORED * shape.vision_hidden)
    rope = work.patches * STORED * 6 * shape.vision_hidden  # queries and keys are turned in float32
    language = work.tokens * (e * 3 * shape.intermediate + 3 * STORED * shape.hidden)
    if work.rows > 1 and work.ragged and not work.shared:
        language += work.rows * (work.prompt + work.completion) ** 2 * (1 + e)  # the mask, and the mask in numbers
    return {"inputs": _pixels(setting, [work]), "activations": float(max(tower, rope, language))}


def rollout(setting: Setting, work: Work) -> dict[str, float]:
    """What Hugging Face's generation holds at its peak: whole weights, keys and values, and the prefill.

    Args:
        setting: of the stage.
        work: the prompts that are run together, with their completions.
    """
    shape = setting.shape
    whole, _, trained = counts(setting)
    keys = shape.key_heads * shape.head_width
    cached = 2.0 * shape.layers * keys * setting.stream
    length = work.prompt + work.completion
    prefilled, room = cached * work.prompts * work.prompt, cached * work.rows * length
    before = forward(setting, replace(work, completion=0, group=1, shared=False))
    # in each step the layer that runs repeats its keys and values for all heads
    repeated = 2.0 * setting.stream * shape.heads * shape.head_width * work.rows * length
    # the prefill; then the prompts' keys and values beside the room for all completions; then a completion's tokens
    moments = [(prefilled, before["activations"]), (prefilled + room, 0.0), (room, repeated)]
    found, activations = max(moments, key=sum)
    made = {"keys and values": found, "inputs": before["inputs"], "activations": activations}
    if setting.zero == 3:
        made["gathered weights"] = float(setting.computed * whole)
    elif setting.autocast:
        made["cast weights"] = 2.0 * trained
    return made
