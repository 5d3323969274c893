"""The rules of the house: who may import whom, which names are free, what the tree must not hold, what we use of TRL.

Each rule is a function from literals to faults: tried on bad and good examples, then on the tree, which must have none.
"""

import ast
import inspect
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# --- who may import whom

# What each part of rlvtg builds on. It may import that and whatever that may import, so the arrows point one way.
BELOW: dict[str, list[str]] = {
    "rlvtg": ["cpu_only_torch", "trl_without_vllm"],
    "cpu_only_torch": [],
    "trl_without_vllm": [],
    "text": [],
    "recipe": [],
    "disk": [],
    "data": ["text.span", "text.inverse", "text.verbs", "recipe", "disk"],
    "video": ["text.span", "recipe", "disk"],
    "reward": ["recipe", "text"],
    "judge": [],
    "model": ["video", "text"],
    "rollout": ["model"],
    "training": ["rollout", "model", "data", "reward"],
    "processes": ["recipe", "disk"],
    "evaluation": ["model", "rollout", "data", "data_check", "text", "processes"],
    "doctor": ["training", "evaluation"],
    "cost": ["recipe"],
    "plan": ["cost", "recipe", "video"],
    "joined_adapter": [],
    "export": ["joined_adapter", "training", "evaluation"],
    "serve": ["training"],
    "model_card": ["recipe"],
    "export_run": ["export", "model_card"],
    "export_check": ["export_run", "doctor"],
    "data_check": ["data", "video"],
    "prepare": ["data_check", "reward", "evaluation.protocol", "training.experts"],
    "run": ["prepare", "export", "model_card", "doctor", "plan"],
    "mistakes": ["recipe", "reward", "text", "data", "video", "evaluation.protocol", "evaluation.predictions"],
    "completions": ["data", "text"],
    "tryout": ["completions", "reward"],
    "train": ["run", "plan", "mistakes"],
    "machine": ["video"],
    "cli": ["doctor", "machine", "plan", "export_check", "serve", "tryout", "mistakes", "data_check"],
}
# What a part, or one module of it, may import from outside rlvtg and the standard library, where that is a closed list.
# Three rewards share a tagger and rewards import nothing of each other, so one module of text loads the taggers.
OUTSIDE: dict[str, set[str]] = {
    "disk": set(),
    "text": set(),
    "text.verbs": {"HanTa", "spacy"},
    "recipe": {"omegaconf", "yaml"},
    "judge": {"httpx2"},
}
# Slow to import; a bad recipe, annotation or reward must be reported before any of it loads.
HEAVY = {"torch", "torchvision", "transformers", "trl", "peft", "accelerate", "deepspeed", "vllm"}
LIGHT = {
    "cost",
    "plan",
    "disk",
    "data",
    "video",
    "reward",
    "data_check",
    "prepare",
    "mistakes",
    "completions",
    "tryout",
}
# Libraries that a few places have to themselves. What a model wrote is read by text/tags.py and text/grammars/
# alone; the others read what people wrote.
OWNERS = {
    "omegaconf": ["rlvtg.recipe"],
    "yaml": ["rlvtg.recipe"],
    "re": ["rlvtg.text.grammars", "rlvtg.text.tags", "rlvtg.recipe", "rlvtg.data"],
    "trl": ["rlvtg.training", "rlvtg.trl_without_vllm"],
    "vllm": ["rlvtg.rollout"],
}


def below(part: str) -> set[str]:
    """Everything that `part` may import from rlvtg, as dotted names without the leading `rlvtg.`."""
    direct = set(BELOW.get(part, []))
    return direct.union(*(below(name) for name in direct))


def within(name: str, place: str) -> bool:
    """Whether the dotted `name` is `place` or something inside it."""
    return name == place or name.startswith(place + ".")


