"""A reward on logged completions: called as in training, its values counted, compared, written and drawn."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rlvtg.recipe import knobs
from rlvtg.reward import RewardError
from rlvtg.text.annotation import AnnotationError
from rlvtg.tryout import Trial, plot, report, score, summary, write


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def row(answer: str, **columns: Any) -> dict[str, Any]:
    given = {"id": "a", "duration": 30.0, "spans": [[4.0, 8.0]], "completion": f"<answer>{answer}</answer>"}
    return given | columns


def jsonl(*rows: dict[str, Any]) -> str:
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "c.jsonl"


def logged_by_a_run(recipe: str = "", **columns: list[Any]) -> str:
    """A run's folder with completions as the trainer writes them: messages, null for None, the log's own columns."""
    count = len(columns["completion"])
    folder = Path("run/rl/completions")
    folder.mkdir(parents=True)
    Path("run/recipe.yaml").write_text(recipe or "grammar: to\n")
    columns["completion"] = [[{"role": "assistant", "content": text}] for text in columns["completion"]]
    prompt = [{"role": "user", "content": "when?<video>"}]
    given = {
        "step": [1] * count,
        "prompt": [prompt] * count,
        "id": ["a"] * count,
        "duration": [30.0] * count,
        "spans": [[[4.0, 8.0]]] * count,
        "predicted": [[]] * count,
        "advantage": [0.0] * count,
    }
    pd.DataFrame(given | columns).to_parquet(folder / "completions_00001.parquet")
    return "run"


def mine(source: str) -> str:
    Path("mine.py").write_text(source)
    return "mine.py:mine"


def test_the_values_are_those_of_the_function_called_by_hand() -> None:
    trial = score("tiou", jsonl(row("4 to 8"), row("4 to 6"), row("8 to 9"), row("soon")), {})
    assert trial.values == [1.0, 0.5, 0.0, 0.0]
    assert (trial.name, trial.settings, trial.unparsed, trial.logged) == ("tiou", "grammar=to", 0.25, None)


def test_knobs_are_written_as_in_a_recipe() -> None:
    assert knobs(["clamp=true", "by.task=[1, a]", "text=null", "by.other=0.5", "clamp=false"]) == {
        "clamp": False,
        "by": {"task": [1, "a"], "other": 0.5},
        "text": None,
    }
    path = jsonl(row("4 to 8000"))
    [free], [clamped] = (score("timestamp_tiou", path, knobs(words)).values for words in ([], ["clamp=true"]))
    assert free is not None and free < 0 and clamped == 0.0


def test_completions_come_as_messages_and_columns_as_lists_as_in_training() -> None:
    key = mine(
        "seen = {}\ndef mine(completions, prompts, spans, **columns):\n"
        "    assert completions == [[{'role': 'assistant', 'content': 'x'}]], completions\n"
        "    assert prompts == [[{'role': 'user', 'content': 'when?<video>'}]], prompts\n"
        "    assert spans == [[[4.0, 8.0]]], spans\n"
        "    assert sorted(columns) == ['duration', 'id', 'log_extra', 'log_metric'], sorted(columns)\n"
        "    return [1.0]\n"
    )
    assert score(key, logged_by_a_run(completion=["x"]), {}).values == [1.0]


def test_the_summary_counts_what_there_is() -> None:
    path = jsonl(*[row(answer, id=name) for name, answer in zip("aabb", ("4 to 8", "4 to 6", "no", "no"), strict=True)])
    assert summary(score("tiou", path, {})) == {
        "rows": "4", "none": "0", "mean": "0.3750", "std": "0.4146", "min": "0.0000", "median": "0.2500",
        "max": "1.0000", "zero": "0.5000 of the values", "unparsed": "0.5000 of the values",
        "groups": "2, 0.5000 of them without spread",
    }  # fmt: skip


def test_rows_that_the_reward_does_not_apply_to_count_nowhere() -> None:
    key = mine(
        "def mine(completions, id, *, grammar='to', **_):\n    return [None if name == 'b' else 2.0 for name in id]\n"
    )
    trial = score(key, jsonl(row("1 to 2"), row("no", id="b"), row("no", id="b"), row("1 to 2")), {})
    found = summary(trial)
    assert trial.values == [2.0, None, None, 2.0]
    assert (found["rows"], found["none"], found["mean"]) == ("4", "2", "2.0000")
    assert found["unparsed"] == "0.0000 of the values"
    assert found["groups"] == "1, 1.0000 of them without spread"
    assert summary(score(key, jsonl(row("no", id="b")), {})) == {"rows": "1", "none": "1"}
    assert "     none  b  <answer>no</answer>" in report(score(key, jsonl(row("no", id="b")), {}), 5)


def test_ids_that_differ_make_no_groups_and_prompts_do_where_there_are_no_ids() -> None:
    assert "groups" not in summary(score("tiou", jsonl(row("4 to 8"), row("4 to 8", id="b")), {}))
    rows = [{k: v for k, v in row("4 to 8", prompt="p", step=step).items() if k != "id"} for step in (1, 1, 2, 2)]
    assert summary(score("tiou", jsonl(*rows), {}))["groups"].startswith("2, ")


def test_the_column_of_a_run_is_compared(here: Path) -> None:
    path = logged_by_a_run(completion=["<answer>4 to 8</answer>"] * 4, tiou=[1.0, 0.25, float("nan"), 1.0 + 1e-8])
    trial = score("tiou", path, {})
    assert trial.logged == [1.0, 0.25, None, 1.0 + 1e-8]
    assert summary(trial)["logged"] == (
        "2 of 4 agree with the column of the file; largest difference 0.7500; 1 have a value on one side only"
    )


def test_float32_is_close_enough_to_agree() -> None:
    assert (
        summary(score("tiou", jsonl(row("4 to 7", tiou=0.75), row("4 to 5.2", tiou=0.30000001192092896)), {}))["logged"]
        == "2 of 2 agree with the column of the file"
    )


RECIPE = """\
grammar: to
stages:
  rl:
    rewards:
      timestamp_tiou: {weight: 1.0, args: {clamp: true}, tasks: [grounding]}
