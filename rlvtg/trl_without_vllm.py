"""Keeps TRL from loading vLLM for rollouts of its own, which are not used here.

Wherever vLLM is installed, TRL imports it with its trainers: seconds of every start, also of runs that sample with
Hugging Face's `generate`. The rollouts of rlvtg load it when they use it (rlvtg/rollout/engine.py). Importing this
module installs the hook and loads nothing; `import rlvtg` does it. TRL's own vLLM modes say from then on, in this
process, that vLLM is not installed.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _BeforeGeneration(MetaPathFinder):
    """Finds nothing; it acts before TRL's rollouts ask whether there is a vLLM."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "trl.generation":
            import trl.import_utils as installed

            installed.is_vllm_available = lambda *args, **kwargs: False
        return None


sys.meta_path.insert(0, _BeforeGeneration())
