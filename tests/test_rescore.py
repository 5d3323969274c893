"""Scoring a file of predictions under published protocols, without a model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlvtg.cli import main
from rlvtg.evaluation.protocol import protocol, protocol_names
from rlvtg.evaluation.rescore import rescore

ROOT = Path(__file__).resolve().parent.parent
# Read differently by the protocols: what stands last, what stands in the answer, what rounds away, what is no answer.
ROWS: list[dict[str, Any]] = [
    {"id": "a", "spans": [[10, 20]], "completion": "<answer>10.2 to 10.4</answer>", "duration": 40},
    {"id": "b", "spans": [[10, 20]], "completion": "<answer>10 to 15</answer>", "duration": 40},
    {"id": "c", "spans": [[10, 20]], "completion": "I do not know", "duration": 40},
    {"id": "d", "spans": [[30, 40], [10, 20]], "completion": "<answer>10 to 20</answer>", "duration": 40},
]


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "theirs.jsonl", ROWS)
    return "theirs.jsonl"


def test_the_same_file_has_another_number_under_every_protocol(file: str) -> None:
    got = rescore(file, ["rlvtg", "tempsamp_r1", "timelens", "invert4tvg"], grammar_name="to")
    miou = {name: metrics["mIoU"] for name, metrics in got.items()}
    assert miou["rlvtg"] == pytest.approx((0.02 + 0.5 + 0.0 + 1.0) / 4)
    assert miou["tempsamp_r1"] == miou["timelens"] == pytest.approx(0.5 / 4)  # rounded; the first true span
    assert miou["invert4tvg"] == pytest.approx((0.02 + 0.5) / 4)
    assert {name: metrics["protocol"]["grammar"] for name, metrics in got.items()} == {
        name: protocol(name).grammar or "to" for name in got
    }
    assert got["timelens"]["protocol"]["whole_seconds"] and got["rlvtg"]["protocol"]["predictions"] == file


def test_spans_without_text_are_scored_as_they_are_under_every_protocol(tmp_path: Path) -> None:
    rows = [{"id": "a", "spans": [[10, 20]], "predicted": [[10, 15]]}, {"id": "b", "spans": [[0, 1]], "predicted": []}]
    got = rescore(lines(tmp_path / "theirs.jsonl", rows), protocol_names())
    # one protocol drops what could not be read
    assert {name: metrics["mIoU"] for name, metrics in got.items() if metrics["mIoU"] != 0.25} == {"timezero": 0.5}
    assert {metrics["parse_failure_rate"] for metrics in got.values()} == {0.5}


def test_what_made_our_own_predictions_is_told_with_their_new_numbers(tmp_path: Path) -> None:
    made_from = {"model": "m", "grammar": "to", "fps": 2.0, "prompt": "when?"}
    (tmp_path / "made_from.json").write_text(json.dumps(made_from))
    file = lines(tmp_path / "predictions.jsonl", [{**ROWS[1], "predicted": [[10, 15]]}])
    got = rescore(file)["rlvtg"]
    assert (got["mIoU"], got["n"]) == (0.5, 1)
    assert {key: got["protocol"][key] for key in made_from} == made_from


# --- the command


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What the command prints."""
    assert main(["eval", *argv]) == 0
    return capsys.readouterr().out


def test_the_command_prints_a_row_per_protocol_and_writes_them(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--predictions", file, "--grammar", "to", "--protocol", "rlvtg,tempsamp_r1", "--output", "out/m.json"]
    table = said(capsys, *argv).splitlines()
    assert [line.split()[0] for line in table] == ["mIoU", "rlvtg", "tempsamp_r1"]
    assert "0.380" in table[1] and "0.125" in table[2]
    written = json.loads(Path("out/m.json").read_text())
    assert list(written) == ["rlvtg", "tempsamp_r1"] and written["rlvtg"]["protocol"]["name"] == "rlvtg"


def test_annotations_are_joined_by_id_and_missing_rows_are_counted(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    annotation = {"v": {"duration": 40, "timestamps": [[10, 20], [0, 10]], "sentences": ["a dog", "a cat"]}}
    Path("test.json").write_text(json.dumps(annotation))
    lines(Path("spans.jsonl"), [{"id": "v#0", "spans": [[10, 15]]}])
    words = ["--predictions", "spans.jsonl", "--annotations", "test.json", "--reader", "charades_sta"]
    header, row = said(capsys, *words).splitlines()
    assert header.split()[-2:] == ["missing", "n"] and row.split()[-2:] == ["1", "2"]
    assert row.split()[1] == "0.250"


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["theirs.jsonl", "--protocol", "timlens"], "no protocol is called 'timlens'; there is rlvtg, "),
        (["theirs.jsonl", "--grammar", "too"], "no grammar is called 'too'"),
        (["theirs.jsonl"], "prediction 'a' has a completion and no predicted spans; name the grammar that reads it"),
        (["none.jsonl"], "none.jsonl: cannot be read (No such file or directory)"),
        (["theirs.jsonl", "--annotations", "none.json"], "none.json: no such annotation file"),
        (["theirs.jsonl", "--annotations", "theirs.jsonl", "--reader", "json"], "reader is 'json'; it must be one of"),
        (["broken.jsonl", "--grammar", "to"], "broken.jsonl, line 1 is not JSON"),
        (["empty.jsonl"], "there are no predictions to score"),
        (["reversed.jsonl"], "prediction 'a' has the true spans [[9.0, 3.0]]; a span must end after it starts"),
    ],
)
def test_a_mistake_is_one_line(file: str, argv: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.jsonl").write_text('{"id"')
    Path("empty.jsonl").write_text("")
    lines(Path("reversed.jsonl"), [{"id": "a", "spans": [[9, 3]], "predicted": []}])
    assert main(["eval", "--predictions", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {error}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["recipe=tiny", "--protocol", "timelens"], "--protocol goes with --predictions"),
        (["--predictions", "theirs.jsonl", "protocol=timelens"], "unrecognized arguments: protocol=timelens"),
    ],
)
def test_options_of_the_other_way_are_refused(
    file: str, argv: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["eval", *argv])
    assert stopped.value.code == 2 and error in capsys.readouterr().err


def test_a_file_is_scored_without_torch(file: str) -> None:
    code = (
        "import sys\nfrom rlvtg.cli import main\n"
        f"assert main(['eval', '--predictions', {file!r}, '--grammar', 'to', '--protocol', 'timelens']) == 0\n"
        "print([name for name in ('torch', 'transformers', 'accelerate') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
