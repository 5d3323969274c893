"""Video-R1-260k and Video-R1-CoT-165k (arXiv 2503.21776): questions about videos that are not about time.

[{"problem_id", "problem", "data_type", "problem_type", "options", "solution": "<answer>B</answer>", "path",
"process": "<think>...</think>" in CoT rows}, ...]
"""

from pathlib import Path

from rlvtg.data.annotation import any_rows, duration_or_nan, label, optional_text, optional_texts, text
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Source

CHOICE = "multiple choice"


def read(source: Source) -> list[Sample]:
    """One sample per row, without spans and, since the format has none, without duration; the id is `problem_id`.

    Multiple-choice rows have task `qa`; their query is the problem with one option per line behind it. The task of the
    others is their `problem_type`: numerical, OCR, free-form, regression. `answer` is what stands in the solution's
    tags. A row with a `process` has it and the solution as its completion.

    Raises DataError naming file, row and field, and for rows about images, which the published files have too.
    """
    samples, images = [], []
    for where, row in any_rows(source.annotations):
        if text(row, "data_type", where) != "video":
            images.append(where)
            continue
        problem, kind = text(row, "problem", where), text(row, "problem_type", where)
        options = optional_texts(row, "options", where) if kind == CHOICE else None
        solution, process = text(row, "solution", where), optional_text(row, "process", where)
        samples.append(
            Sample(
                id=label(row, "problem_id", where),
                video=str(Path(source.videos) / text(row, "path", where)),
                duration=duration_or_nan(row, where),
                query="\n".join((problem, *(options or ()))),
                spans=(),
                task="qa" if kind == CHOICE else kind,
                completion=None if process is None else f"{process}\n{solution}",
                answer=_inside_tags(solution, where),
                options=options,
            )
        )
    if images:
        raise DataError(
            f"{images[0]}: not about a video, like {len(images)} of {len(images) + len(samples)} rows; "
            "keep those whose data_type is 'video' in a file of their own"
        )
    return samples


def _inside_tags(solution: str, where: str) -> str:
    inner = solution.strip()
    if not (inner.startswith("<answer>") and inner.endswith("</answer>")):
        raise DataError(f"{where}, field 'solution': got {solution[:60]!r}, expected '<answer>...</answer>'")
    return inner.removeprefix("<answer>").removesuffix("</answer>").strip()
