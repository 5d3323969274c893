"""Logged completions are read alike, wherever and however they were written."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rlvtg import completions
from rlvtg.data.sample import DataError


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def table(path: Path, **columns: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(path)
    return path


def sentence(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        completions.read(completions.find(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "written",
    [
        "a b",
        [{"role": "assistant", "content": "a b"}],
        [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]}],
    ],
)
def test_a_completion_is_its_text_in_either_file(tmp_path: Path, written: Any) -> None:
    jsonl = lines(tmp_path / "c.jsonl", {"completion": written, "spans": [[1.0, 2.0]]})
    parquet = table(tmp_path / "c.parquet", completion=[written], spans=[[[1.0, 2.0]]])
    assert completions.read([jsonl]) == [{"completion": "a b", "spans": [[1.0, 2.0]]}]
    assert completions.read([parquet]) == [{"completion": "a b", "spans": [[1.0, 2.0]]}]


def test_a_line_separator_inside_a_completion_does_not_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"completion": "a\u2028b"}\n\n{"completion": "c"}', encoding="utf-8")
    assert [row["completion"] for row in completions.read([path])] == ["a\u2028b", "c"]


def test_a_column_that_a_row_lacks_is_none_in_it(tmp_path: Path) -> None:
    path = lines(tmp_path / "c.jsonl", {"completion": "a", "id": "x"}, {"completion": "b", "task": "caption"})
    assert completions.read([path]) == [
        {"completion": "a", "id": "x", "task": None},
        {"completion": "b", "id": None, "task": "caption"},
    ]


def test_a_value_that_did_not_apply_is_none_in_a_parquet_file(tmp_path: Path) -> None:
    path = table(tmp_path / "c.parquet", completion=["a", "b"], tiou=[0.5, float("nan")])
    assert [row["tiou"] for row in completions.read([path])] == [0.5, None]


def test_a_run_its_stage_and_its_completions_are_the_same_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    files = [table(run / f"rl/completions/completions_{step:05d}.parquet", completion=["a"]) for step in (1, 2, 10)]
    (run / "cold_start").mkdir()
    for place in (run, run / "rl", run / "rl/completions"):
        assert completions.find(place) == files
    assert completions.find(files[1]) == files[1:2]


def test_the_recipe_of_a_run_is_found_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = lines(tmp_path / "run/recipe.yaml", "name: x")
    for file in ("run/rl/completions/c.parquet", "run/evaluation/rl/predictions.jsonl"):
        assert completions.recipe_of(lines(tmp_path / file)) == recipe
    assert completions.recipe_of(lines(tmp_path / "run/c.jsonl")) is None
    monkeypatch.chdir(tmp_path / "run/evaluation/rl")
    assert completions.recipe_of(Path("predictions.jsonl")) == recipe


def test_of_several_stages_one_must_be_named(tmp_path: Path) -> None:
    for stage in ("rl", "more"):
        table(tmp_path / f"run/{stage}/completions/c.parquet", completion=["a"])
    assert sentence(tmp_path / "run").endswith(f"name one of {tmp_path / 'run/more'}, {tmp_path / 'run/rl'}")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"completion": ', "c.jsonl, line 2: not JSON"),
        ("[1]", "c.jsonl, line 2: got [1], expected an object"),
        ('{"id": "x", "spans": []}', "c.jsonl, line 2: field 'completion' is missing; the row has id, spans"),
        ('{"completion": null}', "c.jsonl, line 2, field 'completion': got None, want text or a list of messages"),
        ('{"completion": ["a"]}', "c.jsonl, line 2, field 'completion': got ['a'], want text or a list of messages"),
        ('{"completion": 7}', "c.jsonl, line 2, field 'completion': got 7, want text"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, row: str, said: str) -> None:
    assert said in sentence(lines(tmp_path / "c.jsonl", {"completion": "fine"}, row))


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert "no such file or folder of completions" in sentence(tmp_path / "gone")
    assert "no completions here" in sentence(tmp_path)
    assert "got a .csv file, want .jsonl or .parquet" in sentence(lines(tmp_path / "c.csv", "a"))
    assert "no rows" in sentence(lines(tmp_path / "empty.jsonl"))
    assert "cannot be read as parquet" in sentence(lines(tmp_path / "c.parquet", "no parquet"))
    missing = table(tmp_path / "other.parquet", text=["a"], step=[1])
    assert "row 1: field 'completion' is missing; the row has text, step" in sentence(missing)
