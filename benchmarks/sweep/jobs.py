"""Commands that wait for each other, some at a time, with the CPU seconds of each."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL = 0.2  # seconds
PATIENCE = 20.0  # seconds that a command may take to stop when it is told to


@dataclass(frozen=True)
class Job:
    """One command; `after` is the name of the job that must have succeeded before it starts."""

    name: str
    command: tuple[str, ...]
    after: str | None = None


def work_off(
    jobs: Sequence[Job], processes: int, logs: Path, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> list[str]:
    """Run the jobs in their order, at most so many `processes` at a time; the names of those that failed.

    A job whose predecessor failed is not started and counts as failed. What a job prints goes to `<logs>/<name>.log`,
    behind what an earlier attempt printed; `<logs>/cpu_seconds.jsonl` gets a line for each job that came to its end,
    well or not, or was stopped here. However this ends, no job that it started goes on.
    """
    waiting, running = list(jobs), dict[subprocess.Popen[bytes], Job]()
    succeeded, failed = set[str](), list[str]()
    names = {job.name for job in jobs}
    try:
        while waiting or running:
            for job in list(waiting):
                if job.after in failed:
                    waiting.remove(job)
                    failed.append(job.name)
                elif len(running) < processes and (job.after not in names or job.after in succeeded):
                    waiting.remove(job)
                    running[_start(job, logs, environment, pass_fds)] = job
            for ended, status in _ended(running, logs):
                (succeeded.add if status == 0 else failed.append)(ended.name)
                left = len(waiting) + len(running)
                print(f"{time.strftime('%H:%M:%S')} {ended.name}: {_said(status)}, {left} to go", flush=True)
            time.sleep(POLL)
    finally:
        _stop(running, logs)
    return failed


def _said(status: int) -> str:
    return "done" if status == 0 else f"FAILED with status {status}"


def _start(job: Job, logs: Path, environment: Mapping[str, str], pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    log = logs / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        return subprocess.Popen(
            job.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(environment), pass_fds=pass_fds
        )


def _ended(running: dict[subprocess.Popen[bytes], Job], logs: Path) -> list[tuple[Job, int]]:
    """The jobs that have ended, with their exit status; they are taken out of `running`."""
    found = []
    for process in list(running):
        ended, status, used = os.wait4(process.pid, os.WNOHANG)  # Popen's own wait does not tell what was used
        if ended:
            job, process.returncode = running.pop(process), os.waitstatus_to_exitcode(status)
            seconds = round(used.ru_utime + used.ru_stime, 1)
            line = {"run": job.name, "cpu_seconds": seconds, "status": process.returncode}
            with (logs / "cpu_seconds.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            found.append((job, process.returncode))
    return found


def _stop(running: dict[subprocess.Popen[bytes], Job], logs: Path) -> None:
    for process in running:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    while running and time.monotonic() < deadline:
        _ended(running, logs)
        time.sleep(POLL)
    for process in running:
        process.kill()
        process.wait()


def cpu_seconds(logs: Path) -> dict[str, float]:
    """CPU seconds by job, of all its attempts that ended under `work_off`."""
    file, found = logs / "cpu_seconds.jsonl", dict[str, float]()
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        row = json.loads(line)
        found[row["run"]] = found.get(row["run"], 0.0) + row["cpu_seconds"]
    return found
