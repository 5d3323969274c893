"""Annotation files: opening them and taking fields out of their rows, with errors that name file, row and field.

Only the shape is checked here; whether the values make sense is for `rlvtg.data.check`.
"""

import json
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
    """`text` as JSON. Raises DataError with the line and column."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at line {error.lineno}, column {error.colno})") from error


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
