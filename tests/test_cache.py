import os
from functools import partial
from pathlib import Path

import pytest

from rlvtg.video.cache import ClipCache
from rlvtg.video.decode import VideoError
from tests import numbered_video
from tests.numbered_video import write_grey

CLIP_BYTES = 4 * 84 * 112 * 3


settings = partial(numbered_video.settings, max_frames=4)


def test_other_settings_for_one_request_are_not_mixed_up_with_the_caches_own(tmp_path: Path) -> None:
    video = write_grey(tmp_path / "a.mp4", 100)
    cache = ClipCache(settings(), 10**9)
    counts = [len(cache.get(video, settings=each).frames) for each in (None, settings(max_frames=2, min_frames=2))]
    assert counts == [4, 2]
    assert len(cache.get(video).frames) == 4 and (cache.decodes, cache.hits) == (2, 1)


def test_a_clip_is_decoded_once_for_all_who_ask(tmp_path: Path) -> None:
    cache = ClipCache(settings(), max_bytes=10**6)
    path = write_grey(tmp_path / "a.mp4", 50)
    clips = [cache.get(path) for _ in range(8)]
    assert (cache.decodes, cache.hits) == (1, 7)
    assert all(clip is clips[0] for clip in clips)


def test_each_window_of_a_file_is_a_clip_of_its_own(tmp_path: Path) -> None:
    cache = ClipCache(settings(), max_bytes=10**6)
    path = write_grey(tmp_path / "a.mp4", 50)
    assert cache.get(path, 0.0, 1.0).duration == pytest.approx(1.0)
    assert cache.get(path, 0.5, 2.0).duration == pytest.approx(1.5)
    assert cache.get(path).duration == pytest.approx(2.0)
    assert (cache.decodes, cache.hits) == (3, 0)


def test_a_file_that_changed_is_decoded_again(tmp_path: Path) -> None:
    cache = ClipCache(settings(), max_bytes=10**6)
    path = write_grey(tmp_path / "a.mp4", 50)
    assert cache.get(path).frames.mean() == pytest.approx(50, abs=3)
    write_grey(path, 150)
    os.utime(path, ns=(1, 1))
    assert cache.get(path).frames.mean() == pytest.approx(150, abs=3)
    assert (cache.decodes, cache.hits) == (2, 0)


def test_changed_settings_are_never_answered_with_old_frames(tmp_path: Path) -> None:
    cache = ClipCache(settings(), max_bytes=10**6)
    path = write_grey(tmp_path / "a.mp4", 50)
    assert len(cache.get(path).frames) == 4
    cache.settings.max_frames = 2
    assert len(cache.get(path).frames) == 2
    cache.settings.max_frames = 4
    assert len(cache.get(path).frames) == 4
    assert (cache.decodes, cache.hits) == (2, 1)


def test_the_least_recently_used_clip_leaves_when_the_bytes_are_spent(tmp_path: Path) -> None:
    cache = ClipCache(settings(), max_bytes=2 * CLIP_BYTES)
    a, b, c = (write_grey(tmp_path / f"{name}.mp4", 50) for name in "abc")
    cache.get(a)
    cache.get(b)
    cache.get(a)
    cache.get(c)  # b leaves
    assert cache.bytes == 2 * CLIP_BYTES
    assert (cache.decodes, cache.hits) == (3, 1)
    cache.get(a)
    assert (cache.decodes, cache.hits) == (3, 2)
    cache.get(b)
    assert (cache.decodes, cache.hits) == (4, 2)


def test_a_clip_above_the_budget_is_returned_but_not_kept(tmp_path: Path) -> None:
    cache = ClipCache(settings(), max_bytes=CLIP_BYTES - 1)
    path = write_grey(tmp_path / "a.mp4", 50)
    assert len(cache.get(path).frames) == len(cache.get(path).frames) == 4
    assert (cache.decodes, cache.hits, cache.bytes) == (2, 0, 0)


def test_a_failure_is_raised_every_time_and_not_remembered(tmp_path: Path) -> None:
    cache = ClipCache(settings(), max_bytes=10**6)
    for _ in range(2):
        with pytest.raises(VideoError, match="no such file"):
            cache.get(tmp_path / "a.mp4")
    write_grey(tmp_path / "a.mp4", 50)
    assert len(cache.get(tmp_path / "a.mp4").frames) == 4
