"""Many videos -> what is found of each, by several processes at once; above all what each file says of itself."""

import json
import os
import queue
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from rlvtg.disk import write_whole
from rlvtg.video.index import TIMED_OUT, VideoError
from rlvtg.video.worker import DecodeWorker, Probe, shared_worker

Found = TypeVar("Found")
Probes = dict[str, Probe | VideoError]

# More would wait for the same disk.
MOST_WORKERS = 8


def scan(
    paths: Iterable[str],
    *,
    timeout: float,
    known: Mapping[str, Probe | VideoError] | None = None,
    workers: int | None = None,
) -> Probes:
    """A `Probe` of every distinct path, or the VideoError that says why there is none; shows a bar when it takes long.

    Args:
        paths: files; a missing one is a VideoError too.
        timeout: seconds after which one file is given up.
        known: what need not be read again.
        workers: processes that read at once; default one per core, 8 at most.
    """
    known = known or {}
    found: Probes = {path: known[path] for path in dict.fromkeys(paths) if path in known}
    unread = [path for path in dict.fromkeys(paths) if path not in known]

    def probe(path: str, worker: DecodeWorker) -> Probe | VideoError:
        try:
            return worker.probe(path, timeout)
        except VideoError as error:
            return error

    return found | for_each_video(unread, probe, "reading videos", workers=workers)


def for_each_video(
    paths: Sequence[str],
    ask: Callable[[str, DecodeWorker], Found],
    description: str,
    *,
    workers: int | None = None,
) -> dict[str, Found]:
    """`ask(path, worker)` for every path, several at once; shows a bar with a description when it takes long.

    A worker is one thread's at a time. `workers` is as for `scan`; the process's shared worker is one of them.
    """
    count = min(len(paths), workers or min(MOST_WORKERS, len(os.sched_getaffinity(0))))
    if count == 0:
        return {}
    own = [DecodeWorker() for _ in range(count - 1)]
    idle: queue.SimpleQueue[DecodeWorker] = queue.SimpleQueue()
    for worker in (shared_worker(), *own):
        idle.put(worker)

    def asked(path: str) -> Found:
        worker = idle.get()
        try:
            return ask(path, worker)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(count) as threads:
        answers = tqdm(threads.map(asked, paths), total=len(paths), desc=description, unit="video", delay=2)
        found = dict(zip(paths, answers, strict=True))
    for worker in own:
        worker.close()
    return found


def write_probes(path: str | os.PathLike[str], probes: Mapping[str, Probe | VideoError]) -> None:
    """Write what was found, one JSON object per video, with size and time of change of the file that it is about."""
    lines = []
    for video, found in probes.items():
        row = {"video": video, "file": _state(video)}
        row |= {"reason": found.reason, "kind": found.kind} if isinstance(found, VideoError) else asdict(found)
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_whole(path, "".join(lines))


def read_probes(path: str | os.PathLike[str], *, again: bool = False) -> Probes:
    """What `write_probes` wrote, nothing if the file is not there.

    With `again` only what still holds: files that have not changed since, and no time-outs, which may have been the
    machine's.
    """
    if not Path(path).is_file():
        return {}
    probes: Probes = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        video, state = row.pop("video"), row.pop("file")
        if again and (state != _state(video) or row.get("kind") == TIMED_OUT):
            continue
        probes[video] = VideoError(video, row["reason"], row["kind"]) if "kind" in row else Probe(**row)
    return probes


def _state(video: str) -> list[int] | None:
    try:
        status = os.stat(video)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
