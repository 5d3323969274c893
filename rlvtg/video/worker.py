"""Decoding in a process of its own, which is killed when a video takes too long and replaced when it dies.

A broken file can make a decoder hang in C code, where no Python signal reaches it, or take its process down. The
process is started once, imports no torch, and hands frames over through a pipe.
"""

import functools
import os
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rlvtg.recipe import RecipeError, Video
from rlvtg.video.backend import decoder
from rlvtg.video.decode import Clip, read_clip
from rlvtg.video.index import CRASHED, TIMED_OUT, VideoError, read_index

# Seconds that the process may take to import numpy and PyAV on a machine that is busy with other things.
STARTUP = 120.0


@dataclass(frozen=True)
class Probe:
    """What a video file says of itself without a picture being decoded."""

    duration: float  # seconds
    frames: int
    width: int  # as stored, before any rotation
    height: int


class DecodeWorker:
    """Reads clips as `read_clip` does, in a process of its own.

    The process starts with the first request, ends with this one, and is started anew by a request that finds it gone
    and by one from a forked process. Requests of several threads wait for each other.
    """

    def __init__(self) -> None:
        self.starts = 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._owner = 0  # the process that started it
        self._midway = False  # an answer is owed or half read: the next request must not take it for its own
        self._end: weakref.finalize[Any, Any] | None = None

    @property
    def pid(self) -> int | None:
        """Id of the process, None when there is none."""
        return None if self._process is None else self._process.pid

    def clip(
        self,
        path: str | os.PathLike[str],
        settings: Video,
        *,
        start: float | None = None,
        end: float | None = None,
        factor: int = 28,
    ) -> Clip:
        """The clip of `read_clip` with the same arguments.

        Raises VideoError as it does, and when the video took longer than `settings.decode_timeout` or the decoder
        crashed over it.
        """
        with self._lock:
            found: Clip = self._ask("clip", path, settings, start, end, factor, timeout=settings.decode_timeout)
            return found

    def probe(self, path: str | os.PathLike[str], timeout: float) -> Probe:
        """What the file says of itself within `timeout` seconds; raises VideoError as `clip` does."""
        with self._lock:
            found: Probe = self._ask("probe", path, timeout=timeout)
            return found

    def close(self) -> None:
        """End the process."""
        if self._end is not None:
            self._end()
        self._process, self._pipe, self._end = None, None, None

    def _ask(self, kind: str, path: str | os.PathLike[str], *values: object, timeout: float) -> Any:
        """The answer to a request; an error that the process answers with is raised."""
        pipe = self._running()
        self._midway = True
        try:
            # The process has the working directory in which this one was when it started.
            pipe.send((kind, os.path.abspath(path), *values))
            if not pipe.poll(timeout):
                self.close()
                raise VideoError(path, f"decoding took longer than {timeout:g} s", TIMED_OUT)
            answer = pipe.recv()
            if isinstance(answer, tuple):
                shape, timestamps, duration = answer
                answer = Clip(np.empty(shape, np.uint8), timestamps, duration)
                pipe.recv_bytes_into(answer.frames.data.cast("B"))
        except (EOFError, OSError) as error:
            raise self._crashed(path) from error
        self._midway = False
        if isinstance(answer, VideoError):
            raise VideoError(path, answer.reason, answer.kind)
        if isinstance(answer, RecipeError):
            raise answer
        return answer

    def _crashed(self, path: str | os.PathLike[str]) -> VideoError:
        code = None if self._process is None else self._process.wait(STARTUP)
        self.close()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        return VideoError(path, f"the decoder crashed ({how})", CRASHED)

    def _running(self) -> Connection:
        alive = self._process is not None and self._owner == os.getpid() and self._process.poll() is None
        if alive and self._pipe is not None and not self._midway:
            return self._pipe
        self.close()
        ours, theirs = Pipe()
        # The child finds what this process finds, wherever that came from.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from rlvtg.video.worker import main; main()", str(theirs.fileno())],
            stdin=subprocess.PIPE,
            env=environment,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # an interrupt at the terminal is for this process
        )
        theirs.close()
        self._pipe, self._owner, self._midway = ours, os.getpid(), True
        self.starts += 1
        self._end = weakref.finalize(self, _end, self._process, ours, self._owner)
        try:
            if not ours.poll(STARTUP):
                raise RuntimeError(f"the decoding process did not start within {STARTUP:g} s")
            ours.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError("the decoding process ended before it was ready; its error stands above") from error
        return ours


def _end(process: subprocess.Popen[bytes], pipe: Connection, owner: int) -> None:
    pipe.close()
    if process.stdin is not None:
        process.stdin.close()
    if owner == os.getpid():
        process.kill()
        process.wait()


@functools.cache
def shared_worker() -> DecodeWorker:
    """The worker of all who decode one video after another in this process; one start serves them all."""
    return DecodeWorker()


# A forked process may have been copied in the midst of a request, whose thread it does not have.
os.register_at_fork(after_in_child=shared_worker.cache_clear)


def serve(pipe: Connection) -> None:
    """Answer requests until the other end is closed."""
    pipe.send("ready")
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            if request[0] == "probe":
                index = read_index(request[1])
                pipe.send(Probe(float(index.duration), len(index.pts), index.width, index.height))
                continue
            _, path, settings, start, end, factor = request
            decoder(settings.backend)  # a package that is missing is no fault of the video
            clip = read_clip(path, settings, start=start, end=end, factor=factor)
        except (VideoError, RecipeError) as error:
            pipe.send(error)
            continue
        pipe.send((clip.frames.shape, clip.timestamps, clip.duration))
        pipe.send_bytes(np.ascontiguousarray(clip.frames).data.cast("B"))


def main() -> None:
    """The process of a `DecodeWorker`; the file number of its pipe is its only argument."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serve(Connection(int(sys.argv[1])))


def _end_with_parent() -> None:
    """The parent holds the other end of stdin and never writes: it closes when the parent ends, however it ends."""
    sys.stdin.buffer.read()
    os._exit(0)
