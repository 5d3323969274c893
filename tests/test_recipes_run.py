"""Every paper's recipe, found by glob: its header and objective, and a run of all its stages by the real command."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import pandas as pd
import pytest

from rlvtg.evaluation.predictions import read_predictions
from rlvtg.recipe import GrpoStage, evaluation_prompt, load, read_file
from rlvtg.text.grammar import grammar
from tests.local_judge import by_chance, serving
from tests.test_recipe import RECIPES, make_sources, stated
from tests.test_train_command import ACCELERATE, Done, train

PAPERS = sorted({file.stem for file in RECIPES.glob("*.yaml")} - {"base", "tiny", "tiny_control"})
# A recipe without stages of its own is another one with other data or another model, which scale=tiny replaces.
RUN = [name for name in PAPERS if "stages" in read_file(RECIPES / f"{name}.yaml")]
LINES = 75

# What decides what is learnt, and has defaults here or in TRL that are not everybody's.
OBJECTIVE = {
    "rewards", "num_generations", "beta", "loss_type", "scale_rewards", "advantage_eps", "epsilon", "epsilon_high",
    "num_iterations", "temperature", "top_p", "top_k", "max_completion_length", "learning_rate", "lr_scheduler_type",
}  # fmt: skip

# Nothing of the method: as little as possible is written, and one more round shows how rounds follow each other.
SHORT = ("save_steps=100", "report_to=[]", "evaluation.pictures=1", "evaluation.before=false")
ROUNDS = 2
RUNS_A_RECIPE = "test_every_stage_of_a_recipe_runs_and_is_evaluated"


def header(name: str) -> str:
    """The comment with which a recipe's file begins, on one line."""
    lines = (RECIPES / f"{name}.yaml").read_text().splitlines()
    size = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:size])


@pytest.mark.parametrize("name", PAPERS)
def test_a_header_says_paper_code_command_what_to_expect_and_what_differs(name: str) -> None:
    said = header(name)
    assert re.search(r"arXiv \d{4}\.\d{5}\b", said) and re.search(r"\b[\w-]+/[\w.-]+@[0-9a-f]{7}\b", said)
    assert re.search(rf"\baccelerate launch [^#]*rlvtg/train\.py recipe={name}(\s|$)", said)
    assert re.search(r" Expect .*(not reproduced here|no number).* Differs: ", said)
    assert len((RECIPES / f"{name}.yaml").read_text().splitlines()) <= LINES


@pytest.mark.parametrize("name", PAPERS)
def test_every_number_of_the_objective_is_stated(name: str) -> None:
    for stage in stated(name)["stages"].values():
        missing = (
            OBJECTIVE - set(stage) if stage["kind"] == "grpo" else {"learning_rate", "num_train_epochs"} - set(stage)
        )
        assert not missing


@pytest.mark.parametrize("name", PAPERS)
def test_the_example_of_the_prompts_is_an_answer_in_the_recipes_grammar(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_sources(name)
    recipe = load([f"recipe={name}"])
    [(start, end), *_] = grammar(recipe.grammar).parse(evaluation_prompt(recipe), 100.0)
    assert 0 <= start < end


# Runs


@pytest.fixture(scope="module")
def judge() -> Iterator[str]:
    """The address of a judge, for the rewards that ask one."""
    with serving(by_chance) as served:
        yield served.url


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, judge: str
) -> Iterator[dict[str, Future[Done]]]:
    """The runs of the recipes that are asked for, two at a time: one alone leaves a core idle.

    Each half runs in a place of its own, so that data, model and clips are made once there.
    """
    asked = [item.callspec.params["name"] for item in request.session.items if item.originalname == RUNS_A_RECIPE]
    halves = [(ThreadPoolExecutor(1), tmp_path_factory.mktemp("recipes")) for _ in range(2)]
    try:
        yield {
            name: pool.submit(train, place, *command(name, judge), launcher=ACCELERATE)
            for name, (pool, place) in zip(asked, cycle(halves), strict=False)
        }
    finally:
        for pool, _ in halves:
            pool.shutdown(cancel_futures=True)


def command(name: str, judge: str) -> list[str]:
    """What is typed to run a recipe, with as little as possible besides its method."""
    stages = load([f"recipe={name}", "scale=tiny"]).stages
    words = [f"stages.{key}.rounds={ROUNDS}" for key, stage in stages.items() if stage.rounds > ROUNDS]
    for key, stage in stages.items():
        if isinstance(stage, GrpoStage) and "caption_recall" in stage.rewards:
            asks = f"{{url: '{judge}', model: judge, cache: null}}"
            words.append(f"stages.{key}.rewards.caption_recall.args={asks}")
    return [f"recipe={name}", "scale=tiny", *SHORT, *words]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_every_stage_of_a_recipe_runs_and_is_evaluated(name: str, runs: dict[str, Future[Done]]) -> None:
    done = runs[name].result()
    folder = done.place / "runs" / name
    for key, stage in done.recipe().stages.items():
        assert (folder / key / "done.json").is_file()
        log = json.loads((folder / key / "log_history.json").read_text())["log"]
        assert sum("loss" in entry for entry in log) == 2 * stage.rounds
        assert len(read_predictions(folder / "evaluation" / key / "predictions.jsonl")) == 4
        assert json.loads((folder / "evaluation" / key / "metrics.json").read_text())["protocol"]["name"]
        if isinstance(stage, GrpoStage):
            files = [*(folder / key).glob("completions/*.parquet"), *(folder / key).glob("*/completions/*.parquet")]
            table = pd.concat(map(pd.read_parquet, files))
            assert len(table) == 2 * stage.rounds * stage.num_generations
            assert {Path(reward.split(":")[0]).stem for reward in stage.rewards} <= set(table.columns)
            experts = 0 if stage.expert is None else 2 * stage.rounds
            assert ("expert" in table and int(table["expert"].sum())) == experts
    assert set(done.table()) == {*done.recipe().stages, "always"}
