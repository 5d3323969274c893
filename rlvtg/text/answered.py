"""What a reward of spans compares: the predicted and the annotated spans of each row."""

from collections.abc import Iterator, Sequence
from typing import Any

from rlvtg.text.annotation import annotated_duration, annotated_spans, row_names
from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.grammar import grammar as grammar_named
from rlvtg.text.span import Span


def answered(
    completions: Sequence[Completion],
    spans: Sequence[Sequence[Sequence[float]]],
    id: Sequence[Any] | None,
    duration: Sequence[float] | None,
    grammar: str,
    *,
    none_allowed: bool = False,
) -> Iterator[tuple[list[Span], list[Span]]]:
    """(predicted, annotated) spans of each row, in seconds and in the order in which they were written.

    Nothing is predicted where nothing could be parsed. AnnotationError names the row whose `spans` are missing or not
    finite; `duration` is looked at only by grammars that write times relative to it. `none_allowed` takes a row
    annotated with no span, [], as it is.
    """
    named = grammar_named(grammar)
    rows = row_names(id, len(completions))
    for index, (completion, annotation, row) in enumerate(zip(completions, spans, rows, strict=True)):
        nothing = none_allowed and isinstance(annotation, (list, tuple)) and not annotation
        annotated = [] if nothing else annotated_spans(annotation, row)
        length = None
        if named.parts is not None and duration is not None:
            length = annotated_duration(duration[index], row)
        yield named.parse(completion_text(completion), length), annotated
