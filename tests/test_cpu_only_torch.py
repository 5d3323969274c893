"""Each case is a fresh interpreter: whether torchvision can be imported is settled once per process."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MISSING = "operator torchvision::nms does not exist"

# What a CPU build of torchvision does when its extension loads.
OWN_OPERATORS = """
import torch
own = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    own.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    own.impl(name, lambda dets, scores, iou_threshold: torch.tensor([0]), "CPU")
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def stdout_of(code: str) -> str:
    done = python(code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@cache
def needs_the_hook() -> bool:
    """Whether this machine has what the module is for: a CPU-only torch beside a torchvision built for CUDA."""
    done = python("import torch; assert torch.version.cuda is None; import torchvision")
    return done.returncode != 0 and MISSING in done.stderr


def test_import_rlvtg_loads_neither_torch_nor_torchvision() -> None:
    assert stdout_of("import sys, rlvtg; print(sorted({'torch', 'torchvision'} & set(sys.modules)))") == "[]"


@pytest.mark.slow
def test_the_video_processor_imports_and_resizes_after_rlvtg() -> None:
    code = """
import rlvtg, torchvision, transformers.models.qwen2_vl.video_processing_qwen2_vl as processing, torch
rlvtg.cpu_only_torch.declare_missing_operators()  # a second time, which must do no harm
print(tuple(processing.tvF.resize(torch.zeros(1, 3, 56, 84), [28, 28]).shape))
"""
    assert stdout_of(code) == "(1, 3, 28, 28)"


@pytest.mark.slow
def test_operators_that_torchvision_declares_itself_are_left_alone() -> None:
    use = "import rlvtg, torchvision, torch\nnms = torch.ops.torchvision.nms\n"
    use += "print(nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5).tolist())"
    assert stdout_of(OWN_OPERATORS + use if needs_the_hook() else use) == "[0]"


@pytest.mark.slow
def test_only_a_cpu_only_torch_gets_the_declarations() -> None:
    code = """
import rlvtg, torch
really, torch.version.cuda = torch.version.cuda, "13.0"
try:
    import torchvision
    print("as for CUDA: works")
except RuntimeError as error:
    print("as for CUDA:", error)
torch.version.cuda = really
import torchvision
print("as it is: works")
"""
    first = MISSING if needs_the_hook() else "works"
    assert stdout_of(code).splitlines() == [f"as for CUDA: {first}", "as it is: works"]


BROKEN = "raise OSError('libcudart.so.13: cannot open shared object file')"


@pytest.mark.slow
def test_datasets_does_not_look_for_a_torchcodec_that_cannot_load(tmp_path: Path) -> None:
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec" / "__init__.py").write_text(BROKEN)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import rlvtg, torch
torch.version.cuda = None
from datasets import Dataset  # which asks once for all whether there is a torchcodec
import transformers
print(Dataset.from_list([{{"a": "b"}}])[0])
"""
    assert stdout_of(code) == "{'a': 'b'}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "cuda", "wanted"),
    [
        (BROKEN, None, "absent: None, ModuleNotFoundError"),
        ("import torchcodec.part", None, "absent: None, ModuleNotFoundError"),
        ("sound = True", None, "there"),
        (BROKEN, "13.0", "found: OSError"),
    ],
    ids=["cannot load", "a part of it cannot load", "loads", "beside a torch for CUDA"],
)
def test_an_optional_package_counts_as_absent_where_it_cannot_load(
    tmp_path: Path, source: str, cuda: str | None, wanted: str
) -> None:
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec" / "__init__.py").write_text(source)
    (tmp_path / "torchcodec" / "part.py").write_text(BROKEN)
    code = f"""
import sys, importlib.util
sys.path.insert(0, {str(tmp_path)!r})
import rlvtg, torch
torch.version.cuda = {cuda!r}
import transformers
found = importlib.util.find_spec("torchcodec")
try:
    import torchcodec
    print("there")
except Exception as error:
    print("absent: None," if found is None else "found:", type(error).__name__)
assert found is not None or "torchcodec.part" not in sys.modules
"""
    assert stdout_of(code) == wanted


def test_asking_whether_there_is_a_vllm_does_not_load_torch() -> None:
    code = "import rlvtg, sys, importlib.util; importlib.util.find_spec('vllm'); print('torch' in sys.modules)"
    assert stdout_of(code) == "False"
