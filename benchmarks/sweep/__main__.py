"""The papers' central comparisons in miniature, one command: `python -m benchmarks.sweep`, typed in the checkout.

    python -m benchmarks.sweep                               # everything; go on with what an earlier call left undone
    python -m benchmarks.sweep --arms plain raw --seeds 1    # a part of it
    python -m benchmarks.sweep --page docs/miniature.md --render runs/sweep/results.json

For each seed it makes data and model below data/sweep, runs the cold starts and then the arms (recipes/sweep/*.yaml)
through rlvtg/train.py, each a process of one thread, and keeps runs, logs and results.json below runs/sweep. A run that
is finished is not run again; one that was killed goes on from its last checkpoint. Overrides (`key=value`) go to every
run that has their stage. When nothing is left to do, docs/miniature.md is written; of a part, runs/sweep/miniature.md.
"""

import argparse
import fcntl
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.sweep.jobs import Job, cpu_seconds, work_off
from benchmarks.sweep.measured import is_finished, measured
from benchmarks.sweep.page import page
from benchmarks.sweep.place import FOLDER, recipe_file, run_folder
from benchmarks.sweep.plan import SEEDS, STARTS, runs
from rlvtg.disk import write_whole
from rlvtg.recipe import SHIPPED, RecipeError, load

ROOT = SHIPPED.parent
PAGE = Path("docs/miniature.md")


def main(argv: Sequence[str]) -> int:
    """Run what is left of the sweep that `argv` asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep",
        usage="%(prog)s [--option ...] [key=value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arms", nargs="+", choices=STARTS, default=list(STARTS), metavar="ARM", help="of the plan")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--page", type=Path, help="where the table goes")
    parser.add_argument(
        "--render", type=Path, metavar="RESULTS", help="write the page from a results.json, run nothing"
    )
    overrides = [word for word in argv if "=" in word and not word.startswith("-")]
    args = parser.parse_args([word for word in argv if word not in overrides])
    is_whole = set(args.arms) == set(STARTS) and set(args.seeds) == set(SEEDS) and not overrides
    written = args.page or (PAGE if is_whole or args.render else FOLDER / "miniature.md")
    if args.render is None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with (FOLDER / "lock").open("w") as lock:
            try:
                # a child keeps it too, so that none is left over from a sweep that was killed
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{FOLDER}: a sweep is at work here, or runs of one that was killed; wait for them, or end them")
                return 2
            failed = sweep(args.arms, args.seeds, overrides, args.processes, lock.fileno())
        if failed:
            print(f"failed: {', '.join(failed)}; what they said is in {FOLDER}/<run>.log. The same command goes on.")
            return 1
    results = json.loads((args.render or FOLDER / "results.json").read_text(encoding="utf-8"))
    write_whole(written, page(results))
    print(f"{written} has the table, {args.render or FOLDER / 'results.json'} the numbers")
    return 0


def sweep(arms: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], processes: int, lock: int) -> list[str]:
    """Run what is not finished and write results.json of what is; the runs that failed."""
    jobs = []
    for seed in seeds:
        left = [name for name in runs(arms) if not _finished(name, seed, overrides)]
        if left:
            jobs.append(Job(f"{seed}/data", _python("benchmarks/sweep/data.py", _words("cold", seed, overrides))))
        for name in left:
            start = STARTS.get(name)
            words = [f"recipe={recipe_file(name)}", "resume=true", *_words(name, seed, overrides)]
            after = f"{seed}/{start}" if start in left else f"{seed}/data"
            jobs.append(Job(f"{seed}/{name}", _python("rlvtg/train.py", words), after))
    print(f"{len(jobs)} of {len(seeds) * (1 + len(runs(arms)))} runs to go, {processes} at a time", flush=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    try:
        return work_off(jobs, processes, FOLDER, environment, pass_fds=[lock])
    finally:
        _write_results(arms, seeds, overrides)


def _python(script: str, words: Sequence[str]) -> tuple[str, ...]:
    return (sys.executable, str(ROOT / script), *words)


def _words(name: str, seed: int, overrides: Sequence[str]) -> list[str]:
    """The seed, and the overrides that a recipe takes: those of the other kind of stage are left out."""
    other = "stages.cold_start." if name in STARTS else "stages.rl."
    return [f"seed={seed}", *(word for word in overrides if not word.startswith(other))]


def _finished(name: str, seed: int, overrides: Sequence[str]) -> bool:
    """Whether the run is finished; RecipeError if it was another than is asked for."""
    folder = run_folder(name, seed)
    if not is_finished(folder):
        return False
    asked = load([f"recipe={recipe_file(name)}", *_words(name, seed, overrides), "resume=true"])
    was = load([f"recipe={folder / 'recipe.yaml'}", "resume=true"])
    changed = [key for key, value in vars(asked).items() if value != getattr(was, key)]
    if changed:
        raise RecipeError(f"{folder} was run with another {', '.join(changed)}; move {FOLDER} away to start anew")
    return True


def _write_results(arms: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]) -> None:
    spent = cpu_seconds(FOLDER)
    found: list[dict[str, Any]] = []
    for seed in seeds:
        for name in runs(arms):
            if is_finished(run_folder(name, seed)):
                seconds = spent.get(f"{seed}/{name}", 0.0)
                found.append({"run": name, "seed": seed, "cpu_seconds": seconds, **measured(run_folder(name, seed))})
    results = {
        "arms": list(arms),
        "seeds": list(seeds),
        "overrides": list(overrides),
        "data_cpu_seconds": sum(spent.get(f"{seed}/data", 0.0) for seed in seeds),
        "runs": found,
    }
    write_whole(FOLDER / "results.json", json.dumps(results) + "\n")


def _stop(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(main(sys.argv[1:]))
    except RecipeError as error:
        sys.exit(str(error))
