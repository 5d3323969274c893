"""Nothing that comes from elsewhere runs as code: models, recipes, annotations, checkpoints; and no secret is written.

A rule is a function from a source to faults, tried on bad and good examples, then on the tree. What it cannot see is
tried: everything hostile here would leave a file behind if any of it ran.
"""

import ast
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvtg.cli import main
from rlvtg.data.read import read
from rlvtg.data.row import rows
from rlvtg.evaluation.timelens_results import timelens_answers
from rlvtg.export_run import export_run
from rlvtg.mistakes import exit_status
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_checkpoint, load_config, load_model, load_processor
from rlvtg.model.tiny import make
from rlvtg.recipe import RecipeError, Source, dump, knobs, load, read_file, written
from rlvtg.reward import RewardError, bind
from rlvtg.training.unpickling import only_weights
from tests.small_run import SECRETS, small_run
from tests.test_house import sources
from tests.test_resume import a_trainer
from tests.tiny_qwen import row, video_settings, write_video

# --- what the sources must not hold

FORBIDDEN = {"eval", "exec", "compile", "__import__"}
PICKLERS = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
ANYWHERE = ("0.0.0.0", "::")
LOADERS = ("from_pretrained",)
# Ours, on what it says: the adapter's weights were looked for before, and PEFT prefers safetensors.
READS_NO_WEIGHTS = ("AutoConfig", "AutoProcessor", "GenerationConfig", "PeftModel")


def faults(source: str) -> list[str]:
    """What a source does that could run what it reads, or lets others in: one line for each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [each.name for each in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            found += [f"imports {name}" for name in modules if name.split(".")[0] in PICKLERS]
        elif isinstance(node, ast.Call):
            found += call_faults(node)
        elif isinstance(node, ast.Constant) and node.value in ANYWHERE:
            found.append(f"listens on {node.value}")
    return found


def call_faults(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    given = {each.arg: ast.unparse(each.value) for each in node.keywords if each.arg is not None}
    found = []
    if name in FORBIDDEN or name == "os.system":
        found.append(f"calls {name}")
    if name in ("torch.load", "torch.jit.load") and given.get("weights_only") != "True":
        found.append(f"calls {name} without weights_only=True")
    if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
        found.append(f"calls {name}")
    for switch in ("trust_remote_code", "shell", "allow_pickle"):
        if given.get(switch, "False") != "False":
            found.append(f"{switch}={given[switch]}")
    if last in LOADERS:
        owner = name.rpartition(".")[0]
        if owner not in READS_NO_WEIGHTS and given.get("use_safetensors") != "True":
            found.append(f"calls {name} without use_safetensors=True")
        if owner.startswith("Auto") and given.get("trust_remote_code") != "False":
            found.append(f"calls {name} without trust_remote_code=False")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from dill import loads", "def f():\n    import joblib", "eval('1')", "exec(text)",
        "__import__('os')", "os.system('ls')", "torch.load('x')", "torch.load('x', weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)", "yaml.unsafe_load(text)", "run('ls', shell=True)",
        "np.load(path, allow_pickle=True)", "run('ls', shell=asked)", "serve('0.0.0.0')",
        "Model.from_pretrained(path)", "f(trust_remote_code=True)", "f(trust_remote_code=asked)",
        "AutoConfig.from_pretrained(path)", "AutoModel.from_pretrained(path, trust_remote_code=False)",
    ],
)  # fmt: skip
def test_a_source_that_could_run_what_it_reads_is_found(source: str) -> None:
    assert len(faults(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()", "re.compile('a')", "torch.load(path, weights_only=True)", "yaml.safe_load(text)",
        "subprocess.run(['ls'])", "np.load(path)", "serve('127.0.0.1')",
        "AutoModel.from_pretrained(path, use_safetensors=True, trust_remote_code=False)",
        "AutoConfig.from_pretrained(path, trust_remote_code=False)",
    ],
)  # fmt: skip
def test_a_harmless_source_passes(source: str) -> None:
    assert faults(source) == []


def test_no_source_could_run_what_it_reads() -> None:
    files = sources("rlvtg", "rewards", "benchmarks")
    assert len(files) > 100
    assert {path: found for path, source in files.items() if (found := faults(source))} == {}


# --- models


class Hostile:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that must not be there."""
    return tmp_path / "it_ran"


def test_the_hostile_pickle_works_where_nothing_guards(tmp_path: Path, mark: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Hostile(mark)))
    pickle.loads((tmp_path / "x.pkl").read_bytes())
    assert mark.exists()


@pytest.mark.parametrize("name", ["model", "adapter"])
def test_a_model_that_is_a_pickle_alone_is_refused(tmp_path: Path, mark: Path, name: str) -> None:
    make(tmp_path / "model")
    folder, file = tmp_path / "model", "pytorch_model.bin"
    if name == "adapter":
        folder, file = tmp_path / "adapter", "adapter_model.bin"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "model")}))
    else:
        (folder / "model.safetensors").unlink()
    torch.save({"weight": Hostile(mark)}, folder / file)
    with pytest.raises(RecipeError, match=f"has no weights in safetensors files, only {file}, which is not read"):
        load_checkpoint(str(folder))
    assert not mark.exists()


