"""Processes that meet on different machines, here in different working directories: what each of them sees is held
against what the first one sees before a model loads.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machines import ROOT, free_port

PROGRAM = """
import os
from pathlib import Path

from rlvtg import processes
from rlvtg.recipe import Recipe, RecipeError

processes._LAG = 0.2
state = processes.join(Recipe(name="test", model="none", use_cpu=True, bf16=False))
shared, own = Path(os.environ["SHARED"]), Path("runs/here")
own.mkdir(parents=True)
processes.require_shared(shared, state)
processes.require_same("a digest", "rows", state)
for wrong in (
    lambda: processes.require_shared(own, state),
    lambda: processes.require_same(f"digest {state.process_index}", "rows", state),
):
    try:
        wrong()
    except RecipeError as error:
        print(error)
print(sorted(file.name for place in (shared, own) for file in place.iterdir()))
"""


@pytest.mark.slow
def test_a_machine_that_does_not_share_the_run_folder_or_has_other_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    port = str(free_port())
    started = []
    for rank in ("0", "1"):
        place = tmp_path / f"machine_{rank}"
        place.mkdir()
        met = {"RANK": rank, "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, **met, "SHARED": str(tmp_path / "shared"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", PROGRAM]
        started.append(subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=120)[0].splitlines() for process in started]
    here = socket.gethostname()
    folder = tmp_path / "machine_0" / "runs" / "here"
    assert said[0][0] == (
        f"output_dir: process 1 on {here} does not see the run folder {folder} that process 0 on {here} has made (1 of "
        "2 processes do not); the machines of a run need it on a disk that they share, under the same path "
        "(docs/multi_node.md)"
    )
    assert said[0][1] == (
        f"process 1 on {here} has other rows than process 0 on {here}; every machine needs the same annotations, "
        "videos, recipe and code under the same paths (docs/multi_node.md)"
    )
    assert said[1][1] == said[0][1] and "does not see the run folder" in said[1][0]
    assert said[0][2] == said[1][2] == "[]"