def module_name(path: str) -> str:
    """`rlvtg/text/span.py` -> `rlvtg.text.span`; a package is named by its folder."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str, source: str) -> set[str]:
    """The absolute dotted names that a file imports, inside functions too; `from a.b import c` counts as `a.b.c`."""
    found: set[str] = set()
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            anchor = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join(anchor + ([node.module] if node.module else []))
            found.update(f"{stem}.{alias.name}" for alias in node.names)
    return found


def import_faults(path: str, source: str) -> list[str]:
    """What `source`, standing at `path` (relative to the root, under rlvtg/ or rewards/), imports and must not."""
    importer = module_name(path)
    parts = importer.split(".")
    is_reward = parts[0] == "rewards"
    part = parts[-1] if importer == "rlvtg" else parts[1]
    if not is_reward and part not in BELOW:
        return [f"{path}: `{part}` has no place in BELOW; it knows {', '.join(BELOW)}"]
    outside = OUTSIDE.get(importer.removeprefix("rlvtg."), OUTSIDE.get(part))
    faults, libraries = [], set()
    for name in sorted(imports(path, source)):
        top = name.split(".")[0]
        if top in OWNERS and not any(within(importer, owner) for owner in OWNERS[top]):
            faults.append(f"{path}: imports {name}, which only {', '.join(OWNERS[top])} may")
        elif top == "rlvtg":
            allowed = {"text", "judge"} if is_reward else below(part) | {part}
            if name != "rlvtg" and not any(within(name, f"rlvtg.{place}") for place in allowed):
                faults.append(f"{path}: imports {name}; it may import {', '.join(sorted(allowed))}")
        elif top in sys.stdlib_module_names:
            continue
        elif top in {"rewards", "recipes", "tests"} or (is_reward and (ROOT / "rewards" / f"{top}.py").exists()):
            faults.append(f"{path}: imports {name}, which nobody imports")
        elif top in HEAVY and (is_reward or part in LIGHT):
            faults.append(f"{path}: imports {name}, which must not load here")
        elif outside is not None and not is_reward and top not in outside:
            faults.append(f"{path}: imports {name}; outside rlvtg it may import {sorted(outside) or 'nothing'}")
        elif top != "numpy":
            libraries.add(top)
    if is_reward and len(libraries) > 1:
        faults.append(f"{path}: imports {', '.join(sorted(libraries))}; a reward is about one library at most")
    return faults


@cache
def tree() -> list[str]:
    """The files that git tracks and that are there, relative to the root."""
    # The checkout may belong to another user, as it does in containers.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for path in listed.split("\0") if path and (ROOT / path).is_file()]


def sources(*folders: str) -> dict[str, str]:
    """Path -> text of the Python files under the given top folders."""
    paths = [path for path in tree() if path.endswith(".py") and path.split("/")[0] in folders]
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in paths}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("rlvtg/text/span.py", "import numpy"),
        ("rlvtg/text/span.py", "from rlvtg.recipe import Recipe"),
        ("rlvtg/text/span.py", "import re"),
        ("rlvtg/text/inverse.py", "import spacy"),
        ("rlvtg/text/verbs.py", "import nltk"),
        ("rlvtg/recipe.py", "import torch"),
        ("rlvtg/recipe.py", "from rlvtg.data.sample import Sample"),
        ("rlvtg/data/check.py", "import yaml"),
        ("rlvtg/data/check.py", "def check():\n    import torch"),
        ("rlvtg/data/check.py", "from rlvtg.text import grammar"),
        ("rlvtg/data/check.py", "from ..text.grammar import answer"),
        ("rlvtg/video/decode.py", "from rlvtg.data.sample import Sample"),
        ("rlvtg/video/decode.py", "import transformers.video_utils"),
        ("rlvtg/reward.py", "from rlvtg import model"),
        ("rlvtg/reward.py", "import torch.nn"),
        ("rlvtg/judge.py", "import requests"),
        ("rlvtg/judge.py", "from rlvtg.reward import bind"),
        ("rlvtg/model/inputs.py", "from rlvtg.rollout import hf"),
        ("rlvtg/rollout/hf.py", "from trl.trainer.utils import pad"),
        ("rlvtg/training/grpo.py", "from rlvtg.evaluation.metrics import recall"),
        ("rlvtg/prepare.py", "from rlvtg.model.load import load_config"),
        ("rlvtg/prepare.py", "from accelerate import PartialState"),
        ("rlvtg/run.py", "from trl import GRPOTrainer"),
        ("rlvtg/training/grpo.py", "from vllm import LLM"),
        ("rlvtg/run.py", "from rlvtg.train import main"),
        ("rlvtg/doctor.py", "import rlvtg.train"),
        ("rlvtg/train.py", "from rlvtg.cli import main"),
        ("rlvtg/cli.py", "import rewards.tiou"),
        ("rlvtg/cli.py", "import yaml"),
        ("rlvtg/__init__.py", "from rlvtg import recipe"),
        ("rlvtg/helpers.py", ""),
        ("rewards/tiou.py", "from rlvtg.recipe import load"),
        ("rewards/tiou.py", "import torch"),
        ("rewards/tiou.py", "import re"),
        ("rewards/tiou.py", "from .iou import iou"),
        ("rewards/tiou.py", "from rewards.iou import iou"),
        ("rewards/tiou.py", "import nltk\nimport scipy"),
    ],
)
def test_an_import_against_the_arrows_is_found(path: str, source: str) -> None:
    assert len(import_faults(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("rlvtg/text/grammars/to.py", "import re\nfrom rlvtg.text.span import Span"),
        ("rlvtg/text/verbs.py", "def load():\n    import spacy\n    from HanTa import HanoverTagger"),
        ("rlvtg/recipe.py", "from dataclasses import dataclass\nfrom omegaconf import OmegaConf"),
        (
            "rlvtg/data/sample.py",
            "import pandas\nfrom rlvtg.recipe import Data\nfrom rlvtg.text import span\nfrom . import check",
        ),
        ("rlvtg/video/decode.py", "import av\nimport numpy as np\nfrom rlvtg.text.span import clip"),
        ("rlvtg/reward.py", "import numpy\nfrom rlvtg.text import grammar\nimport rlvtg"),
        ("rlvtg/judge.py", "import httpx2"),
        ("rlvtg/model/inputs.py", "import torch\nfrom rlvtg.video import decode\nfrom rlvtg.recipe import Video"),
        (
            "rlvtg/training/grpo.py",
            "from trl import GRPOTrainer\nfrom rlvtg.text.span import iou\nfrom .prefix import pack",
        ),
        ("rlvtg/evaluation/report.py", "import matplotlib\nfrom rlvtg.rollout.hf import complete"),
        ("rlvtg/prepare.py", "from rlvtg.data.check import check\nfrom rlvtg.reward import bind"),
        (
            "rlvtg/run.py",
            "import torch\nfrom rlvtg.prepare import Prepared\nfrom rlvtg.training.sft import sft_trainer",
        ),
        ("rlvtg/train.py", "from rlvtg.prepare import prepare\nfrom rlvtg.run import run"),
        ("rlvtg/doctor.py", "from rlvtg.training import grpo"),
        ("rlvtg/cli.py", "from rlvtg import doctor, evaluation, reward"),
        ("rlvtg/__init__.py", "from rlvtg import cpu_only_torch"),
        ("rewards/tiou.py", "import math\nimport numpy as np\nimport nltk\nfrom rlvtg.text.span import iou"),
        ("rewards/tiou.py", "from rlvtg.judge import Judge"),
    ],
)
def test_an_import_along_the_arrows_passes(path: str, source: str) -> None:
    assert import_faults(path, source) == []


def test_every_import_follows_the_arrows() -> None:
    assert [
        fault for path, source in sources("rlvtg", "rewards").items() for fault in import_faults(path, source)
    ] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = sources("rlvtg")
    modules = {module_name(path) for path in files}

    def longest_module(name: str) -> str:
        return name if name in modules or "." not in name else longest_module(name.rpartition(".")[0])

    graph = {module_name(path): {longest_module(name) for name in imports(path, text)} for path, text in files.items()}
    TopologicalSorter({module: targets - {module, "rlvtg"} for module, targets in graph.items()}).prepare()


# --- names

# Names that say nothing about what is inside, as words of a file's or folder's name.
EMPTY_WORDS = {"util", "utils", "common", "base", "helper", "helpers", "misc", "manager", "factory", "registry"}


def name_faults(path: str) -> list[str]:
    """The words in a Python file's path that a name must not have."""
    words = [word for name in path.removesuffix(".py").split("/") for word in name.lower().split("_")]
    return [word for word in words if word in EMPTY_WORDS or (word[:1] == "v" and word[1:].isdigit())]


