"""The console script: what it offers, how fast it says so, and how words become a verb's arguments."""

import json
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from rlvtg.cli import VERBS, main

ROOT = Path(__file__).resolve().parent.parent
ROW = {"id": "a", "duration": 30.0, "spans": [[4.0, 8.0]], "completion": "<answer>4 to 8</answer>"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.jsonl").write_text(json.dumps(ROW) + "\n")
    return "c.jsonl"


def failed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a command that its user can mend says on stderr."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What argparse says to a command that is not one."""
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_the_console_script_is_declared_and_there() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["rlvtg"].partition(":")
    assert getattr(import_module(module), name) is main


def test_help_lists_every_verb_and_loads_nothing_heavy(tmp_path: Path) -> None:
    for name in ("torch", "numpy", "omegaconf", "pyarrow", "matplotlib", "av"):
        (tmp_path / f"{name}.py").write_text(f'raise RuntimeError("{name} was loaded")\n')
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "rlvtg.cli"]
    for argv in (["reward", "--help"], ["data", "check", "--help"], ["--help"]):
        done = subprocess.run([*command, *argv], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    assert all(verb.__name__.strip("_") in done.stdout for verb in VERBS)


def test_a_reward_is_tried_without_torch(tmp_path: Path, file: str) -> None:
    (tmp_path / "torch.py").write_text('raise RuntimeError("torch was loaded")\n')
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "rlvtg.cli", "reward", "tiou", file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "mean      1.0000" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "argv",
    [
        ["reward", "timestamp_tiou", "c.jsonl", "clamp=true", "grammar=to", "--plot", "p/h.png", "--limit", "0"],
        ["reward", "timestamp_tiou", "c.jsonl", "clamp=true", "--plot", "p/h.png", "--limit=0", "grammar=to"],
        ["reward", "--limit", "0", "timestamp_tiou", "--plot", "p/h.png", "c.jsonl", "clamp=true", "grammar=to"],
    ],
)
def test_words_may_stand_before_and_behind_options(
    file: str, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith("timestamp_tiou on c.jsonl: clamp=true, grammar=to\n")
    assert Path("p/h.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["reward", "tio", "c.jsonl"], "did you mean 'tiou'?"),
        (["reward", "tiou", "gone.jsonl"], "gone.jsonl: no such file or folder of completions"),
        (["reward", "tiou", "c.jsonl", "clamp"], "got 'clamp', want key=value, e.g. clamp=true"),
        (["reward", "tiou", "c.jsonl", "gramar=to"], "no knob 'gramar' (did you mean 'grammar'?)"),
        (["reward", "tiou", "c.jsonl", "grammar=too"], "did you mean 'to'?"),
        (["reward", "tiou", "c.jsonl", "grammar=[to"], "grammar: got '[to', want a value written as YAML"),
        (["reward", "tiou", "c.jsonl", "spans=1"], "'spans' comes from the data or from TRL"),
    ],
)
def test_a_mistake_is_one_line(file: str, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in failed(capsys, *argv)


def test_a_file_that_cannot_be_written_is_named(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", "tiou", file, "--output", "c.jsonl/x"]) == 2
    assert capsys.readouterr().err.startswith("error: c.jsonl/x: cannot be written (")


CHARADES = "3MSZA 24.3 30.4##a dog runs.\nAMT7R 9 2##a cat sits.\n"


def test_annotations_are_checked_and_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(CHARADES)
    Path("v").mkdir()
    Path("v/3MSZA.webm").touch()
    named = ["--reader", "charades_txt", "--annotations", "a.txt"]
    assert main(["data", "check", *named, "--no-videos"]) == 1
    assert "bad rows: 1 (1 reversed span)\nNo video was looked for.\n" in capsys.readouterr().out
    assert main(["data", "check", *named, "--videos", "v"]) == 1
    assert "bad rows: 1 (1 missing video)\n" not in capsys.readouterr().out  # AMT7R is reversed first
    assert main(["data", "convert", *named, "--videos", "v", "--output", "out.jsonl"]) == 0
    assert capsys.readouterr().out.startswith("out.jsonl: 2 rows (2 grounding), 2 videos, 2 spans\n")
    assert json.loads(Path("out.jsonl").read_text().splitlines()[0])["video"] == "3MSZA.webm"
    Path("out.jsonl").write_text(Path("out.jsonl").read_text().splitlines()[0])
    assert main(["data", "check", "--reader", "jsonl", "--annotations", "out.jsonl", "--videos", "v"]) == 0
    capsys.readouterr()
    convert = ["data", "convert", *named, "--videos", "v", "--output", "out.jsonl"]
    assert "out.jsonl is there already" in failed(capsys, *convert)
    assert main([*convert, "--force"]) == 0
    assert Path("out.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--reader", "charades", "--annotations", "c.jsonl"], "reader is 'charades'; it must be one of"),
        (["--reader", "jsonl", "--annotations", "gone.jsonl"], "gone.jsonl: no such annotation file"),
        (["--reader", "jsonl", "--annotations", "c.jsonl", "seed=1"], "got 'seed=1' and --reader, want either"),
        (["--reader", "jsonl"], "got --reader alone, want --reader NAME --annotations FILE"),
        (["--reader", "jsonl", "--annotations", "c.jsonl"], "line 1: field 'video' is missing"),
    ],
)
def test_a_mistake_about_data_is_one_line(
    file: str, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in failed(capsys, "data", "check", "--no-videos", *argv)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["data"], "the following arguments are required: ACTION"),
        ([], "the following arguments are required: VERB"),
        (["rewrd"], "invalid choice: 'rewrd'"),
        (["reward", "tiou"], "the following arguments are required: COMPLETIONS"),
        (["reward", "tiou", "c.jsonl", "--frob"], "unrecognized arguments: --frob"),
        (["reward", "tiou", "c.jsonl", "--limit", "-3"], "got '-3', want a number of rows, 0 or more"),
        (["reward", "tiou", "c.jsonl", "--plot", "h.gif"], "got 'h.gif', want a file that ends in .png, .pdf, .svg"),
    ],
)
def test_a_command_that_is_none_is_refused(
    file: str, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *argv)


def test_what_a_rewards_own_code_raises_keeps_its_traceback(file: str) -> None:
    Path("mine.py").write_text("def mine(completions, **_):\n    return [1 / 0 for _ in completions]\n")
    with pytest.raises(ZeroDivisionError):
        main(["reward", "mine.py:mine", file])


def test_serving_needs_a_stage_that_asks_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    said = failed(capsys, "serve", "recipe=time_r1")
    assert "none has use_vllm true with vllm_mode server" in said
    assert "--stage: got 'cold', want a GRPO stage of the recipe: rl" in failed(
        capsys, "serve", "recipe=time_r1", "--stage", "cold"
    )


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [("--port", "70000", "want a port from 0 to 65535"), ("--gpu-memory", "1.5", "want a number above 0, up to 1")],
)
def test_serving_takes_no_nonsense(capsys: pytest.CaptureFixture[str], option: str, value: str, wanted: str) -> None:
    assert wanted in refused(capsys, "serve", "recipe=time_r1", option, value)
