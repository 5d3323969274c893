"""Lets `import torchvision` work beside a CPU-only torch.

Package indexes serve torchvision as a CUDA build. Beside a CPU-only torch its compiled operators cannot be loaded;
torchvision passes over that in silence and then stops at its own fake kernels: "operator torchvision::nms does not
exist". The video processors of transformers only resize and normalise, which torchvision does in plain torch, so it is
enough that the two operators are declared. Calling them still fails, as it must: nothing implements them.

Importing this module installs the hook and loads nothing; `import rlvtg` does it, so every later import of torchvision
is covered. A torchvision whose operators did load, and every torch built for CUDA, are left as they are.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# The operators whose fake kernels torchvision registers without asking whether its compiled extension is there.
UNCHECKED = ("nms", "qnms")

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


class _BeforeFakeKernels(MetaPathFinder):
    """Finds nothing; it only acts between torchvision's attempt to load its operators and its fake kernels."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision._meta_registrations":
            declare_missing_operators()
        return None


sys.meta_path.insert(0, _BeforeFakeKernels())