def test_a_name_that_says_nothing_is_found() -> None:
    assert name_faults("rlvtg/utils/span.py") == ["utils"]
    assert name_faults("rewards/tiou_v2.py") == ["v2"]
    assert name_faults("rlvtg/model_factory.py") == ["factory"]
    assert name_faults("rlvtg/rollout/vllm.py") == []


def test_every_name_says_something() -> None:
    assert {path: name_faults(path) for path in tree() if path.endswith(".py") and name_faults(path)} == {}


def test_nothing_in_rlvtg_hides_an_installed_module() -> None:
    # `accelerate launch rlvtg/train.py` puts rlvtg/ itself first on sys.path.
    ours = {path.split("/")[1].removesuffix(".py") for path in sources("rlvtg")} - {"__init__"}
    installed = {name for name, owners in packages_distributions().items() if set(owners) != {"rlvtg"}}
    assert "text" in ours and "torch" in installed
    assert ours & (installed | sys.stdlib_module_names) == set()


# --- what a tree holds

MACHINE_PATH = re.compile(r"(?<![\w.~})])/(?:work|root|home|tmp|opt|Users)/\w")
PACKAGE_HOST = re.compile(r"\b(?:pypi\.org|pythonhosted\.org|download\.pytorch\.org|pypi\.nvidia\.com|index-ur[l])\b")


