from collections.abc import Sequence
from typing import Any

from rlvtg.text.annotation import row_names
from rlvtg.text.box import annotated_boxes, box_overlap
from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.grammars.boxes import parse
from rlvtg.text.tags import first_block


def box_iou(
    completions: Sequence[Completion],
    answer: Sequence[str | None],
    id: Sequence[Any] | None = None,
    *,
    block: str = "answer",
    untagged: bool = False,
    **_: Any,
) -> list[float | None]:
    """Mean IoU of the predicted boxes with the annotated ones, in their order; None for a row without an `answer`.

    Formula: mean over the boxes of area of intersection / area of union. Range: [0, 1]. The first `block` must hold the
    boxes and nothing else, one `[x0, y0, x1, y1]` or a list of as many as are annotated, in the annotation's unit;
    anything else scores 0.0, as a box does that is reversed or has no area. With `untagged`, a text without the block
    is read as a whole. `answer` holds the annotated box or boxes as JSON text; any other text raises AnnotationError
    naming its row.

    Source: arXiv 2504.06958; with 8 annotated boxes, reward `tracking_iou` of OpenGVLab/VideoChat-R1@73b2ea9
    grpo_tasks.py. With one and `untagged`, `detection_iou` of arXiv 2509.21100, @c9194bf reward_funcs.py, and with the
    block `glue` and weight 0.2, `detection_glue` there.
    Differs: one box in a list is one box; there, line breaks in the block make a single box unreadable.
    """
    rewards: list[float | None] = []
    for completion, cell, row in zip(completions, answer, row_names(id, len(completions)), strict=True):
        if cell is None:
            rewards.append(None)
            continue
        true = annotated_boxes(cell, row)
        text = completion_text(completion)
        inside = first_block(text, block)
        if inside is None:
            inside = text if untagged else ""
        predicted = parse(inside)
        if len(predicted) == len(true):
            rewards.append(sum(map(box_overlap, predicted, true)) / len(true))
        else:
            rewards.append(0.0)
    return rewards
