"""The page of a run: everything in one file, whatever the run has come to, and nothing of it taken for HTML."""

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlvtg.cli import main
from rlvtg.evaluation.metrics import score
from rlvtg.evaluation.page import page
from rlvtg.evaluation.predictions import Prediction, write_metrics, write_predictions
from rlvtg.evaluation.protocol import described, protocol
from rlvtg.evaluation.report import PREDICTED, TRUE
from tests.tiny_qwen import write_video

RECIPE = "name: mine & yours\nprompt: '{video} <b>{query}</b>'\nstages:\n  sft: {kind: sft}\n  rl: {kind: grpo}\n"
NASTY = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """What a page holds: the text of it, its tags with their attributes, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[np.ndarray]:
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                kind, _, data = str(attributes["src"]).partition(",")
                assert kind == "data:image/png;base64"
                with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
                    found.append(np.asarray(picture.convert("RGB")))
        return found


def prediction(name: str, video: str, *, completion: str = "", predicted: list[list[float]]) -> Prediction:
    return {
        "id": name, "video": video, "query": f"query of {name}", "duration": 8.0, "spans": [[2.0, 5.0]],
        "completion": completion, "predicted": predicted,
    }  # fmt: skip


def evaluated(run: Path, label: str, predictions: list[Prediction]) -> None:
    place = run / "evaluation" / label
    rules = protocol("rlvtg")
    write_predictions(place / "predictions.jsonl", predictions)
    told = described(rules, {"grammar": "to", "model": "m", "prompt": "when <is> it?"})
    write_metrics(place / "metrics.json", score(predictions, rules) | {"protocol": told})


def history(**values: float) -> list[dict[str, float]]:
    return [{"step": step, **values} for step in (1, 2, 3)]


def shows(picture: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return bool((picture == np.array(wanted, np.uint8)).all(axis=-1).sum() > 100)


def finished(place: Path) -> Path:
    """A finished run of two stages: one good answer, one bad, one that cannot be read, and rows left out."""
    folder = place / "runs/mine"
    for stage in ("sft", "rl"):
        (folder / stage).mkdir(parents=True)
        (folder / stage / "done.json").write_text("{}")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "sft/log_history.json").write_text(json.dumps({"log": history(loss=1.0)}))
    (folder / "rl/log_history.json").write_text(json.dumps({"log": history(reward=0.5)}))
    video = write_video(place / "a.mp4", seconds=4)
    good = prediction("good", video, completion="<answer>2 to 5</answer>", predicted=[[2.0, 5.0]])
    bad = prediction("bad", video, completion=NASTY, predicted=[[0.5, 1.0]])
    unread = prediction("unread", str(place / "gone.mp4"), completion="x" * 5000, predicted=[])
    evaluated(folder, "before", [unread, unread, unread])
    evaluated(folder, "rl", [good, bad, unread])
    write_metrics(folder / "metrics.json", {"always 2 to 5": {"n": 3, "mIoU": 0.125}})
    fault = {"id": "row <7>", "video": "v.mp4", "reason": "no span", "detail": "the row has no span"}
    (folder / "bad_rows.rl.jsonl").write_text((json.dumps(fault) + "\n") * 60)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished(tmp_path)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a finished run."""
    return page(finished(tmp_path_factory.mktemp("page")))


def test_the_page_loads_nothing_and_holds_what_a_reader_wants(text: str) -> None:
    read = Reader(text)
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "link", "iframe", "object", "b"})
    for _, attributes in read.tags:
        assert str(attributes.get("src", "data:")).startswith("data:") and "href" not in attributes
    for word in ("before", "always 2 to 5", "0.125", "0.333", "95 % interval", "parse failures", "mF1"):
        assert word in read.text
    for word in ("query of bad", "query of unread", "none could be read", "0.5 to 1", "0.000"):
        assert word in read.text
    assert '"prompt": "when <is> it?"' in read.text and RECIPE in read.text
    assert "bad_rows.rl.jsonl: 60 rows" in read.text and "... and 10 more." in read.text
    assert read.text.count("row <7>") == 50


def test_what_a_model_or_an_annotator_wrote_is_shown_and_not_obeyed(text: str) -> None:
    assert NASTY in Reader(text).text
    assert "<script" not in text and "row &lt;7&gt;" in text and "mine &amp; yours" in text


def test_a_long_completion_is_cut_and_says_so(text: str) -> None:
    read = Reader(text)
    assert "x" * 600 + " ... (5000 characters)" in read.text and "x" * 601 not in read.text


def test_curves_histogram_and_filmstrips_with_true_and_predicted_spans_are_inside(text: str) -> None:
    curves, distribution, *strips = Reader(text).pictures()
    assert curves.shape[1] >= 400 and shows(distribution, PREDICTED)
    assert len(strips) == 4  # good and bad from the best to the worst, bad and good among the worst three
    assert all(shows(strip, TRUE) and shows(strip, PREDICTED) for strip in strips)


def test_a_filmstrip_without_its_video_is_said_to_be_missing(text: str, run: Path) -> None:
    read = Reader(text)
    assert read.text.count("No filmstrip of 'query of unread': ") == 2
    assert "gone.mp4" in read.text
    (run.parent.parent / "a.mp4").unlink()
    assert Reader(page(run)).text.count("No filmstrip of ") == 6


def test_filmstrips_that_the_run_has_drawn_are_used(run: Path) -> None:
    (run / "pictures").mkdir()
    Image.new("RGB", (30, 20), (1, 2, 3)).save(run / "pictures/filmstrip_2.png")
    Image.new("RGB", (40, 20), (1, 2, 3)).save(run / "pictures/filmstrip_10.png")
    widths = [picture.shape[1] for picture in Reader(page(run, worst=1)).pictures()]
    assert widths[2:4] == [30, 40] and len(widths) == 5


def test_an_interrupted_run_has_a_page_that_says_how_far_it_came(run: Path) -> None:
    for name in ("metrics.json", "rl/done.json", "rl/log_history.json", "evaluation/rl/metrics.json"):
        (run / name).unlink()
    (run / "evaluation/rl/predictions.jsonl").rename(run / "evaluation/rl/predictions.0.jsonl")
    for step in (8, 10):
        (run / f"rl/checkpoint-{step}").mkdir()
        state: dict[str, Any] = {"log_history": history(**{f"rewards/tiou{step}/mean": 0.5})}
        (run / f"rl/checkpoint-{step}/trainer_state.json").write_text(json.dumps(state))
    read = Reader(page(run))
    assert "interrupted; the last checkpoint is of step 10" in read.text
    assert "The evaluation of rl is not complete: 3 predictions so far." in read.text
    assert "of the 3 answers after before" in read.text
    assert len(read.pictures()) == 2


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    read = Reader(page(tmp_path))
    for words in ("not started", "No stage has logged anything yet", "No evaluation of this run is complete yet"):
        assert words in read.text


def test_the_command_writes_the_page_into_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--worst", "1"]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert "query of good" not in Reader((run / "report.html").read_text()).text.split("Worst answers")[1]
    assert main(["report", str(run), "--output", str(run / "x/page.html"), "--worst", "0"]) == 0
    assert (run / "x/page.html").is_file()


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no recipe.yaml here; want the folder of a run" in capsys.readouterr().err