def machine_faults(text: str) -> list[str]:
    """The lines of a text that hold a path of somebody's machine or the address of a package index."""
    return [line for line in text.splitlines() if MACHINE_PATH.search(line) or PACKAGE_HOST.search(line)]


@pytest.mark.parametrize("folder", ["work", "root", "home", "tmp", "opt", "Users"])
def test_a_path_of_a_machine_is_found(folder: str) -> None:
    assert machine_faults(f"fine\nvideos: /{folder}/videos\n") == [f"videos: /{folder}/videos"]
    assert machine_faults(f"runs/{folder}/videos https://example.org/{folder}/x ~/{folder}/x") == []


@pytest.mark.parametrize("host", ["pypi*.org", "files.pythonhosted*.org", "download.pytorch*.org", "--index*-url x"])
def test_the_address_of_a_package_index_is_found(host: str) -> None:
    line = f"get it at {host.replace('*', '')}"
    assert machine_faults(line) == [line]


def test_the_tree_holds_no_machine_paths_and_no_package_hosts() -> None:
    def text(path: str) -> str:
        return (ROOT / path).read_text(encoding="utf-8", errors="ignore")

    assert {path: lines for path in tree() if (lines := machine_faults(text(path)))} == {}


def undocumented(source: str) -> list[str]:
    """The public functions and classes at the top of a module, and the module itself, that have no docstring."""
    module = ast.parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in module.body if isinstance(node, kinds) and not node.name.startswith("_")]
    names = [node.name for node in public if not ast.get_docstring(node)]
    return names if ast.get_docstring(module) else ["the module", *names]


