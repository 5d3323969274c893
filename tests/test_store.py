import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from rlvtg.video.cache import ClipCache
from rlvtg.video.decode import Clip
from rlvtg.video.store import ClipStore
from tests.numbered_video import write_grey
from tests.test_cache import settings

LARGE = 10**9


def clip(value: int, frames: int = 2) -> Clip:
    return Clip(np.full((frames, 28, 28, 3), value, np.uint8), np.arange(frames, dtype=np.float64), float(frames))


ENTRY = 2 * 28 * 28 * 3


def test_a_second_run_reads_what_the_first_decoded(tmp_path: Path) -> None:
    video = write_grey(tmp_path / "a.mp4", 50)
    first = ClipCache(settings(), LARGE, store=ClipStore(tmp_path / "store", LARGE))
    second = ClipCache(settings(), LARGE, store=ClipStore(tmp_path / "store", LARGE))
    made, read = first.get(video), second.get(video)
    assert (first.decodes, first.reads, second.decodes, second.reads) == (1, 0, 0, 1)
    assert np.array_equal(made.frames, read.frames) and made.frames.dtype == read.frames.dtype
    assert np.array_equal(made.timestamps, read.timestamps) and made.duration == read.duration


def test_without_memory_a_second_epoch_decodes_nothing(tmp_path: Path) -> None:
    videos = [write_grey(tmp_path / f"{name}.mp4", 50 + k) for k, name in enumerate("abc")]
    cache = ClipCache(settings(), 0, store=ClipStore(tmp_path / "store", LARGE))
    for _ in range(2):
        for video in videos:
            cache.get(video)
    assert (cache.decodes, cache.reads, cache.hits) == (3, 3, 0)


def test_a_clip_is_known_by_content_window_and_settings_not_by_path_or_date(tmp_path: Path) -> None:
    video = write_grey(tmp_path / "a.mp4", 50)
    moved = Path(shutil.copy(video, tmp_path / "b.mp4"))
    os.utime(moved, (1, 1))
    store = ClipStore(tmp_path / "store", LARGE)
    name = store.name(video, None, None, fps=2.0)
    assert store.name(moved, None, None, fps=2.0) == name
    assert store.name(video, 0.0, None, fps=2.0) != name
    assert store.name(video, None, None, fps=1.0) != name
    status = os.stat(video)
    write_grey(video, 51)
    os.utime(video, ns=(status.st_mtime_ns + 10, status.st_mtime_ns + 10))
    assert store.name(video, None, None, fps=2.0) != name


def test_a_video_is_read_once_for_the_names_of_all_its_clips_in_all_stores(tmp_path: Path) -> None:
    video = write_grey(tmp_path / "a.mp4", 50)
    status = os.stat(video)
    names = [ClipStore(tmp_path, LARGE).name(video, None, None)]
    video.write_bytes(bytes(status.st_size))
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))  # nothing says that it changed
    names.append(ClipStore(tmp_path / "store", LARGE).name(video, None, None))
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns + 10))
    names.append(ClipStore(tmp_path, LARGE).name(video, None, None))
    assert names[0] == names[1] != names[2]


def test_a_clip_that_is_asked_for_is_used(tmp_path: Path) -> None:
    store = ClipStore(tmp_path, 2 * ENTRY + 2000)
    assert not store.holds("aa")
    for number, name in enumerate(["aa", "bb"]):
        store.write(name, clip(number))
        os.utime(tmp_path / name / f"{name}.npz", (number, number))
    assert store.holds("aa")
    store.write("cc", clip(2))
    assert [store.holds(name) for name in ("aa", "bb", "cc")] == [True, False, True]


def test_the_least_recently_used_clips_leave_when_the_bytes_are_spent(tmp_path: Path) -> None:
    store = ClipStore(tmp_path, 3 * ENTRY + 3000)
    for number, name in enumerate(["aa", "bb", "cc"]):
        store.write(name, clip(number))
        os.utime(tmp_path / name / f"{name}.npz", (number, number))
    assert store.read("aa") is not None  # used now
    store.write("dd", clip(3))
    assert store.read("bb") is None
    assert all(store.read(name) is not None for name in ["aa", "cc", "dd"])
    assert store.bytes() <= store.max_bytes
    store.write("ee", clip(4, frames=20))
    assert store.read("ee") is None and store.read("dd") is not None  # larger than the budget: nothing gives way


def test_the_folder_is_looked_at_when_it_may_be_full_and_not_for_every_clip(tmp_path: Path, monkeypatch) -> None:
    walked = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *args: walked.append(1) or walk(*args))
    store = ClipStore(tmp_path, 100 * (ENTRY + 1000))
    for number in range(60):
        store.write(f"{number:04}", clip(number))
    assert 1 < len(walked) <= 13


@pytest.mark.parametrize("harm", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 300])
def test_a_damaged_entry_is_decoded_anew(tmp_path: Path, harm) -> None:
    video = write_grey(tmp_path / "a.mp4", 50)
    ClipCache(settings(), LARGE, store=ClipStore(tmp_path / "store", LARGE)).get(video)
    [entry] = (tmp_path / "store").rglob("*.npz")
    whole = entry.read_bytes()
    entry.write_bytes(harm(whole))
    cache = ClipCache(settings(), LARGE, store=ClipStore(tmp_path / "store", LARGE))
    assert len(cache.get(video).frames) == 4
    assert (cache.decodes, cache.reads) == (1, 0)
    assert len(entry.read_bytes()) == len(whole)


def test_a_store_that_cannot_be_written_is_warned_of_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    cache = ClipCache(settings(), 0, store=ClipStore(tmp_path / "store", LARGE))
    video = write_grey(tmp_path / "a.mp4", 50)
    with pytest.warns(UserWarning, match="no more clips are kept on disk"):
        assert len(cache.get(video).frames) == 4
    assert len(cache.get(video).frames) == 4
    assert cache.decodes == 2


def fill(folder: Path, worker: int) -> None:
    store = ClipStore(folder, 20 * ENTRY)
    for turn in range(100_000):
        number = (worker * 7 + turn) % 40
        store.write(f"{number:02d}", clip(number))
        found = store.read(f"{number:02d}")
        assert found is None or (found.frames == number).all()
        if turn == 60 and worker < 2:
            return


def test_processes_share_a_store_and_a_kill_leaves_it_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(tmp_path, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers[:2]:
        worker.join(60)
    os.kill(workers[2].pid, signal.SIGKILL)  # in the middle of its writing
    workers[2].join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, -signal.SIGKILL]
    store = ClipStore(tmp_path, 20 * ENTRY)
    for entry in tmp_path.rglob("*.npz"):
        assert (store.read(entry.stem).frames == int(entry.stem)).all()
    for part in tmp_path.rglob("*.part"):
        os.utime(part, (1, 1))
    (tmp_path / "xx.1.part").write_bytes(b"half")
    os.utime(tmp_path / "xx.1.part", (time.time() - 7200,) * 2)
    store.write("zz", clip(0))
    assert not list(tmp_path.rglob("*.part"))
    assert store.bytes() <= 20 * ENTRY