"""


def test_a_runs_own_knobs_and_tasks_hold_unless_others_are_given() -> None:
    path = logged_by_a_run(RECIPE, completion=["<answer>4 to 8000</answer>"] * 2, task=["grounding", "caption"])
    trial = score("timestamp_tiou", path, {})
    assert trial.values == [0.0, None]
    assert trial.settings == 'clamp=true, grammar=to, tasks=["grounding"]'
    [value, _] = score("timestamp_tiou", path, {"clamp": False}).values
    assert value is not None and value < 0


def test_the_grammar_of_a_run_holds() -> None:
    path = logged_by_a_run("grammar: gone\n", completion=["x"])
    with pytest.raises(ValueError, match="no grammar is called 'gone'"):
        score("tiou", path, {})
    assert score("tiou", path, {"grammar": "to"}).values == [0.0]


def test_an_async_reward_is_awaited_and_what_it_logs_is_kept() -> None:
    key = mine(
        "async def mine(completions, log_extra=None, log_metric=None, **_):\n"
        "    log_extra('length', [len(c[0]['content']) for c in completions])\n"
        "    log_metric('mine/long', 0.25)\n    log_metric('mine/long', 0.75)\n"
        "    return [0.5] * len(completions)\n"
    )
    trial = score(key, jsonl(row("no"), row("never")), {})
    assert trial.values == [0.5, 0.5]
    assert trial.extras == {"length": [19, 22]} and summary(trial)["mine/long"] == "0.5000"
    write(trial, "out.jsonl")
    assert [json.loads(line)["length"] for line in Path("out.jsonl").read_text().splitlines()] == [19, 22]


def test_a_log_of_the_wrong_length_is_refused() -> None:
    key = mine("def mine(completions, log_extra=None, **_):\n    log_extra('x', [1])\n    return [0.0, 0.0]\n")
    with pytest.raises(RewardError, match="reward mine logged 1 values of 'x' for 2 completions"):
        score(key, jsonl(row("no"), row("no")), {})


def test_what_a_log_cannot_give_is_said() -> None:
    with pytest.raises(RewardError, match="'duration', which is no column of the data; there is id, spans"):
        score("timestamp_tiou", jsonl({"id": "a", "spans": [[1, 2]], "completion": "x"}), {})
    with pytest.raises(RewardError, match="'trainer_state', which only training has"):
        score(mine("def mine(completions, trainer_state, **_):\n    return [0.0]\n"), jsonl(row("no")), {})
    with pytest.raises(RewardError, match="the rows have no column 'prompt'"):
        score(mine("def mine(completions, prompts, **_):\n    return [0.0]\n"), jsonl(row("no")), {})
    with pytest.raises(RewardError, match="returned nan for row 'a'"):
        score(mine("def mine(completions, **_):\n    return [float('nan')]\n"), jsonl(row("no")), {})
    with pytest.raises(AnnotationError, match="row 'b': spans must be"):
        score("tiou", jsonl(row("no"), row("no", id="b", spans=None)), {})


def test_what_is_predicted_in_a_log_is_no_column_that_a_reward_may_ask_for() -> None:
    key = mine("def mine(completions, predicted, **_):\n    return [0.0]\n")
    with pytest.raises(RewardError, match="'predicted', which is no column"):
        score(key, logged_by_a_run(completion=["x"]), {})


def test_rows_are_shown_on_one_line_with_the_end_of_their_completion() -> None:
    long = "<think>\x1b[31m" + 100 * "so\n" + "\ud800</think>\n<answer>4 to 8</answer>"
    text = report(score("tiou", jsonl(row("", completion=long), row("no", id=7), row("no")), {}), 2)
    lines = text.split("\n")
    assert lines[:2] == ["tiou on c.jsonl: grammar=to", ""]
    assert lines[3].startswith("   1.0000  a  <think> [31mso so")
    assert lines[3].endswith("so </think> <answer>4 to 8</answer>") and len(lines[3]) < 100
    assert lines[4] == "   0.0000  7  <answer>no</answer>"
    assert lines[5] == "... 1 more rows; --limit shows more, --output writes all"
    assert "<answer>" not in report(score("tiou", jsonl(row("no")), {}), 0)


def test_rows_without_ids_are_counted() -> None:
    text = report(score("think_format", jsonl({"completion": "a"}, {"completion": "b"}), {}), 5)
    assert text.split("\n")[2:5] == ["    value  row  completion", "   0.0000  1  a", "   0.0000  2  b"]


def test_what_was_written_can_be_tried_again() -> None:
    first = score("tiou", logged_by_a_run(completion=["<answer>4 to 6</answer>", "no"], tiou=[0.0, 0.0]), {})
    write(first, "deep/out.jsonl")
    again = score("tiou", "deep/out.jsonl", {})
    assert again.values == first.values == [0.5, 0.0] == again.logged
    assert asdict(again)["rows"] == first.rows


def test_a_histogram_is_drawn_even_of_nothing() -> None:
    trial = Trial("x", "c", "", [{"completion": ""}] * 2, [None, None], None, None, {}, {})
    plot(trial, "a/none.png")
    plot(score("tiou", jsonl(row("4 to 8")), {}), "one.svg")
    assert Path("a/none.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path("one.svg").read_text()


def test_a_value_is_never_shown_as_not_a_number() -> None:
    found = summary(score("tiou", jsonl(row("4 to 8")), {}))
    assert all(math.isfinite(float(found[key])) for key in ("mean", "std", "min", "median", "max"))