def test_a_missing_docstring_is_found() -> None:
    assert undocumented('"""M."""\ndef f():\n    """F."""\nclass C: pass\nasync def g(): pass\ndef _h(): pass') == [
        "C",
        "g",
    ]
    assert undocumented("x = 1") == ["the module"]


def test_everything_public_has_a_docstring() -> None:
    assert {path: names for path, source in sources("rlvtg").items() if (names := undocumented(source))} == {}


def test_every_reward_has_a_docstring() -> None:
    """A reward's file is its function, so the function's docstring is the file's."""
    found = {path: set(undocumented(source)) - {"the module"} for path, source in sources("rewards").items()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(("step", "ends"), [("install", "-e ."), ("test", "-m pytest")])
def test_the_readme_has_the_commands_that_ci_runs(step: str, ends: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(rf"^<!-- ci:{step} -->\n```\w*\n(.*?)\n```$", readme, re.MULTILINE | re.DOTALL)
    assert block, f"README.md has no fenced block under <!-- ci:{step} -->"
    assert ".venv/bin/pip install -c constraints.txt -e " in block[1]
    assert block[1].endswith(ends)


# --- what we lean on in TRL

# How the methods of TRL 1.16, and of transformers below it, that rlvtg wraps are called. Where a new release differs,
# see why before changing this.
GRPO_METHODS = {
    "_load_from_checkpoint": "(self, resume_from_checkpoint, model=None)",
    "_load_best_model": "(self)",
    "_save_checkpoint": "(self, model, trial)",
    "_get_output_dir": "(self, trial)",
    "_prepare_for_training": "(self, max_steps, train_dataloader, resume_from_checkpoint)",
    "_evaluate": "(self, trial, ignore_keys_for_eval, skip_scheduler=False)",
    "_run_epoch": (
        "(self, model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial, "
        "ignore_keys_for_eval, start_time, resume_from_checkpoint, epochs_trained, steps_trained_in_current_epoch)"
    ),
    "_finalize_training": "(self, trial, num_train_samples, start_time)",
    "_calculate_rewards": "(self, inputs, prompts, completions, completion_ids_list)",
    "_compute_loss": "(self, model, inputs)",
    "_generate": "(self, prompts)",
    "_generate_and_score_completions": "(self, inputs)",
    "_get_per_token_logps_and_entropies": (
        "(self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, "
        "compute_aux_loss=False, pixel_values=None, image_grid_thw=None, num_images=None, pixel_attention_mask=None, "
        "spatial_shapes=None, num_tiles=None, image_sizes=None, token_type_ids=None, mm_token_type_ids=None, "
        "image_position_ids=None)"
    ),
    "_get_train_sampler": "(self, dataset=None)",
    "_log_completion_extra": "(self, column, values)",
    "_log_metric": "(self, name, value)",
    "_prepare_inputs": "(self, generation_batch)",
    "log": "(self, logs, start_time=None)",
}


def parameters(function: object) -> str:
    """The signature of a function without its annotations, which are no part of how it is called."""
    assert callable(function)
    bare = [
        each.replace(annotation=inspect.Parameter.empty) for each in inspect.signature(function).parameters.values()
    ]
    return str(inspect.Signature(bare))


def test_the_installed_trl_is_the_minor_release_that_we_override() -> None:
    assert version("trl").split(".")[:2] == ["1", "16"]


def test_the_methods_of_grpo_trainer_are_called_as_recorded() -> None:
    from trl import GRPOTrainer

    assert {name: parameters(getattr(GRPOTrainer, name)) for name in GRPO_METHODS} == GRPO_METHODS


def test_sft_trainer_takes_the_arguments_that_we_pass() -> None:
    from trl import SFTTrainer

    assert {"data_collator", "processing_class", "peft_config"} <= set(inspect.signature(SFTTrainer).parameters)
    assert parameters(SFTTrainer._load_from_checkpoint) == GRPO_METHODS["_load_from_checkpoint"]
