"""Clips at hand: a video is decoded once, however many completions, passes, epochs and runs look at it."""

import os
import warnings
from collections import OrderedDict

from rlvtg.recipe import Video
from rlvtg.video.decode import Clip
from rlvtg.video.index import VideoError
from rlvtg.video.store import ClipStore
from rlvtg.video.worker import DecodeWorker, shared_worker

_SETTINGS = ("fps", "min_frames", "max_frames", "min_pixels", "max_pixels", "total_pixels", "sampling", "backend")


class ClipCache:
    """At most `max_bytes` of sampled clips in memory under one set of video settings, the least recently used go first.

    Behind the memory stands a `store` on disk, if one is given. `decodes` counts the videos that were decoded, `hits`
    the requests answered from memory and `reads` those answered from disk. Clips are shared: do not write into them.
    They are decoded by the process's shared worker unless the cache is given a `worker` of its own.
    """

    def __init__(
        self,
        settings: Video,
        max_bytes: int,
        *,
        factor: int = 28,
        store: ClipStore | None = None,
        worker: DecodeWorker | None = None,
    ) -> None:
        self.settings = settings
        self.max_bytes = max_bytes
        self.factor = factor
        self.store = store
        self.decodes = 0
        self.reads = 0
        self.hits = 0
        self.bytes = 0
        self._worker = worker
        self._clips: OrderedDict[tuple[object, ...], Clip] = OrderedDict()

    def get(
        self,
        path: str | os.PathLike[str],
        start: float | None = None,
        end: float | None = None,
        settings: Video | None = None,
    ) -> Clip:
        """The clip of `read_clip(path, settings, start=start, end=end)`, kept from an earlier time if file and settings
        are the same. `settings` are the cache's own unless others are given.

        Raises VideoError as `read_clip` does, and when decoding hangs or crashes; a failure is not remembered. A store
        that cannot be written is warned of and used no more.
        """
        try:
            status = os.stat(path)
        except OSError as error:
            raise VideoError(path, "no such file" if isinstance(error, FileNotFoundError) else str(error)) from error
        settings = self.settings if settings is None else settings
        values = tuple(getattr(settings, name) for name in _SETTINGS)
        key = (os.path.abspath(path), status.st_size, status.st_mtime_ns, start, end, self.factor, *values)
        if key in self._clips:
            self.hits += 1
            self._clips.move_to_end(key)
            return self._clips[key]
        clip = self._stored(path, start, end, settings)
        if clip.frames.nbytes <= self.max_bytes:
            self._clips[key] = clip
            self.bytes += clip.frames.nbytes
            while self.bytes > self.max_bytes:
                _, dropped = self._clips.popitem(last=False)
                self.bytes -= dropped.frames.nbytes
        return clip

    def keep(self, path: str | os.PathLike[str], start: float | None = None, end: float | None = None) -> None:
        """See to it that the store holds a clip, which is decoded if it is not there and not read if it is.

        Raises VideoError as `get` does.
        """
        if self.store is None or not self.store.holds(self._name(self.store, path, start, end, self.settings)):
            self.get(path, start, end)

    def _name(
        self,
        store: ClipStore,
        path: str | os.PathLike[str],
        start: float | None,
        end: float | None,
        settings: Video,
    ) -> str:
        values = {name: getattr(settings, name) for name in _SETTINGS}
        try:
            return store.name(path, start, end, factor=self.factor, **values)
        except OSError as error:
            raise VideoError(path, f"cannot be read ({error.strerror or error})") from error

    def _stored(self, path: str | os.PathLike[str], start: float | None, end: float | None, settings: Video) -> Clip:
        """The clip from the store, or decoded and put there."""
        if self.store is None:
            return self._decode(path, start, end, settings)
        name = self._name(self.store, path, start, end, settings)
        clip = self.store.read(name)
        if clip is not None:
            self.reads += 1
            return clip
        clip = self._decode(path, start, end, settings)
        try:
            self.store.write(name, clip)
        except OSError as error:  # a full disk is no reason to stop a run
            warnings.warn(f"{self.store.folder}: {error}; no more clips are kept on disk", stacklevel=2)
            self.store = None
        return clip

    def _decode(self, path: str | os.PathLike[str], start: float | None, end: float | None, settings: Video) -> Clip:
        self.decodes += 1
        worker = shared_worker() if self._worker is None else self._worker
        return worker.clip(path, settings, start=start, end=end, factor=self.factor)
