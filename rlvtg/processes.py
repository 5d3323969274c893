"""The processes of a run: how each of them joins the others, whichever launcher and backend they were started with."""

import os
import time
from datetime import timedelta
from pathlib import Path
from socket import gethostname
from uuid import uuid4

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from rlvtg.disk import unfinished
from rlvtg.recipe import Recipe, RecipeError

# The first process prepares for all, and may decode the whole of a data set meanwhile; the default is ten minutes on
# GPUs. A process that dies is seen by the launcher, which ends the others, however long they would have waited.
_PATIENCE = timedelta(days=2)
# Seconds that a file may take to appear on another machine that shares the disk.
_LAG = 10.0


def join(recipe: Recipe) -> PartialState:
    """The state of this process among the others, which it waits for; gloo on the CPU, also under DeepSpeed.

    The recipe decides on the precision: a launcher's file that says `mixed_precision` would turn autocast on for a
    recipe that says `bf16: false`.
    """
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if recipe.bf16 else "no"
    return PartialState(cpu=recipe.use_cpu, timeout=_PATIENCE)


def require_shared(folder: Path, state: PartialState) -> None:
    """Refuse to run where not every process sees what the first one writes to `folder`; called in all of them at once.

    Raises:
        RecipeError: in all of them, with a machine that does not see it.
    """
    name = [uuid4().hex]
    broadcast_object_list(name)
    mark = unfinished(folder / "seen", name[0])
    try:
        if state.is_main_process:
            mark.touch()
        state.wait_for_everyone()
        seen = gather_object([(state.process_index, gethostname(), _appears(mark))])
    finally:
        if state.is_main_process:
            mark.unlink(missing_ok=True)
    blind = [(process, host) for process, host, sees in seen if not sees]
    if blind:
        process, host = blind[0]
        raise RecipeError(
            f"output_dir: process {process} on {host} does not see the run folder {folder.absolute()} that process 0 "
            f"on {seen[0][1]} has made ({len(blind)} of {len(seen)} processes do not); the machines of a run need it "
            "on a disk that they share, under the same path (docs/multi_node.md)"
        )


def require_same(digest: str, what: str, state: PartialState) -> None:
    """Refuse to run where a process has something else than the first one; called in all of them at once.

    Args:
        digest: of what this process has.
        what: it is called.
        state: of this process.

    Raises:
        RecipeError: in all of them, with a machine that has something else.
    """
    found = gather_object([(state.process_index, gethostname(), digest)])
    for process, host, other in found:
        if other != found[0][2]:
            raise RecipeError(
                f"process {process} on {host} has other {what} than process 0 on {found[0][1]}; every machine needs "
                "the same annotations, videos, recipe and code under the same paths (docs/multi_node.md)"
            )


def _appears(file: Path) -> bool:
    """Whether the file is there, or comes to be within `_LAG`."""
    give_up = time.monotonic() + _LAG
    while not file.exists():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.2)
    return True
