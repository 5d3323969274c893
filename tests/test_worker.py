"""A real process decodes, is really stopped and really killed; what comes out is what `read_clip` gives."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rlvtg.recipe import RecipeError
from rlvtg.video.cache import ClipCache
from rlvtg.video.decode import VideoError, read_clip
from rlvtg.video.worker import DecodeWorker, shared_worker
from tests.numbered_video import every_tenth, settings, write_still, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", every_tenth(60))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes longer to decode than a process takes to be killed."""
    return write_still(tmp_path_factory.mktemp("videos") / "slow.mp4", 30, size=(2000, 2000), rate=2)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_clip_is_that_of_read_clip_and_one_process_reads_them_all(video: Path) -> None:
    worker = DecodeWorker()
    for start, end in ((None, None), (1.0, 4.0), (None, 2.5)):
        ours = worker.clip(video, settings(), start=start, end=end, factor=14)
        theirs = read_clip(video, settings(), start=start, end=end, factor=14)
        assert (ours.frames == theirs.frames).all() and (ours.timestamps == theirs.timestamps).all()
        assert (ours.duration, ours.frames.dtype) == (theirs.duration, np.uint8)
    found = worker.probe(video, 60)
    assert (found.frames, found.width, found.height) == (60, 112, 84)
    assert found.duration == pytest.approx(6.0)
    assert worker.starts == 1


def test_errors_come_through_with_path_reason_and_kind_and_the_process_lives_on(video: Path, tmp_path: Path) -> None:
    worker = DecodeWorker()
    with pytest.raises(VideoError, match="none.mp4: no such file"):
        worker.clip(tmp_path / "none.mp4", settings())
    (tmp_path / "a.mp4").write_bytes(b"404: Not Found" * 50)
    with pytest.raises(VideoError, match="cannot be decoded") as caught:
        worker.probe(tmp_path / "a.mp4", 60)
    assert (caught.value.path, caught.value.kind) == (str(tmp_path / "a.mp4"), "unreadable video")
    with pytest.raises(VideoError, match="window") as caught:
        worker.clip(video, settings(), start=8.0, end=9.0)
    assert caught.value.kind == "bad clip window"
    with pytest.raises(RecipeError, match="video.backend: got 'ffmpeg', allowed: pyav"):
        worker.clip(video, settings(backend="ffmpeg"))
    assert len(worker.clip(video, settings()).frames) == 12
    assert worker.starts == 1


def test_a_decoder_that_hangs_is_killed_and_the_next_video_is_read(video: Path) -> None:
    worker = DecodeWorker()
    worker.probe(video, 60)
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # from here on it makes no progress, as in an endless loop of C code
    started = time.monotonic()
    with pytest.raises(VideoError, match=r"a.mp4: decoding took longer than 0.5 s") as caught:
        worker.clip(video, settings(decode_timeout=0.5))
    assert 0.4 < time.monotonic() - started < 20
    assert caught.value.kind == "timed out"
    assert not is_running(pid)
    assert len(worker.clip(video, settings()).frames) == 12
    assert worker.starts == 2


def test_a_video_that_takes_too_long_is_given_up(slow: Path, video: Path) -> None:
    worker = DecodeWorker()
    worker.probe(slow, 60)
    with pytest.raises(VideoError, match="slow.mp4: decoding took longer than 0.05 s"):
        worker.clip(slow, settings(decode_timeout=0.05))
    assert len(worker.clip(video, settings()).frames) == 12


def test_a_decoder_that_is_killed_while_it_decodes_is_an_error_of_that_video_alone(slow: Path, video: Path) -> None:
    worker = DecodeWorker()
    worker.probe(video, 60)
    pid = worker.pid
    assert pid is not None
    timer = threading.Timer(0.1, os.kill, (pid, signal.SIGKILL))
    timer.start()
    with pytest.raises(VideoError, match=r"slow.mp4: the decoder crashed \(signal 9\)") as caught:
        worker.clip(slow, settings())
    timer.join()
    assert caught.value.kind == "decoder crashed"
    assert len(worker.clip(video, settings()).frames) == 12