def test_safetensors_are_read_where_a_pickle_lies_beside_them(tmp_path: Path, mark: Path) -> None:
    make(tmp_path / "model")
    torch.save({"weight": Hostile(mark)}, tmp_path / "model" / "pytorch_model.bin")
    assert sum(each.numel() for each in load_model(tmp_path / "model").parameters()) > 0
    assert not mark.exists()


def test_code_beside_a_model_is_not_run_and_nobody_is_asked(tmp_path: Path, mark: Path) -> None:
    make(tmp_path / "model")
    (tmp_path / "model" / "mine.py").write_text(f"open({str(mark)!r}, 'w')\nclass C: pass\n")
    for file, keys in (
        ("config.json", ("AutoConfig", "AutoModelForImageTextToText")),
        ("processor_config.json", ("AutoProcessor",)),
        ("tokenizer_config.json", ("AutoTokenizer",)),
    ):
        path = tmp_path / "model" / file
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": dict.fromkeys(keys, "mine.C")}))
    load_model(tmp_path / "model")
    load_processor(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "mine"}))
    with pytest.raises(RecipeError, match="no configuration that transformers knows.*code that comes with a model is"):
        load_config(tmp_path / "model")
    assert not mark.exists()


# --- recipes, words and annotations

TAGS = ("!!python/object/apply:os.system ['touch it_ran']", "!!python/object/new:os.system ['touch it_ran']",
        "!!python/name:os.system", "!!python/module:os")  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_of_yaml_makes_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.yaml").write_text(f"extends: base\nname: {tag}\n")
    for attempt in (
        lambda: load(["recipe=evil.yaml"]),
        lambda: read_file(Path("evil.yaml")),
        lambda: load(["recipe=tiny", f"seed={tag}"]),
        lambda: knobs([f"by={tag}"]),
    ):
        with pytest.raises(RecipeError):
            attempt()
    assert not Path("it_ran").exists()


TEXTS = ("__import__('os').system('touch it_ran')", "{query.__class__.__mro__}", "{0.__init__}", "${oc.env:HF_TOKEN}",
         "{{ cycler.__init__.__globals__ }}", "!!python/object/apply:os.system ['touch it_ran']", "$(touch it_ran)",
         "`touch it_ran`", "<|video_pad|>", "'; DROP TABLE videos; --")  # fmt: skip


def test_texts_of_annotations_are_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows_ = [{"id": text, "video": "a.mp4", "duration": 8.0, "query": text, "spans": [[1, 2]]} for text in TEXTS]
    Path("mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows_))
    Path("mine.txt").write_text("".join(f"AMT7R 1.0 2.0##{text}\n" for text in TEXTS))
    for name, reader in (("mine.jsonl", "jsonl"), ("mine.txt", "charades_txt")):
        made = rows(read(Source(name, ".", reader)), "{video}When: {query}")
        assert [each["query"] for each in made] == list(TEXTS)
        assert [each["prompt"][0]["content"][-1]["text"] for each in made] == [f"When: {text}" for text in TEXTS]
    for text in TEXTS:
        with pytest.raises(ValueError, match="does not end in"):
            timelens_answers({f"a>>>b>>>{text}": {"timestamps": [[1, 2]]}})
    assert not Path("it_ran").exists()


def test_the_text_of_a_query_adds_no_video_to_a_prompt(tmp_path: Path) -> None:
    make(tmp_path / "model")
    encoder = Encoder(load_processor(tmp_path / "model"), family(load_config(tmp_path / "model")), video_settings(1.0))
    with pytest.raises(ValueError, match="rendered 2 videos where the prompt has 1"):
        encoder(row(write_video(tmp_path / "a.mp4"), "<|video_pad|>"))


def test_a_prompt_reaches_into_no_object(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="prompt: unknown placeholder"):
        load(["recipe=tiny", "prompt={video}{query.__class__}"])


def test_a_reward_file_runs_when_it_is_named_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rewards").mkdir()
    Path("rewards/mine.py").write_text("open('it_ran', 'w')\ndef mine(completions, **_):\n    return []\n")
    columns = ["id", "spans", "duration"]
    spec = load(["recipe=tiny"]).stages["rl"].rewards["tiou"]
    bind({"tiou": spec}, columns)
    with pytest.raises(RewardError, match="mine"):  # it is listed
        bind({"min": spec}, columns)
    assert not Path("it_ran").exists()
    bind({"mine": spec}, columns)
    assert Path("it_ran").exists()


# --- checkpoints


def test_hostile_pickles_in_a_checkpoint_do_not_run(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "model")
    said = [{"role": "assistant", "content": [{"type": "text", "text": "02 to 05"}]}]
    base = str(tmp_path / "model"), [row(write_video(tmp_path / "a.mp4", seconds=4), completion=said)]
    a_trainer(base, tmp_path / "out", "sft", max_steps=2).train()
    place = tmp_path / "out/checkpoint-1"
    for file in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        before = (place / file).read_bytes()
        torch.save({"state": Hostile(mark)}, place / file)
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            a_trainer(base, tmp_path / "out", "sft", max_steps=2).train(place)
        (place / file).write_bytes(before)
    torch.save(Hostile(mark), place / "training_args.bin")
    a_trainer(base, tmp_path / "out", "sft", max_steps=2).train(place)  # nobody reads that file
    (place / "model.safetensors").unlink()
    torch.save({"weight": Hostile(mark)}, place / "pytorch_model.bin")
    with pytest.raises(RecipeError, match="no weights in safetensors files, only .*, which is not read"):
        a_trainer(base, tmp_path / "out", "sft", max_steps=2).train(place)
    assert not mark.exists()


def test_files_of_deepspeed_hold_its_own_classes_and_no_others(tmp_path: Path, mark: Path) -> None:
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum

    torch.save({"state": Hostile(mark)}, tmp_path / "hostile.pt")
    state = {"scaler": LossScaler(scale=1.0), "stage": ZeroStageEnum.weights, "weight": torch.ones(2)}
    torch.save(state, tmp_path / "own.pt")
    with only_weights():  # DeepSpeed asks for the contrary
        assert torch.load(tmp_path / "own.pt", weights_only=False)["stage"] == ZeroStageEnum.weights
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "hostile.pt", weights_only=False)
    assert not mark.exists() and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    torch.load(tmp_path / "hostile.pt", weights_only=False)
    assert mark.exists()


