"""Training commands that begin at once, for tests that start and kill many of them.

`python -m tests.forks` loads torch and TRL, which takes longer than a small run, and then forks for every command that
it is told. From there on a fork is the command's process: in a group of its own, with random numbers of its own.
"""

import json
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

import rlvtg.run  # noqa: F401  (what a command would load when it has read its recipe)
from rlvtg import train

NOTHING: Mapping[str, str] = MappingProxyType({})
LONGEST = 900  # seconds that a command may take
PRINTED, SAID = "printed.txt", "said.txt"
"""What the last command has written to stdout and to stderr, in the folder in which it was typed."""


class Forks:
    """The process that forks, seen from the test: one command at a time."""

    def __init__(self, environment: dict[str, str]) -> None:
        told, telling = os.pipe()
        command = [sys.executable, "-m", "tests.forks", str(telling)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[telling], env=environment)
        os.close(telling)
        self._told = os.fdopen(told)

    def start(self, place: Path, *argv: str, environment: Mapping[str, str] = NOTHING) -> None:
        """Type `rlvtg/train.py argv` in `place`, with these variables besides those that the process began with."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(place), dict(environment), argv]).encode() + b"\n")
        self._process.stdin.flush()
        self._child = int(self._told.readline())

    def is_running(self) -> bool:
        return not select.select([self._told], [], [], 0)[0]

    def kill(self) -> None:
        """Kill it and what it has started; nothing if it has ended."""
        if self.is_running():
            with suppress(ProcessLookupError):  # it has ended since
                os.killpg(self._child, signal.SIGKILL)

    def status(self) -> int:
        """The exit status of the command, once it has ended; of one that was killed, the signal with a minus."""
        return int(self._told.readline())

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._told.close()


@cache
def shared() -> Forks:
    """The process that test files share; it ends with this one."""
    return Forks(dict(os.environ))


def _run(place: str, environment: dict[str, str], argv: list[str]) -> int:
    os.chdir(place)
    os.environ.update(environment)
    signal.alarm(LONGEST)
    for stream, name in enumerate((os.devnull, PRINTED, SAID)):
        os.dup2(os.open(name, os.O_RDWR if stream == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    # a process of its own would have begun with its own
    random.seed()
    np.random.seed()
    torch.seed()
    return train.main(argv)


def main() -> None:
    """Fork for each line of stdin, a JSON list of place, variables and arguments; tell each fork's number and end."""
    telling = os.fdopen(int(sys.argv[1]), "w")
    for line in sys.stdin.buffer:
        child = os.fork()
        os.setpgid(child, child)
        if not child:
            status = 1
            try:
                status = _run(*json.loads(line))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(child, file=telling, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=telling, flush=True)


if __name__ == "__main__":
    main()
