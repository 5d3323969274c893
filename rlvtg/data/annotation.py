"""Annotation files: opening them and taking fields out of their rows, with errors that name file, row and field.

Only the shape is checked here; whether the values make sense is for `rlvtg.data.check`.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlvtg.data.sample import DataError


def load_json(path: str) -> Any:
    """The content of a JSON file. Raises DataError when it is missing or not JSON."""
    return parse_json(read_text(path), path)


def read_text(path: str) -> str:
    """The text of an annotation file. Raises DataError when it is missing or not UTF-8."""
    if not Path(path).is_file():
        raise DataError(f"{path}: no such annotation file")
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def parse_json(text: str, where: str) -> Any:
    """`text` as JSON. Raises DataError with the line and column, and for an object with the same key twice."""

    def with_keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"{where}: an object has the key {twice!r} twice, of which JSON keeps one")
        return row

    try:
        return json.loads(text, object_pairs_hook=with_keys_once)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at line {error.lineno}, column {error.colno})") from error


def listed_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of a file that is one JSON list of objects."""
    yield from _listed(read_text(path), path)


def lined_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of a file with one JSON object per line. Empty lines are no rows."""
    yield from _lined(read_text(path), path)


def any_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of a file in either form: what begins with `[` is a list."""
    content = read_text(path)
    yield from _listed(content, path) if content.lstrip().startswith("[") else _lined(content, path)


def _listed(content: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = parse_json(content, path)
    if not isinstance(rows, list):
        raise DataError(f"{path}: got {type(rows).__name__}, expected a list of rows")
    for number_of_row, row in enumerate(rows):
        where = f"{path}, row {number_of_row}"
        yield where, mapping(row, where)


def _lined(content: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # split("\n"), not splitlines(): a query may hold other line separators.
    for number_of_line, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number_of_line}"
            yield where, mapping(parse_json(line, where), where)


def mapping(value: Any, where: str) -> dict[str, Any]:
    """`value`, which must be an object."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: got {_shown(value)}, expected an object")
    return value


def sequence(row: dict[str, Any], field: str, where: str) -> list[Any]:
    """The list in `row[field]`."""
    value = _value(row, field, where)
    if not isinstance(value, list):
        raise DataError(f"{where}, field {field!r}: got {_shown(value)}, expected a list")
    return value


def text(row: dict[str, Any], field: str, where: str) -> str:
    """The string in `row[field]`."""
    value = _value(row, field, where)
    if not isinstance(value, str):
        raise DataError(f"{where}, field {field!r}: got {_shown(value)}, expected a string")
    return value


def number(row: dict[str, Any], field: str, where: str) -> float:
    """The number in `row[field]`."""
    value = _value(row, field, where)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}, field {field!r}: got {_shown(value)}, expected a number of seconds")
    return float(value)


def label(row: dict[str, Any], field: str, where: str) -> str:
    """The string or whole number in `row[field]`, by which a file tells its rows apart, as a string."""
    value = _value(row, field, where)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where}, field {field!r}: got {_shown(value)}, expected a string or a whole number")
    return str(value)


def duration_or_nan(row: dict[str, Any], where: str) -> float:
    """The seconds in `row["duration"]`; where that is null or absent, nan: to be taken from the file."""
    return math.nan if row.get("duration") is None else number(row, "duration", where)


def optional_number(row: dict[str, Any], field: str, where: str) -> float | None:
    """The number in `row[field]`, None when it is null or absent."""
    return None if row.get(field) is None else number(row, field, where)


def optional_text(row: dict[str, Any], field: str, where: str) -> str | None:
    """The string in `row[field]`, None when it is null or absent."""
    return None if row.get(field) is None else text(row, field, where)


def optional_texts(row: dict[str, Any], field: str, where: str) -> tuple[str, ...] | None:
    """The strings in the list `row[field]`, None when it is null or absent."""
    if row.get(field) is None:
        return None
    values = sequence(row, field, where)
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{where}, field {field!r}: got {_shown(values)}, expected a list of strings")
    return tuple(values)


def texts(row: dict[str, Any], field: str, where: str) -> list[str]:
    """The strings in the list `row[field]`."""
    values = sequence(row, field, where)
    for k, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"{where}, field '{field}[{k}]': got {_shown(value)}, expected a string")
    return values


def spans(row: dict[str, Any], field: str, where: str) -> tuple[tuple[float, float], ...]:
    """The spans in `row[field]`, a list of [start, end] in seconds."""
    return tuple(span(value, f"{field}[{k}]", where) for k, value in enumerate(sequence(row, field, where)))


def span(value: Any, field: str, where: str) -> tuple[float, float]:
    """`value`, which must be [start, end] in seconds."""
    pair = isinstance(value, list) and len(value) == 2
    if not pair or any(isinstance(x, bool) or not isinstance(x, int | float) for x in value):
        raise DataError(f"{where}, field {field!r}: got {_shown(value)}, expected [start, end] in seconds")
    return float(value[0]), float(value[1])


def _value(row: dict[str, Any], field: str, where: str) -> Any:
    if field not in row:
        raise DataError(f"{where}: field {field!r} is missing; the row has {', '.join(map(repr, row)) or 'no fields'}")
    return row[field]


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
