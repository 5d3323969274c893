"""How many floating-point operations a policy update takes, counted from shapes, with nothing shared and with more.

A multiplication and an addition count as two. Counted are the matrix products: linear layers, attention scores and
weighted sums, the head on the tokens of completions, and the vision tower. The backward pass counts as two forward
passes, or as none for a part that is not trained and has nothing trained before it.
"""

from dataclasses import dataclass

from rlvtg.cost.shapes import Shape


def tokens(shape: Shape, count: int, pairs: float) -> float:
    """A forward pass of the language model over `count` tokens of which `pairs` see each other, without the head."""
    linear = shape.hidden * shape.head_width * (2 * shape.heads + 2 * shape.key_heads)
    linear += 3 * shape.hidden * shape.intermediate
    return shape.layers * (2.0 * linear * count + 4.0 * shape.heads * shape.head_width * pairs)


def head(shape: Shape, count: int) -> float:
    """The head over `count` tokens."""
    return 2.0 * shape.hidden * shape.vocabulary * count


def vision(shape: Shape, prompt: int, frame: int) -> float:
    """The tower over a video of `prompt` tokens, with `frame` patches in each pair of frames."""
    patches = prompt * shape.merge
    matrices = 3 if shape.gated_vision else 2
    linear = 4 * shape.vision_hidden**2 + matrices * shape.vision_hidden * shape.vision_intermediate
    seen = shape.vision_full * frame + (shape.vision_layers - shape.vision_full) * shape.window
    merger = (shape.merge * shape.vision_hidden) ** 2 + shape.merge * shape.vision_hidden * shape.hidden
    embedding = 2.0 * shape.patch * shape.vision_hidden * patches
    tower = 2.0 * shape.vision_layers * linear * patches + 4.0 * shape.vision_hidden * seen * patches
    return embedding + tower + 2.0 * merger * prompt * (1 + shape.deepstack)


@dataclass(frozen=True)
class Update:
    """The operations of one update of a group, forward and backward, in each of three ways."""

    full_rows: float
    vision_shared: float
    prefix_shared: float


def update(
    shape: Shape, prompt: int, group: int, completion: int, *, queries: int = 1, frame: int = 400, frozen: bool = False
) -> Update:
    """An update of `queries` groups of `group` completions of `completion` tokens behind prompts of `prompt` tokens.

    Args:
        shape: of the model.
        prompt: tokens of a prompt, nearly all of them of its video.
        group: completions of a query.
        completion: tokens of each.
        queries: that are asked about the same video; the third way runs the video once for all of them.
        frame: patches in a pair of frames.
        frozen: the vision tower is not trained.
    """
    rows = queries * group
    tower = vision(shape, prompt, frame) * (1 if frozen else 3)
    scored = 3 * head(shape, rows * completion)
    length = prompt + completion
    full = 3 * rows * tokens(shape, length, length**2 / 2)
    own = rows * completion
    tree = 3 * tokens(shape, prompt - 1 + own, prompt**2 / 2 + own * (prompt + completion / 2))
    return Update(full + scored + rows * tower, full + scored + tower, tree + scored + tower)


def decoded(shape: Shape, prompt: int, completion: int) -> float:
    """A completion that is written token by token behind a prompt whose keys and values are there, with the head."""
    return tokens(shape, completion, completion * (prompt + completion / 2)) + head(shape, completion)
