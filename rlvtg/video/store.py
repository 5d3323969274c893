"""Clips on disk: a video is decoded and resized once for all runs that sample it alike.

A clip is one file, named by what it was made from: the bytes of the video, the window, the settings. So a video that
changed has another name, and one that moved keeps its own. Files appear by renaming, which a reader sees whole or not
at all, whichever process is killed when; no process locks another out.
"""

import functools
import hashlib
import json
import math
import os
import time
import zipfile
from pathlib import Path

import numpy as np

from rlvtg.disk import this_process
from rlvtg.recipe import Recipe
from rlvtg.video.decode import Clip

# Raised whenever the frames that the same settings give change.
FORMAT = 1
# Seconds after which a half-written file is what a killed process left behind.
ABANDONED = 3600.0
_CHUNK = 1 << 20


def default_folder() -> Path:
    """Where clips are kept unless a recipe says otherwise: rlvtg/clips in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rlvtg" / "clips"


def clip_store(recipe: Recipe) -> "ClipStore | None":
    """Where the clips of a recipe's runs are kept on disk; None if they are not to be."""
    if not recipe.cache_gb:
        return None
    return ClipStore(recipe.cache_dir or default_folder(), int(recipe.cache_gb * 2**30))


class ClipStore:
    """At most `max_bytes` of clips below `folder`; the least recently used go first.

    Several processes may share a folder. Each looks at the whole folder when it may be full and whenever it has itself
    written a twentieth of the budget, so together they may overshoot it by as much for each process.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int) -> None:
        self.folder = Path(folder).expanduser()
        self.max_bytes = max_bytes
        self._seen = math.inf  # bytes below the folder when this process last looked
        self._written = 0  # bytes that it has written since

    def name(self, path: str | os.PathLike[str], start: float | None, end: float | None, **settings: object) -> str:
        """The name of a clip: a digest of the video's bytes, its window in seconds and the settings.

        Raises OSError if the video cannot be read.
        """
        status = os.stat(path)
        video = _digest(os.path.abspath(path), status.st_size, status.st_mtime_ns)
        asked = {"format": FORMAT, "video": video, "start": start, "end": end, **settings}
        return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=20).hexdigest()

    def holds(self, name: str) -> bool:
        """Whether the clip called `name` is there, which counts as a use of it; damage inside it only `read` finds."""
        try:
            os.utime(self._path(name))
        except OSError:
            return False
        return True

    def read(self, name: str) -> Clip | None:
        """The clip called `name`, or None if it is not there whole."""
        path = self._path(name)
        try:
            with np.load(path) as entry:
                clip = Clip(entry["frames"], entry["timestamps"], float(entry["duration"]))
            os.utime(path)  # used just now
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return clip

    def write(self, name: str, clip: Clip) -> None:
        """Keep `clip` as `name`, unless it is larger than the whole budget, and forget what exceeds the budget.

        Raises OSError if the folder cannot be written.
        """
        if clip.frames.nbytes > self.max_bytes:
            return
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{name}.{this_process()}.part")
        try:
            with open(part, "wb") as file:
                np.savez(file, frames=clip.frames, timestamps=clip.timestamps, duration=np.float64(clip.duration))
            self._written += part.stat().st_size
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        if self._seen + self._written > self.max_bytes or self._written > self.max_bytes / 20:
            self._forget()

    def bytes(self) -> int:
        """What the clips take on disk."""
        return sum(size for _, size, _ in self._files())

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.npz"

    def _files(self) -> list[tuple[float, int, str]]:
        """(time of last use, bytes, path) of every file below the folder."""
        found = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except FileNotFoundError:
                    continue  # another process was first
                found.append((status.st_mtime, status.st_size, path))
        return found

    def _forget(self) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for used, size, path in files:
            abandoned = path.endswith(".part") and used < time.time() - ABANDONED
            if abandoned or (total > self.max_bytes and path.endswith(".npz")):
                Path(path).unlink(missing_ok=True)
                total -= size
        self._seen, self._written = total, 0


@functools.cache
def _digest(path: str, size: int, changed: int) -> str:
    """Digest of a file's bytes, read once per process for every size and time of change that the file has had."""
    digest = hashlib.blake2b(digest_size=20)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
