"""Annotation file -> samples, by the reader that the recipe names."""

import difflib
from collections.abc import Callable
from pathlib import Path

from rlvtg.data import charades_sta, jsonl, time_r1
from rlvtg.data.check import check
from rlvtg.data.sample import DataError, Sample
from rlvtg.recipe import Recipe, Source

READERS: dict[str, Callable[[Source], list[Sample]]] = {
    "charades_sta": charades_sta.read,
    "time_r1": time_r1.read,
    "jsonl": jsonl.read,
}


def read(source: Source) -> list[Sample]:
    """The samples of `source`, in file order, the first `limit` of them when a limit is set.

    Raises DataError for an unknown reader and for a file that is not in its format.
    """
    if source.reader not in READERS:
        near = difflib.get_close_matches(source.reader, READERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"reader is {source.reader!r}; it must be one of {', '.join(READERS)}{hint}")
    return READERS[source.reader](source)[: source.limit]


def checked(recipe: Recipe, name: str, folder: Path | None) -> list[Sample]:
    """The samples of `data.<name>` without a fault; the bad rows are listed in `folder`, if one is given.

    Raises DataError as `read` and `check` do, with the name of the data.
    """
    listed = None if folder is None else folder / f"bad_rows.{name}.jsonl"
    try:
        return check(read(recipe.data[name]), max_bad_fraction=recipe.max_bad_fraction, bad_rows_path=listed)
    except DataError as error:
        raise DataError(f"data.{name}: {error}") from error
