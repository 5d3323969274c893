"""The pages of docs/ are run: their files are written, their commands typed, and what those print is compared."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlvtg.data.row import COLUMNS
from rlvtg.recipe import GrpoStage, load
from rlvtg.reward import bind

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "write_a_reward.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the page assumes to lie in the working directory; what it adds to tests/ must not land in ours.
CHECKOUT = [ROOT / "rlvtg", ROOT / "pyproject.toml", *(ROOT / "tests").glob("*.py")]
SLOW = ("accelerate launch", "runs/mine", "plain_trl.py")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block of a page, in order."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def desk(place: Path) -> dict[str, str]:
    """Lay out the checkout in `place`; the environment in which its commands are typed, `rlvtg` being this tree's."""
    for path in CHECKOUT:
        here = place / path.relative_to(ROOT)
        here.parent.mkdir(parents=True, exist_ok=True)
        here.symlink_to(path)
    commands = place / "bin"
    commands.mkdir()
    for name, words in (("python", ""), ("rlvtg", "-m rlvtg.cli ")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        (commands / name).chmod(0o755)
    # the interpreter's folder has accelerate
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(place)}


def follow(page: Path, place: Path, *, slow: bool) -> None:
    """Do what the page says in `place`; a `text` block is what the commands before it print. Slow blocks if asked."""
    environment = desk(place)
    printed = ""
    for language, text in blocks(page):
        if language == "bash":
            if slow or not any(word in text for word in SLOW):
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", text],
                    cwd=place, env=environment, capture_output=True, text=True, timeout=600,
                )  # fmt: skip
                assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
                printed = done.stdout
        elif language == "text":
            assert text == printed
        else:
            path = place / text.split("\n")[0].removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which the whole page was followed, its training runs too."""
    place = tmp_path_factory.mktemp("docs")
    follow(PAGE, place, slow=True)
    return place


@pytest.mark.slow
def test_what_the_page_prints_is_what_its_commands_print(followed: Path) -> None:
    assert (followed / "tried.jsonl").read_text().count('"coverage": ') == 4
    assert (followed / "coverage.png").read_bytes().startswith(b"\x89PNG")
    assert '"missing_words": "opens the door"' in (followed / "judged.jsonl").read_text()
    assert len(list((followed / "runs/mine/rl/completions").glob("*.parquet"))) == 2


def test_the_page_about_data_prints_what_its_commands_print(tmp_path: Path) -> None:
    follow(ROOT / "docs" / "data.md", tmp_path, slow=False)
    assert (tmp_path / "train.jsonl").read_text().count("\n") == 4


@pytest.mark.slow
def test_the_recipe_of_the_page_loads_and_binds(followed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(followed)
    stage = (recipe := load(["recipe=mine"])).stages["rl"]
    assert isinstance(stage, GrpoStage)
    rewards = bind(stage.rewards, COLUMNS, grammar=recipe.grammar)
    assert {reward.__name__: reward.weight for reward in rewards} == {"tiou": 1, "think_format": 0.5, "coverage": 0.5}
    columns = {"spans": [[[0.0, 10.0]]], "duration": [20.0], "id": ["a"], "task": ["grounding"]}
    assert rewards[-1](completions=["<answer>0 to 9</answer>"], **columns) == [0.0]  # longer than longest: 0.4


def test_a_page_that_prints_something_else_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\necho three\n```\n\n```text\nthree\n```\n")
    (tmp_path / "right").mkdir()
    follow(page, tmp_path / "right", slow=False)
    page.write_text("```bash\necho three\n```\n\n```text\nfour\n```\n")
    (tmp_path / "wrong").mkdir()
    with pytest.raises(AssertionError):
        follow(page, tmp_path / "wrong", slow=False)


@pytest.mark.slow
def test_the_page_about_tasks_prints_what_its_command_prints(tmp_path: Path) -> None:
    follow(ROOT / "docs" / "tasks.md", tmp_path, slow=False)
    assert (tmp_path / "data/tiny_scale/rl_captions.jsonl").is_file()


def test_the_recipe_of_the_page_about_controls_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    follow(ROOT / "docs" / "controls.md", tmp_path, slow=False)
    for file in ("time_r1/cold_start.jsonl", "time_r1/train_2k5.json"):
        (tmp_path / "data" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / file).write_text("[]")
    for name in ("test", "val"):
        (tmp_path / f"data/charades/charades_{name}.json").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"data/charades/charades_{name}.json").write_text("{}")
    for folder in ("data/time_r1/videos", "data/charades/videos"):
        (tmp_path / folder).mkdir()
    stage = load(["recipe=example_controls"]).stages["rl"]
    assert isinstance(stage, GrpoStage) and stage.expert is not None and stage.expert.anchor == 1.2


def test_the_page_about_the_plan_prints_what_its_command_prints(tmp_path: Path) -> None:
    follow(ROOT / "docs" / "plan.md", tmp_path, slow=False)
