"""Samples of the inverse tasks from samples of grounding: the video is the annotated segment, the answer is the verb.

Invert4TVG (arXiv 2508.07388) asks for the verb in three ways, each of which is a task of its own.
"""

from collections.abc import Sequence
from dataclasses import replace

from rlvtg.data.sample import Sample
from rlvtg.text.inverse import TASKS, InverseRow, check_choice, target_verbs, without_verb
from rlvtg.text.span import window
from rlvtg.text.verbs import Tagger, TaggingError


def inverse_samples(
    samples: Sequence[Sample],
    *,
    tasks: Sequence[str] = TASKS,
    shortest: float = 1.0,
    tagger: Tagger | None = None,
) -> tuple[list[Sample], list[tuple[str, str]]]:
    """(samples of the inverse tasks, (id, reason) of each sample that gives none), both in order.

    Each sample of task `grounding` with one span and a `verb` gives one sample per task, with the id `<id>/<task>`:
    its video is the span, limited to the video and widened to `shortest` seconds, by default two frames at 2 fps; its
    `masked_query` is the sample's, or else the query without its verb. `query` stays whole for the rewards, so the
    prompt of a task that hides the verb must not show it.

    A masked query in which the verb's word still stands gives the answer away, and the sample is left out. With a
    `tagger` that holds for any form of the verb, and the tagger must also see the verb in the query, or the rewards
    would not apply.
    """
    for task in tasks:
        check_choice("task", task, TASKS)
    made: list[Sample] = []
    left_out: list[tuple[str, str]] = []
    for sample in samples:
        base = _segment(sample, shortest, tagger)
        if isinstance(base, str):
            left_out.append((sample.id, base))
        else:
            made.extend(replace(base, id=f"{sample.id}/{task}", task=task) for task in tasks)
    return made, left_out


def _segment(sample: Sample, shortest: float, tagger: Tagger | None) -> Sample | str:
    """The sample with its span as its video and its verb masked, or why that cannot be."""
    if sample.task != "grounding":
        return f"its task is {sample.task}"
    if len(sample.spans) != 1:
        return f"it has {len(sample.spans)} spans"
    if not sample.verb or not sample.verb.strip():
        return "it has no verb"
    masked = without_verb(sample.query, sample.verb) if sample.masked_query is None else sample.masked_query
    if masked is None:
        return f"its query has no {sample.verb!r}"
    if without_verb(masked, sample.verb) is not None:
        return f"its masked query still has {sample.verb!r}"
    try:
        if tagger is not None and not target_verbs(InverseRow(sample.query, masked, sample.verb), tagger):
            return f"the tagger sees no verb {sample.verb!r} in the query, or still one in the masked query"
        start, end = window(sample.spans[0], sample.duration, shortest)
    except (TaggingError, ValueError) as error:
        return str(error)
    first = sample.video_start or 0.0
    return replace(
        sample,
        duration=end - start,
        spans=((0.0, end - start),),
        video_start=first + start,
        video_end=first + end,
        masked_query=masked,
        completion=None,
    )
