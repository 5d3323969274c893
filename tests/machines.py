"""Launches that meet as two machines do: one on each, that know of each other an address, a port and their numbers.

Both are on this machine and meet over loopback.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def launcher(way: str) -> tuple[str, ...]:
    """`accelerate launch` with the shipped file of that name."""
    file = str(ROOT / "recipes" / "accelerate" / f"{way}.yaml")
    return "-m", "accelerate.commands.launch", "--config_file", file


def environment(place: Path) -> dict[str, str]:
    """This process's, with every cache below `place`."""
    paths = {"PYTHONPATH": str(ROOT), "HF_HOME": str(place / "hf"), "XDG_CACHE_HOME": str(place / "cache"),
             "MPLCONFIGDIR": str(place / "mpl"), "OMP_NUM_THREADS": "1"}  # fmt: skip
    return {**os.environ, **paths}


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
    return port


@contextmanager
def on_two_machines(place: Path, way: str, script: str, *argv: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Two launches of a process each, with `place` as working directory; ended with the block.

    What they print is in `machine_0.txt` and `machine_1.txt` there.
    """
    met = ("--num_machines", "2", "--num_processes", "2", "--main_process_ip", "127.0.0.1",
           "--main_process_port", str(free_port()))  # fmt: skip
    started: list[subprocess.Popen[str]] = []
    try:
        for number in range(2):
            command = [sys.executable, *launcher(way), *met, "--machine_rank", str(number), script, *argv]
            with open(place / f"machine_{number}.txt", "w") as said:
                started.append(
                    subprocess.Popen(
                        command, cwd=place, env=environment(place), stdout=said, stderr=said, start_new_session=True,
                        text=True,
                    )
                )  # fmt: skip
        yield started
    finally:
        for machine in started:
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)
                machine.wait()
