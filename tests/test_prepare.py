"""What is wrong with a recipe, its rewards or its rows is said before torch loads, in one sentence."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlvtg.data.sample import DataError
from rlvtg.prepare import follow, prepare
from rlvtg.recipe import Recipe, RecipeError, load
from rlvtg.reward import RewardError
from rlvtg.text.grammar import GrammarError
from tests import own_rows
from tests.numbered_video import every_tenth, write_video
from tests.own_rows import row, write

RECIPE = f"""{own_rows.RECIPE}  rl:
{own_rows.OBJECTIVE}    data: own
    rewards: {{tiou: {{weight: 1.0}}}}
    num_generations: 4
    per_device_train_batch_size: 8
"""

SMALL = "stages.rl.per_device_train_batch_size=4"  # one prompt at once


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in "ab":
        write_video(folder / f"{name}.mp4", every_tenth(100))
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with one recipe, two videos and two rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    shutil.copytree(videos, tmp_path / "videos")
    write(row("first"), row("second", "b.mp4"))
    return tmp_path


def recipe(*overrides: str) -> Recipe:
    return load(["recipe=mine.yaml", *overrides])


def test_everything_that_the_stages_need_is_there_and_torch_is_not() -> None:
    code = (
        "import sys\nfrom rlvtg.prepare import prepare\nfrom rlvtg.recipe import load\n"
        "prepared = prepare(load(['recipe=mine.yaml']))\n"
        "assert prepared.stage_rows['rl'] and prepared.stage_rewards['rl']\n"
        "print([name for name in ('torch', 'transformers', 'accelerate', 'trl', 'datasets') if name in sys.modules])"
    )
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": root}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_rows_and_rewards_come_by_stage() -> None:
    prepared = prepare(recipe())
    assert [each["completion"][0]["content"][0]["text"] for each in prepared.stage_rows["cold_start"]] == ["1 to 3"] * 2
    assert [each["id"] for each in prepared.stage_rows["rl"]] == ["first", "second"]
    assert "completion" not in prepared.stage_rows["rl"][0] and "completion" not in prepared.test_rows[0]
    assert [reward.__name__ for reward in prepared.stage_rewards["rl"]] == ["tiou"]
    assert list(prepared.stage_rewards) == ["rl"]


def test_the_folder_holds_a_recipe_that_loads_to_the_same_run() -> None:
    prepared = prepare(recipe("output_dir=runs/x", "seed=7"))
    assert prepared.folder == Path("runs/x")
    assert load(["recipe=runs/x/recipe.yaml"]) == recipe("output_dir=runs/x", "seed=7")
    assert Path("runs/x/bad_rows.own.jsonl").read_text() == ""


def test_a_second_run_gets_a_folder_of_its_own_and_its_recipe_names_it() -> None:
    folders = [prepare(recipe("output_dir=runs/x")).folder for _ in range(3)]
    assert folders == [Path("runs/x"), Path("runs/x-2"), Path("runs/x-3")]
    assert load(["recipe=runs/x-2/recipe.yaml"]).output_dir == "runs/x-2"
    assert prepare(load(["recipe=runs/x-2/recipe.yaml", "resume=true"])).folder == Path("runs/x-2")


def test_a_run_is_resumed_in_its_folder_and_with_its_own_recipe_only() -> None:
    prepare(recipe("output_dir=runs/x"))
    assert prepare(recipe("output_dir=runs/x", "resume=true")).folder == Path("runs/x")
    with pytest.raises(RecipeError, match=r"runs/x/recipe.yaml was written with another stages, seed; resume with"):
        prepare(recipe("output_dir=runs/x", "resume=true", "seed=7", "stages.rl.beta=0.1"))


def test_a_run_that_was_refused_leaves_its_folder_free() -> None:
    write(row("first"), row("second", "none.mp4"))
    with pytest.raises(DataError, match=r"data.own: 1 of 2 rows are bad \(1 missing video\).*no file videos/none.mp4"):
        prepare(recipe("output_dir=runs/x"))
    assert json.loads(Path("runs/x/bad_rows.own.jsonl").read_text())["id"] == "second"
    write(row("first"), row("second"))
    assert prepare(recipe("output_dir=runs/x")).folder == Path("runs/x")


def test_bad_rows_are_left_out_and_listed_up_to_the_share_that_is_allowed() -> None:
    write(row("first"), row("second"), row("third", spans=[[5.0, 4.0]]))
    prepared = prepare(recipe("max_bad_fraction=0.4"))
    assert [each["id"] for each in prepared.test_rows] == ["first", "second"]
    assert [json.loads(line)["reason"] for line in (prepared.folder / "bad_rows.own.jsonl").open()] == ["reversed span"]


def test_the_other_processes_read_the_same_and_write_nothing() -> None:
    write(row("first"), row("second"), row("third", spans=[[5.0, 4.0]]))
    settings = recipe("max_bad_fraction=0.4")
    first = prepare(settings)
    (first.folder / "bad_rows.own.jsonl").unlink()
    other = follow(settings, first.folder)
    assert (other.folder, other.stage_rows, other.test_rows) == (first.folder, first.stage_rows, first.test_rows)
    assert [reward.__name__ for reward in other.stage_rewards["rl"]] == ["tiou"]
    assert sorted(file.name for file in first.folder.iterdir()) == ["recipe.yaml", "videos.jsonl"]


def test_the_other_processes_go_by_what_the_first_one_has_found_the_videos_to_be() -> None:
    settings = recipe("max_bad_fraction=0.6", SMALL)
    Path("videos/b.mp4").write_bytes(b"no video")
    first = prepare(settings)
    assert [each["id"] for each in first.test_rows] == ["first"]
    shutil.copy("videos/a.mp4", "videos/b.mp4")  # too late
    assert follow(settings, first.folder).stage_rows == first.stage_rows


def test_a_video_that_is_there_for_the_first_process_alone_is_named() -> None:
    settings = recipe("max_bad_fraction=0.6", SMALL)
    first = prepare(settings)
    Path("videos/b.mp4").unlink()
    with pytest.raises(
        DataError, match="^1 of 2 videos that the first process has read are not there on .*b.mp4; every"
    ):
        follow(settings, first.folder)


def test_a_resumed_run_reads_the_videos_again_that_have_changed() -> None:
    settings = recipe("max_bad_fraction=0.6", "output_dir=runs/x", SMALL)
    assert len(prepare(settings).test_rows) == 2
    Path("videos/b.mp4").write_bytes(b"no video")
    resumed = prepare(recipe("max_bad_fraction=0.6", "output_dir=runs/x", SMALL, "resume=true"))
    assert [each["id"] for each in resumed.test_rows] == ["first"]


def test_a_row_whose_video_is_not_as_it_is_annotated_is_bad() -> None:
    write(row("first"), row("second", duration=60.0))
    with pytest.raises(DataError, match=r"data.own: 1 of 2 rows are bad \(1 duration differs\).*lasts 10.00 s"):
        prepare(recipe())


@pytest.mark.parametrize("some", [{}, {"completion": "1 to 3"}])
def test_a_supervised_stage_without_a_completion_for_every_row_is_refused(some: dict[str, str]) -> None:
    write(row("first", **some), row("second"))
    with pytest.raises(DataError, match=r"^stages.cold_start: row '\w+' has no completion; give every row one or set"):
        prepare(recipe("stages.cold_start.completion=null"))


def test_completions_of_its_own_are_no_matter_of_a_stage_that_does_not_learn_from_them() -> None:
    write(row("first", completion="1 to 3"), row("second"))
    prepared = prepare(recipe())
    assert [each["id"] for each in prepared.stage_rows["rl"]] == ["first", "second"]
    assert [each["completion"][0]["content"][0]["text"] for each in prepared.stage_rows["cold_start"]] == ["1 to 3"] * 2


def test_a_row_whose_annotation_cannot_be_an_expert_completion_is_refused() -> None:
    write(row("one"), row("two", spans=[[1.0, 3.0], [4.0, 5.0]]))
    expert = 'stages.rl.expert={template: "<answer>{spans}</answer>"}'
    with pytest.raises(DataError, match="stages.rl.expert: row 'two' has no expert completion: grammar 'to' writes ex"):
        prepare(recipe(expert, SMALL))
    write(row("one"), row("two"))
    assert len(prepare(recipe(expert, SMALL)).stage_rows["rl"]) == 2


def test_too_few_rows_for_one_rollout_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DataError, match="^data.own: got 2 rows, but stage rl takes 4 at once"):
        prepare(recipe())


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("stages.rl.rewards.tiouu.weight=1", RewardError, "did you mean 'tiou'"),
        ("stages.rl.rewards.tiou.args.clam=true", RewardError, "has no knob 'clam'; there is grammar"),
        ("grammar=from_to", GrammarError, "no grammar is called 'from_to'"),
        ("stages.rl.rewards.tiou.args.grammar=of", GrammarError, "no grammar is called 'of'"),
    ],
)
def test_a_reward_or_grammar_that_there_is_not_is_said_before_any_data_is_made(
    place: Path, override: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepare(recipe("tiny.folder=tiny", override))
    assert sorted(file.name for file in place.iterdir()) == ["mine.yaml", "own.jsonl", "videos"]


def test_early_stopping_wants_a_metric_that_an_evaluation_has_and_brings_its_rows() -> None:
    words = "stages.rl.early_stopping={data: own, eval_steps: 5, metric: %s}"
    wanted = r"rl\.early_stopping\.metric: got 'R1@0.6', nearest: R1@0\.\d \(allowed: mIoU"
    with pytest.raises(RecipeError, match=wanted):
        prepare(recipe(SMALL, words % "R1@0.6"))
    prepared = prepare(recipe(SMALL, words % "R1@0.5"))
    assert list(prepared.validation_rows) == ["rl"] and prepared.validation_rows["rl"] == prepared.test_rows


def test_the_demos_data_is_made_where_it_is_asked_for(place: Path) -> None:
    sizes = ["tiny.folder=tiny", "tiny.sft=1", "tiny.rl=2", "tiny.validation=1", "tiny.test=1"]
    own = ["data.own.reader=charades_sta", "data.own.annotations=tiny/rl.json", "data.own.videos=tiny/videos/rl"]
    prepared = prepare(recipe(*sizes, *own))
    assert {each["video"] for each in prepared.test_rows} == {f"tiny/videos/rl/rl_0000{k}.mp4" for k in range(2)}
    with pytest.raises(DataError, match="tiny holds demo data made from"):
        prepare(recipe(*sizes, *own, "tiny.seed=1"))
