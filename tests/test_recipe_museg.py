"""MUSEG's recipe: two phases that differ in rows, in whether times must be cited, and in the prompt that says so."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rlvtg.data.row import COLUMNS
from rlvtg.recipe import SHIPPED, GrpoStage, Recipe, evaluation_prompt, load, read_file, tasks_of
from rlvtg.reward import bind
from tests.test_paper_museg import CASES, ONE, blocks
from tests.test_train_command import Done, train

CITED_OTHERWISE = {
    # The number is cited, if not as Python writes it.
    blocks("10 to 20", "10-20"): 1.0,
    # 500 and 1000 are not 5.0 and 10.0.
    blocks("500 and 1000", "5.0-10.0"): 0.6,
    # Any number of times.
    blocks("10.0 " * 11 + "20.0", "10.0-20.0"): 1.0,
}
LETTERS = [f"stages.{phase}.rewards.letters.weight=1.0" for phase in ("phase_1", "phase_2")]


@cache
def recipe(*overrides: str) -> Recipe:
    return load(["recipe=museg", "scale=tiny", *overrides])


def phase(name: str, *overrides: str) -> GrpoStage:
    stage = recipe(*overrides).stages[name]
    assert isinstance(stage, GrpoStage)
    return stage


def total(stage: GrpoStage, text: str, spans: list[list[float]]) -> float:
    rewards = bind(stage.rewards, COLUMNS, grammar=recipe().grammar)
    columns: dict[str, Any] = {"completions": [text], "spans": [spans], "id": ["a"], "duration": [60.0]}
    return sum(reward.weight * reward(**columns)[0] for reward in rewards)


def test_the_phases_differ_in_rows_citation_prompt_and_steps_alone() -> None:
    first, second = (asdict(phase(name)) for name in ("phase_1", "phase_2"))
    assert {key for key in first if first[key] != second[key]} == {"data", "prompt", "rewards"}
    assert first["rewards"]["museg_format"]["args"].pop("citation") == "numeric"
    assert second["rewards"]["museg_format"]["args"].pop("citation") is None
    first["rewards"]["museg_format"]["args"].pop("tolerance")
    assert first["rewards"] == second["rewards"]
    stages = read_file(SHIPPED / "museg.yaml")["stages"]
    assert [(stage["data"], stage["max_steps"]) for stage in stages.values()] == [("phase_1", 400), ("phase_2", 500)]


def test_the_second_prompt_lacks_the_sentence_that_asks_for_citations_and_nothing_else() -> None:
    whole = recipe()
    first, second = (str(tasks_of(whole, phase(name))[None].prompt) for name in ("phase_1", "phase_2"))
    sentence = " Name there the second of each start and end that you then answer with."
    assert first == second.replace("</think>.\n", f"</think>.{sentence}\n")
    assert first != second
    assert evaluation_prompt(whole) == first  # in both phases, as theirs
    assert first.startswith("{video}{query}\n")  # the rows bring their question


@pytest.mark.parametrize(("text", "spans", "first", "second", "matched"), CASES)
def test_the_totals_of_the_page(
    text: str, spans: list[list[float]], first: float, second: float, matched: float
) -> None:
    code = phase("phase_1", "stages.phase_1.rewards.museg_format.args.citation=code")
    assert total(code, text, spans) == pytest.approx(first + matched, abs=3e-6)
    assert total(phase("phase_1"), text, spans) == pytest.approx(CITED_OTHERWISE.get(text, first) + matched, abs=3e-6)
    assert total(phase("phase_2"), text, spans) == pytest.approx(second + matched, abs=3e-6)


def test_a_citation_is_worth_as_much_in_the_first_phase_as_nothing_in_the_second() -> None:
    cited, bare = blocks("from 10 to 20 s", "10.00-20.00"), blocks("it is there", "10.00-20.00")
    gains = [total(phase(name), cited, ONE) - total(phase(name), bare, ONE) for name in ("phase_1", "phase_2")]
    assert gains == pytest.approx([0.4, 0.0])


def test_the_matching_of_the_paper_is_one_override_away() -> None:
    reversed_order = blocks("30 40 5 10", "30-40 5-10")
    two = [[5.0, 10.0], [30.0, 40.0]]
    paper = phase("phase_2", "stages.phase_2.rewards.segment_matching.args.matching=paper")
    assert total(paper, reversed_order, two) == pytest.approx(2.0)
    assert total(phase("phase_2"), reversed_order, two) == pytest.approx(1 + 0.999999 + 0.214286, abs=3e-6)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Done:
    place = tmp_path_factory.mktemp("museg")
    rates = [f"stages.{name}.learning_rate=0.01" for name in ("phase_1", "phase_2")]
    return train(place, "recipe=museg", "scale=tiny", *LETTERS, *rates)


@pytest.mark.slow
def test_the_reference_of_a_phase_is_where_the_phase_starts(ran: Done) -> None:
    kl = {}
    for name in ("phase_1", "phase_2"):
        log = json.loads((ran.place / "runs/museg" / name / "log_history.json").read_text())["log"]
        kl[name] = [entry["kl"] for entry in log if "kl" in entry]
    for name in ("phase_1", "phase_2"):
        assert kl[name][0] == pytest.approx(0, abs=1e-5)
        assert kl[name][1] > 1e-3  # so the first phase has gone somewhere else by then


@pytest.mark.slow
def test_each_phase_writes_its_own_prompt(ran: Done) -> None:
    for name, asks in (("phase_1", True), ("phase_2", False)):
        files: list[Path] = sorted((ran.place / "runs/museg" / name / "completions").glob("*.parquet"))
        prompts = [str(prompt) for file in files for prompt in pd.read_parquet(file)["prompt"]]
        assert prompts and {"Name there the second" in prompt for prompt in prompts} == {asks}