# --- secrets

KEY = SECRETS["JUDGE_API_KEY"]


@pytest.mark.parametrize(
    "word",
    [
        "stages.rl.rewards.tiou.args.api_key=whatever", "stages.rl.rewards.tiou.args.my_password=whatever",
        "stages.rl.rewards.tiou.args.token=whatever", "stages.rl.rewards.tiou.args={http: {Authorization: whatever}}",
        "name=${oc.env:MINE_TOKEN}", "prompt={video}{query} ${oc.env:MINE_TOKEN}", "system=" + KEY,
        f"stages.rl.rewards.tiou.args.list=[a, {KEY}]", "model=" + SECRETS["HF_TOKEN"],
    ],
)  # fmt: skip
def test_a_secret_in_a_recipe_is_refused_and_not_quoted(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE_TOKEN", "correct-horse-battery-staple")
    with pytest.raises(RecipeError, match=r"got what looks like a secret.*put it into an environment var") as told:
        load(["recipe=tiny", word])
    for secret in ("whatever", KEY, "correct-horse", SECRETS["HF_TOKEN"]):
        assert secret not in str(told.value)


def test_what_only_sounds_like_a_secret_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("SSH_KEY_PATH", "/home" + "/somebody/.ssh/id")
    args = "{api_key_env: OPENAI_API_KEY, max_tokens: 10, think_token: <think>, keys: [a], token: ''}"
    recipe = load(["recipe=tiny", f"stages.rl.rewards.tiou.args={args}", "name=sk-videos", "system=hf_charades"])
    assert "OPENAI_API_KEY" in dump(recipe)


def test_an_error_that_quotes_a_secret_is_printed_without_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINE_TOKEN", "correct-horse-battery-staple")

    def command() -> int:
        load(["recipe=tiny", "seed=${oc.env:MINE_TOKEN}"])
        return 0

    assert exit_status(command) == 2
    assert capsys.readouterr().err == "error: seed: got '***', want an integer\n"


def test_code_of_the_hub_is_no_attention() -> None:
    with pytest.raises(RecipeError, match="attn_implementation: got someone/kernel, whose code is on the hub"):
        load(["recipe=tiny", "attn_implementation=someone/kernel"])


@pytest.mark.slow
def test_no_secret_of_the_environment_is_in_what_a_run_writes_prints_or_exports(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path_factory)
    monkeypatch.chdir(run.place)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    export_run(run.folder, kind="adapter", output=tmp_path / "out")
    assert main(["export", "runs/tiny", "--push", "me/mine"]) == 2
    assert set(run.asked_with) == {f"Bearer {KEY}"}  # it was used
    assert "status 401" in run.printed and "Bearer ***" in run.printed
    assert run.printed and not [name for name, value in SECRETS.items() if value in run.printed]
    files = [file for place in (run.place, tmp_path) for file in place.rglob("*") if file.is_file()]
    assert {"recipe.yaml", "README.md", "training_args.bin", "output.log"} <= {file.name for file in files}
    assert any(file.suffix == ".wandb" for file in files)
    found = [(name, file) for file in files for name, value in SECRETS.items() if value.encode() in file.read_bytes()]
    assert found == []
    assert written(run.folder / "recipe.yaml").stages["rl"].rewards["asked"].args["url"].startswith("http://127.0.0.1")
