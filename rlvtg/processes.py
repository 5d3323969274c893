"""The processes of a run: how each of them joins the others, whichever launcher and backend they were started with."""

import os
from datetime import timedelta

from accelerate import PartialState

from rlvtg.recipe import Recipe

# The first process prepares for all, and may decode the whole of a data set meanwhile; the default is ten minutes on
# GPUs. A process that dies is seen by the launcher, which ends the others, however long they would have waited.
_PATIENCE = timedelta(days=2)


def join(recipe: Recipe) -> PartialState:
    """The state of this process among the others, which it waits for; gloo on the CPU, also under DeepSpeed.

    The recipe decides on the precision: a launcher's file that says `mixed_precision` would turn autocast on for a
    recipe that says `bf16: false`.
    """
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if recipe.bf16 else "no"
    return PartialState(cpu=recipe.use_cpu, timeout=_PATIENCE)
