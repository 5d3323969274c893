"""Many videos -> what each file says of itself, read ahead of the run by several processes at once."""

import json
import os
import queue
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from rlvtg.disk import write_whole
from rlvtg.video.index import TIMED_OUT, VideoError
from rlvtg.video.worker import DecodeWorker, Probe

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
    if not unread:
        return found
    count = min(len(unread), workers or min(MOST_WORKERS, len(os.sched_getaffinity(0))))
    idle: queue.SimpleQueue[DecodeWorker] = queue.SimpleQueue()
    for _ in range(count):
        idle.put(DecodeWorker(timeout))

    def probe(path: str) -> Probe | VideoError:
        worker = idle.get()
        try:
            return worker.probe(path)
        except VideoError as error:
            return error
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(count) as threads:
        answers = tqdm(threads.map(probe, unread), total=len(unread), desc="reading videos", unit="video", delay=2)
        found.update(zip(unread, answers, strict=True))
    while not idle.empty():
        idle.get().close()
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
