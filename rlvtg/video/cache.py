"""Clips in memory: a video is decoded once, however many completions, passes and epochs look at it."""

import os
from collections import OrderedDict

from rlvtg.recipe import Video
from rlvtg.video.decode import Clip
from rlvtg.video.index import VideoError
from rlvtg.video.worker import DecodeWorker

_SETTINGS = ("fps", "min_frames", "max_frames", "min_pixels", "max_pixels", "total_pixels", "sampling", "backend")


class ClipCache:
    """At most `max_bytes` of sampled clips under one set of video settings; the least recently used go first.

    `decodes` counts the videos that were decoded, `hits` the requests answered from memory. Clips are shared: do not
    write into them.
    """

    def __init__(self, settings: Video, max_bytes: int, *, factor: int = 28) -> None:
        self.settings = settings
        self.max_bytes = max_bytes
        self.factor = factor
        self.decodes = 0
        self.hits = 0
        self.bytes = 0
        self._worker = DecodeWorker(settings.decode_timeout)
        self._clips: OrderedDict[tuple[object, ...], Clip] = OrderedDict()

    def get(self, path: str | os.PathLike[str], start: float | None = None, end: float | None = None) -> Clip:
        """The clip of `read_clip(path, settings, start=start, end=end)`, from memory if file and settings are the same.

        Raises VideoError as `read_clip` does, and when decoding hangs or crashes; a failure is not remembered.
        """
        try:
            status = os.stat(path)
        except OSError as error:
            raise VideoError(path, "no such file" if isinstance(error, FileNotFoundError) else str(error)) from error
        values = tuple(getattr(self.settings, name) for name in _SETTINGS)
        key = (os.path.abspath(path), status.st_size, status.st_mtime_ns, start, end, self.factor, *values)
        if key in self._clips:
            self.hits += 1
            self._clips.move_to_end(key)
            return self._clips[key]
        self.decodes += 1
        clip = self._worker.clip(path, self.settings, start=start, end=end, factor=self.factor)
        if clip.frames.nbytes <= self.max_bytes:
            self._clips[key] = clip
            self.bytes += clip.frames.nbytes
            while self.bytes > self.max_bytes:
                _, dropped = self._clips.popitem(last=False)
                self.bytes -= dropped.frames.nbytes
        return clip
