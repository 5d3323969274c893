"""What the words of `rlvtg eval` ask for, and what is wrong with them, before torch loads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlvtg.evaluation.jobs import jobs, trained_on
from rlvtg.recipe import RecipeError
from tests.tiny_qwen import write_video

ROOT = Path(__file__).resolve().parent.parent
RECIPE = """
model: some/model
data:
  gone: {reader: jsonl, annotations: gone.jsonl, videos: gone}
  first: {reader: jsonl, annotations: first.jsonl, videos: videos}
  second: {reader: jsonl, annotations: second.jsonl, videos: videos}
prompt: "{video}When is {query}?"
grammar: to
stages:
  sft: {kind: sft, data: gone, learning_rate: 1.0, lr_scheduler_type: linear, per_device_train_batch_size: 1}
evaluation: {data: first}
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two test sets and without the data of the recipe's stage."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/a.mp4", seconds=10, rate=2)
    for name, count in (("first", 2), ("second", 3)):
        rows = [
            {"id": f"{name}{k}", "video": "a.mp4", "duration": 10.0, "query": "a dog", "spans": [[1.0, 3.0]]}
            for k in range(count)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for model in ("runs/a/rl/merged", "runs/a/rl/adapter"):
        (tmp_path / model).mkdir(parents=True)
    return tmp_path


def test_the_recipes_model_and_test_set_are_the_default_and_no_training_data_is_needed() -> None:
    [job] = jobs(["recipe=mine.yaml"])
    assert (job.model, job.data, len(job.rows), job.trained_on) == ("some/model", "first", 2, "")
    assert job.place == Path("evaluations/mine/some--model/first")
    assert job.rows[0]["prompt"][0]["content"][-1]["text"] == "When is a dog?"


def test_an_evaluation_may_word_its_prompt_itself() -> None:
    [job] = jobs(["recipe=mine.yaml", "evaluation.prompt={video}{query}: when?"])
    assert job.rows[0]["prompt"][0]["content"][-1]["text"] == "a dog: when?"


def test_every_model_is_asked_about_every_test_set() -> None:
    found = jobs(
        ["recipe=mine.yaml", "model=runs/a/rl/merged,runs/a/rl/adapter", "data=second,first", "output=out",
         "protocol=timelens", "evaluation.batch_size=3"]
    )  # fmt: skip
    assert [(job.model, job.data, len(job.rows)) for job in found] == [
        ("runs/a/rl/merged", "second", 3),
        ("runs/a/rl/merged", "first", 2),
        ("runs/a/rl/adapter", "second", 3),
        ("runs/a/rl/adapter", "first", 2),
    ]
    assert len({job.place for job in found}) == 4 and found[0].place == Path("out/runs--a--rl--merged/second")
    assert {(job.recipe.evaluation.protocol, job.recipe.evaluation.batch_size) for job in found} == {("timelens", 3)}


def test_the_run_that_a_model_lies_in_tells_what_it_was_trained_on(place: Path) -> None:
    (place / "runs/a/recipe.yaml").write_text(
        "data: {x: {annotations: x.json}, y: {annotations: y.json}, z: {annotations: z.json}}\n"
        "stages: {sft: {data: x}, rl: {data: y}, more: {data: z}}\n"
    )
    assert trained_on("runs/a/rl/merged") == "x.json + y.json"
    assert trained_on(str(place / "runs/a/sft/adapter")) == "x.json"
    (place / "runs/a/recipe.yaml").write_text(
        "data: {x: {annotations: x.json}, y: {annotations: y.json}, z: {annotations: z.json}}\n"
        "stages: {rl: {data: y, tasks: {a: {data: null}, b: {data: z}, c: {data: y}}}}\n"
    )
    assert trained_on("runs/a/rl/merged") == "y.json + z.json"
    assert trained_on("runs/a/none/adapter") == trained_on("some/model") == ""


MISTAKES = [
    ([], "usage: recipe=NAME"),
    (["recipe=mine.yaml", "model=runs/a/rl/none"], "model: no folder runs/a/rl/none"),
    (["recipe=mine.yaml", "model=a,a"], "model: got 'a,a', want one name or several different ones"),
    (["recipe=mine.yaml", "data=first,"], "data: got 'first,', want one name"),
    (["recipe=mine.yaml", "data=frist"], "evaluation.data: got 'frist', nearest: first"),
    (["recipe=mine.yaml", "data=gone"], "data.gone.annotations: no file gone.jsonl"),
    (["recipe=mine.yaml", "protocol=timlens"], "no protocol is called 'timlens'"),
    (["recipe=mine.yaml", "outptu=x"], "outptu: unknown key"),
    (["recipe=mine.yaml", "output"], "got 'output', want key=value"),
]


def test_a_mistake_is_one_sentence_and_torch_is_not_loaded(place: Path) -> None:
    (place / "no_torch").mkdir()
    (place / "no_torch/torch.py").write_text('raise RuntimeError("torch was loaded")\n')
    environment = {**os.environ, "PYTHONPATH": f"{place / 'no_torch'}{os.pathsep}{ROOT}"}
    code = "import json, sys\nfrom rlvtg.cli import main\nfor words in json.loads(sys.argv[1]): print(main(words))"
    every = json.dumps([["eval", *words] for words, _ in MISTAKES])
    done = subprocess.run([sys.executable, "-c", code, every], env=environment, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.stdout.split() == ["2"] * len(MISTAKES) and len(lines) == len(MISTAKES), done.stderr
    for line, (_, said) in zip(lines, MISTAKES, strict=True):
        assert line.startswith("error: ") and said in line


def test_bad_rows_are_listed_below_the_output(place: Path) -> None:
    rows: list[dict[str, Any]] = [json.loads(line) for line in (place / "second.jsonl").read_text().splitlines()]
    rows[1]["video"] = "gone.mp4"
    (place / "second.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [job] = jobs(["recipe=mine.yaml", "data=second", "output=out", "max_bad_fraction=0.5"])
    assert [row["id"] for row in job.rows] == ["second0", "second2"]
    assert json.loads((place / "out/bad_rows.second.jsonl").read_text())["reason"] == "missing video"


def test_a_recipe_with_its_stages_still_needs_their_data() -> None:
    from rlvtg.recipe import load

    with pytest.raises(RecipeError, match="gone.jsonl"):
        load(["recipe=mine.yaml"])
