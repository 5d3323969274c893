"""Sample -> row: the columns that a trainer and its rewards see. Rows hold paths, never pixels."""

import dataclasses
import difflib
import string
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import PLACEHOLDERS

# What every row has; a supervised row has "completion" too.
COLUMNS = (*(field.name for field in dataclasses.fields(Sample) if field.name != "completion"), "prompt")

_PROMPT_FIELDS = tuple(PLACEHOLDERS)
_COMPLETION_FIELDS = ("query", "start", "end", "duration")
_VIDEO = object()


def rows(
    samples: Sequence[Sample],
    prompt: str,
    system: str | None = None,
    completion: str | None = None,
    *,
    supervised: bool = False,
) -> list[dict[str, Any]]:
    """The fields of each sample as columns, with "prompt" and, for supervised rows, "completion" as chat messages.

    The prompt template has `{video}` once, where the video goes, and any of `{query}`, `{duration}`, `{masked_query}`
    and `{options}`, which are written one per line behind their letters, as `(A) a dog`. Format specs work
    (`{duration:.1f}`), `{{` and `}}` are literal braces, white space around the whole template is dropped (a YAML block
    ends in a newline).

    Rows have a "completion" if they are `supervised` or a completion template is given: the sample's own, or else the
    template with `{query}`, `{start}`, `{end}` (of the first span) and `{duration}` filled in.

    Raises DataError for a field that a template may not have, for a sample that lacks what the prompt shows of it, and
    for a supervised sample without a completion.
    """
    parts = _parse(prompt.strip(), "prompt", _PROMPT_FIELDS)
    if sum(field == "video" for _, field, _ in parts) != 1:
        raise DataError("the prompt must contain {video} exactly once")
    target = None if completion is None else _parse(completion.strip(), "completion", _COMPLETION_FIELDS)
    result = []
    for sample in samples:
        row = dataclasses.asdict(sample)
        row["spans"] = [list(span) for span in sample.spans]
        row["options"] = None if sample.options is None else list(sample.options)
        row["prompt"] = _messages(row, parts, system)
        del row["completion"]
        if supervised or target is not None:
            row["completion"] = [{"role": "assistant", "content": [_text(_answer(sample, target))]}]
        result.append(row)
    return result


def messages(row: Mapping[str, Any], prompt: str, system: str | None = None) -> list[dict[str, Any]]:
    """The prompt of one row, as `rows` fills it in; DataError as there."""
    return _messages(row, _parse(prompt.strip(), "prompt", _PROMPT_FIELDS), system)


def first_of_each_task(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first row of every task among the rows, in order."""
    found: dict[Any, Mapping[str, Any]] = {}
    for row in rows:
        found.setdefault(row.get("task"), row)
    return list(found.values())


# (literal text before the field, field or None at the end, format spec)
_Parts = list[tuple[str, str | None, str]]


def _parse(template: str, name: str, allowed: Sequence[str]) -> _Parts:
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise DataError(
            f"the {name} template is malformed: {error}; a literal brace is written {{{{ or }}}}"
        ) from error
    parts: _Parts = []
    for literal, field, spec, conversion in parsed:
        if field is not None and field not in allowed:
            near = difflib.get_close_matches(field, allowed, n=1)
            hint = f"; did you mean {{{near[0]}}}?" if near else ""
            choices = ", ".join(f"{{{choice}}}" for choice in allowed)
            raise DataError(f"the {name} template has {{{field}}}; allowed are {choices}{hint}")
        if conversion is not None or "{" in (spec or ""):
            raise DataError(
                f"the {name} template formats {{{field}}} in a way that is not supported; use a plain spec such as :.2f"
            )
        parts.append((literal, field, spec or ""))
    return parts


def _filled(parts: _Parts, values: Mapping[str, Any], name: str) -> list[Any]:
    """Texts and `_VIDEO`. Values are put in as they are: braces in a query mean nothing."""
    pieces: list[Any] = []
    for literal, field, spec in parts:
        pieces.append(literal)
        if field is not None and values[field] is not _VIDEO:
            try:
                pieces.append(format(values[field], spec))
            except ValueError as error:
                raise DataError(f"the {name} template cannot format {{{field}:{spec}}}: {error}") from error
        elif field is not None:
            pieces.append(_VIDEO)
    return pieces


def _messages(row: Mapping[str, Any], parts: _Parts, system: str | None) -> list[dict[str, Any]]:
    values = {field: _shown(row, field) for _, field, _ in parts if field is not None}
    pieces = _filled(parts, values, "prompt")
    middle = next(k for k, piece in enumerate(pieces) if piece is _VIDEO)
    content: list[dict[str, str]] = [{"type": "video"}]
    before, after = "".join(pieces[:middle]), "".join(pieces[middle + 1 :])
    if before:
        content.insert(0, _text(before))
    if after:
        content.append(_text(after))
    first: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": [_text(system)]}]
    return [*first, {"role": "user", "content": content}]


def _shown(row: Mapping[str, Any], field: str) -> Any:
    """What a prompt shows of a row for `{field}`."""
    if field == "video":
        return _VIDEO
    value = row.get(field)
    if value is None or value == []:
        raise DataError(f"row {row.get('id')!r} has no {field}, which the prompt shows as {{{field}}}")
    return _lettered(value, row) if field == "options" else value


def _lettered(options: Sequence[str], row: Mapping[str, Any]) -> str:
    letters = string.ascii_uppercase
    if len(options) > len(letters):
        raise DataError(f"row {row.get('id')!r} has {len(options)} options; there are {len(letters)} letters")
    bare = [_without_letter(letter, option) for letter, option in zip(letters, options, strict=False)]
    shown = options if None in bare else bare  # one that is called `A. Lincoln` brings no letter
    return "\n".join(f"({letter}) {option}" for letter, option in zip(letters, shown, strict=False))


def _without_letter(letter: str, option: str) -> str | None:
    """The option behind the letter that it brings, as in `A. a dog`; None if it brings none."""
    marks = (f"({letter})", f"{letter}.", f"{letter})", f"{letter}:")
    mark = next((mark for mark in marks if option.startswith(mark)), None)
    return None if mark is None else option.removeprefix(mark).strip()


def _answer(sample: Sample, target: _Parts | None) -> str:
    if sample.completion is not None:
        return sample.completion
    if target is None:
        raise DataError(f"row {sample.id!r} has no completion; give every row one or set a completion template")
    if not sample.spans:
        raise DataError(f"row {sample.id!r} has no span to fill the completion template with")
    start, end = sample.spans[0]
    values = {"query": sample.query, "start": start, "end": end, "duration": sample.duration}
    return "".join(_filled(target, values, "completion"))


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