def test_a_process_that_died_between_two_videos_is_replaced_without_a_word(video: Path) -> None:
    worker = DecodeWorker()
    worker.probe(video, 60)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(0.2)
    assert worker.probe(video, 60).frames == 60


def test_the_process_ends_with_its_owner_however_that_ends(video: Path) -> None:
    worker = DecodeWorker()
    worker.probe(video, 60)
    pid = worker.pid
    assert pid is not None and is_running(pid)
    del worker
    gc.collect()
    assert not is_running(pid)
    code = (
        "import os, signal, sys\nfrom rlvtg.video.worker import DecodeWorker, shared_worker\n"
        "for worker in (DecodeWorker(), shared_worker()):\n"
        "    worker.probe(sys.argv[1], 60)\n    print(worker.pid, flush=True)\n"
    )
    assert not any(is_zombie_or_running(pid) for pid in printed_pids(code, video))
    orphans = printed_pids(code + "os.kill(os.getpid(), signal.SIGKILL)", video)
    deadline = time.monotonic() + 10
    while any(map(is_zombie_or_running, orphans)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_zombie_or_running, orphans))


def printed_pids(code: str, video: Path) -> list[int]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run([sys.executable, "-c", code, str(video)], env=environment, capture_output=True, text=True)
    pids = [int(line) for line in done.stdout.splitlines()]
    assert len(pids) == 2
    return pids


def is_zombie_or_running(pid: int) -> bool:
    """Whether a process that is not our child still works; where nobody collects orphans they stay as zombies."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_forked_process_reads_with_a_worker_of_its_own(video: Path) -> None:
    worker = DecodeWorker()
    worker.probe(video, 60)
    ours = worker.pid
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        frames = worker.probe(video, 60).frames
        os.write(writer, f"{frames} {worker.pid != ours}".encode())
        worker.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"60 True"
    assert (worker.probe(video, 60).frames, worker.pid, worker.starts) == (60, ours, 1)


def test_all_caches_of_a_process_share_a_worker(video: Path) -> None:
    shared_worker().close()
    starts = shared_worker().starts
    for _ in range(3):
        ClipCache(settings(), 0).get(video)
    assert shared_worker().starts == starts + 1
    own = DecodeWorker()
    ClipCache(settings(), 0, worker=own).get(video)
    assert (own.starts, shared_worker().starts) == (1, starts + 1)


def test_a_path_is_one_of_the_directory_in_which_it_is_asked_for(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = DecodeWorker()
    worker.probe(video, 60)
    monkeypatch.chdir(video.parent)
    assert worker.probe(video.name, 60).frames == 60
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match=r"^a.mp4: no such file"):
        worker.probe(video.name, 60)
    assert worker.starts == 1


def test_the_answer_to_a_request_that_was_interrupted_is_not_that_of_the_next(slow: Path, video: Path) -> None:
    worker = DecodeWorker()
    worker.probe(video, 60)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            worker.clip(slow, settings())
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (worker.clip(video, settings()).frames == read_clip(video, settings()).frames).all()
    assert worker.starts == 2


def test_a_process_that_is_forked_in_the_midst_of_a_request_has_a_shared_worker_of_its_own(
    slow: Path, video: Path
) -> None:
    ours = shared_worker()
    ours.probe(video, 60)
    pid = ours.pid
    asking = threading.Thread(target=ours.clip, args=(slow, settings()))
    asking.start()
    time.sleep(0.1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        frames = shared_worker().probe(video, 60).frames
        os.write(writer, f"{frames} {shared_worker().pid != pid}".encode())
        shared_worker().close()
        os._exit(0)
    os.waitpid(child, 0)
    asking.join()
    assert os.read(reader, 100) == b"60 True"
    assert shared_worker() is ours and (ours.probe(video, 60).frames, ours.pid) == (60, pid)


def test_the_process_loads_no_torch() -> None:
    code = "import sys, rlvtg.video.worker\nprint([name for name in ('torch', 'transformers') if name in sys.modules])"
    root = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {"PYTHONPATH": root}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).stdout == b"[]\n"
