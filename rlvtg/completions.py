"""Reads logged completions: a run's parquet files, an evaluation's predictions.jsonl, or JSON lines of one's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from rlvtg.data.annotation import mapping, parse_json, read_text
from rlvtg.data.sample import DataError
from rlvtg.text.completion import completion_text

Rows = list[dict[str, Any]]


def find(path: str | Path) -> list[Path]:
    """The files of completions that `path` stands for, in order.

    A .jsonl or .parquet file is itself. A folder stands for its parquet files, or else for those of its completions/ (a
    stage of a run, or a round of a stage), or else for those of its one stage or round. DataError says what is there
    instead.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix not in (".jsonl", ".parquet"):
            raise DataError(f"{path}: got a {path.suffix or 'nameless'} file, want .jsonl or .parquet")
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder of completions (looked in {Path.cwd()})")
    stages = sorted([*path.glob("*/completions"), *path.glob("*/round_*/completions")])
    if len(stages) > 1:
        listed = ", ".join(str(stage.parent) for stage in stages)
        raise DataError(f"{path}: several stages or rounds have completions; name one of {listed}")
    for folder in (path, path / "completions", *stages):
        files = sorted(folder.glob("*.parquet"))
        if files:
            return files
    raise DataError(f"{path}: no completions here; want a folder with *.parquet, completions/*.parquet or "
                    "STAGE/completions/*.parquet")  # fmt: skip


def read(files: list[Path]) -> Rows:
    """The rows of the files, each with its `completion` as text; a column that a row lacks is None in it.

    Raises DataError naming file, line or row and field.
    """
    rows = [row for file in files for row in (_parquet(file) if file.suffix == ".parquet" else _lines(file))]
    if not rows:
        raise DataError(f"{files[0]}: no rows")
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column) for column in columns} for row in rows]


def _lines(file: Path) -> Rows:
    rows = []
    # split("\n"), not splitlines(): a completion may hold other line separators.
    for number, line in enumerate(read_text(str(file)).split("\n"), start=1):
        if line.strip():
            where = f"{file}, line {number}"
            rows.append(_with_text(mapping(parse_json(line, where), where), where))
    return rows


def _parquet(file: Path) -> Rows:
    try:
        rows = parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as parquet ({str(error).splitlines()[0]})") from error
    return [_with_text(row, f"{file}, row {number}") for number, row in enumerate(rows, start=1)]


def _with_text(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The row with the text of its completion, which was written as a string or as messages."""
    if "completion" not in row:
        raise DataError(f"{where}: field 'completion' is missing; the row has {', '.join(row) or 'no fields'}")
    try:
        return {**row, "completion": completion_text(row["completion"])}
    except (TypeError, AttributeError, KeyError):
        got = repr(row["completion"])
        shown = got if len(got) <= 60 else f"{got[:57]}..."
        raise DataError(f"{where}, field 'completion': got {shown}, want text or a list of messages") from None


def recipe_of(file: Path) -> Path | None:
    """The recipe.yaml of the run that a file of completions or predictions lies in, None if it lies in none."""
    # RUN/STAGE/completions/x.parquet, RUN/STAGE/round_1/completions/x.parquet, RUN/evaluation/LABEL/predictions.jsonl
    for run in list(file.resolve().parents)[2:4]:
        if (run / "recipe.yaml").is_file():
            return run / "recipe.yaml"
    return None
