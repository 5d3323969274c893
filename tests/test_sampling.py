import importlib
import itertools
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from rlvtg.video.decode import read_clip
from rlvtg.video.sampling import frame_count, frame_indices, frame_size
from tests.numbered_video import write_video


def settings(**changes: object) -> SimpleNamespace:
    values = {
        "fps": 2.0,
        "min_frames": 4,
        "max_frames": 768,
        "min_pixels": 100352,
        "max_pixels": 602112,
        "total_pixels": 19267584,
        "sampling": "linspace",
    }
    return SimpleNamespace(**{**values, **changes})


# Operator schemas live as long as this object.
TORCHVISION = torch.library.Library("torchvision", "FRAGMENT")


@pytest.fixture(scope="module")
def qwen() -> ModuleType:
    """qwen_vl_utils.vision_process, also where torchvision is built for CUDA and torch for the CPU.

    There torchvision fails to import because two operators of its compiled part are not defined.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            TORCHVISION.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("qwen_vl_utils.vision_process")


def test_the_frame_count_is_that_of_qwen_vl_utils(qwen: ModuleType) -> None:
    grid = itertools.product(
        (2, 3, 5, 17, 300, 1801, 23077),
        (7.5, 23.976, 25.0, 29.97, 30.0, 60.0),
        (0.5, 1.0, 2.0, 4.0, 1.7),
        (2, 4, 5),
        (2, 7, 16, 768),
    )
    compared = 0
    for total, video_fps, fps, least, most in grid:
        theirs = {"fps": fps, "min_frames": least, "max_frames": most}
        ours = settings(fps=fps, min_frames=least, max_frames=most)
        assert frame_count(total, video_fps, ours) == qwen.smart_nframes(theirs, total, video_fps), (
            total,
            video_fps,
            theirs,
        )
        compared += 1
    assert compared == 7 * 6 * 5 * 3 * 4


def test_the_frame_indices_are_those_of_qwen_vl_utils_away_from_halves() -> None:
    for total, most in itertools.product((2, 5, 17, 300, 1801, 23077), (2, 6, 16, 100, 768)):
        ours, seconds = frame_indices(np.arange(total) / 30, 30.0, settings(max_frames=most))
        # The expression of qwen-vl-utils, which rounds in float32.
        theirs = torch.linspace(0, total - 1, len(ours)).round().long().numpy()
        exact = np.linspace(0, total - 1, len(ours))
        half = np.abs(exact - np.floor(exact) - 0.5) < 2e-3
        assert (ours == theirs)[~half].all()
        assert (np.abs(ours - theirs) <= 1).all()
        assert (seconds == ours / 30).all()


def test_the_frame_size_is_that_of_qwen_vl_utils(qwen: ModuleType) -> None:
    sizes = ((240, 320), (1080, 1920), (1920, 1080), (37, 999), (28, 28), (486, 646), (720, 1281))
    budgets = ((100352, 602112, 19267584), (12544, 602112, 2809856), (3136, 50176, 90316800), (784, 12544, 100000))
    for (height, width), (least, most, total), frames, factor in itertools.product(
        sizes, budgets, (2, 4, 64, 768), (28, 32)
    ):
        # The cap of fetch_video, which needs a file to run.
        cap = max(min(768 * factor**2, total / frames * 2), int(least * 1.05))
        theirs = qwen.smart_resize(height, width, factor, min_pixels=least, max_pixels=min(most, cap))
        ours = settings(min_pixels=least, max_pixels=most, total_pixels=total)
        if 0 in theirs:
            with pytest.raises(ValueError, match="do not fit"):
                frame_size(height, width, frames, ours, factor)
        else:
            assert frame_size(height, width, frames, ours, factor) == theirs


def test_the_frame_size_is_that_of_a_whole_fetch_by_qwen_vl_utils(qwen: ModuleType) -> None:
    for frames, total, size in ((4, 19267584, (224, 336)), (40, 1000000, (168, 252))):
        ele = {"min_pixels": 12544, "max_pixels": 100352, "total_pixels": total}
        fetched = qwen.fetch_video({"video": [Image.new("RGB", (336, 224))] * frames, **ele})
        assert fetched.shape[-2:] == size
        assert frame_size(224, 336, frames, settings(**ele)) == size


# What papers set, and settings that meet each limit; 8 s at 25 fps are 200 frames.
BUDGETS = {
    "Time-R1": {"fps": 2, "min_pixels": 12544, "total_pixels": 2809856},
    "the package's own": {},
    "frames capped": {"fps": 4, "max_frames": 16, "min_pixels": 3136, "max_pixels": 50176},
    "at least six frames": {"fps": 0.1, "min_frames": 6, "max_pixels": 25088, "min_pixels": 3136},
    "a total that binds": {"fps": 1.7, "min_pixels": 784, "total_pixels": 100352},
    "an odd cap": {"fps": 2, "max_frames": 7, "min_pixels": 784, "max_pixels": 12544},
    "a window": {"fps": 2, "min_pixels": 784, "max_pixels": 12544, "video_start": 1.5, "video_end": 6.5},
    "an end": {"fps": 3, "min_pixels": 784, "max_pixels": 12544, "video_end": 4.0},
}


@pytest.fixture(scope="module", params=[(120, 160), (135, 77)], ids=["even", "odd"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 s at 25 fps with two B-frames, whose brightness and slant move on."""
    path = tmp_path_factory.mktemp("fetched") / "a.mp4"
    times = [40 * k for k in range(200)]
    return write_video(path, times, size=request.param, moving=True, tick=Fraction(1, 12800), rate=25)


@pytest.mark.parametrize("what", BUDGETS)
def test_frames_and_sizes_are_those_that_qwen_vl_utils_fetches_from_the_file(
    qwen: ModuleType, video: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen, "get_video_reader_backend", lambda: "decord")
    ele = BUDGETS[what]
    fetched, sampled_fps = qwen.fetch_video({"video": str(video), **ele}, return_video_sample_fps=True)
    theirs, metadata = qwen._read_video_decord({"video": str(video), **ele})[:2]
    patch = 28**2
    defaults = {"min_pixels": 128 * patch, "max_pixels": 768 * patch, "total_pixels": int(128000 * patch * 0.9)}
    given = {key: value for key, value in ele.items() if not key.startswith("video_")}
    ours = settings(**(defaults | given), backend="pyav")
    clip = read_clip(video, ours, start=ele.get("video_start"), end=ele.get("video_end"))
    assert clip.frames.shape[:3] == (len(fetched), *fetched.shape[2:])
    first = ele.get("video_start", 0.0)
    shown = np.round((clip.timestamps + first) * 25).astype(int)
    # Theirs takes the frame at video_end too, so the last indices of a window may differ by the one frame.
    apart = np.abs(shown - np.asarray(metadata["frames_indices"]))
    assert apart.max() <= (1 if first or "video_end" in ele else 0)
    assert theirs.shape[0] == len(clip.frames)
    if apart.max() == 0:
        # Pillow and torchvision resize alike up to rounding and the edges of their kernels.
        assert np.abs(clip.frames.astype(float) - fetched.permute(0, 2, 3, 1).numpy()).mean() < 1.0
        assert sampled_fps == pytest.approx(len(clip.frames) / clip.duration, rel=0.02)


def test_a_minute_at_two_fps_gives_120_frames_and_a_long_video_the_cap() -> None:
    assert frame_count(1800, 30.0, settings()) == 120
    assert frame_count(769 * 30, 30.0, settings()) == 768
    assert frame_count(1800, 30.0, settings(max_frames=16)) == 16


def test_interval_sampling_shows_the_frame_on_display_at_round_seconds() -> None:
    times = np.array([0.0, 0.3, 0.9, 1.0, 1.2, 1.9])
    indices, seconds = frame_indices(times, 3.0, settings(sampling="interval"))
    assert seconds.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert indices.tolist() == [0, 1, 3, 4]


def test_interval_sampling_repeats_the_last_frame_to_make_the_count_even() -> None:
    indices, seconds = frame_indices(np.arange(16) / 10, 10.0, settings(sampling="interval"))
    assert indices.tolist() == [0, 5, 10, 10]
    assert seconds.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert frame_count(1, 10.0, settings(sampling="interval")) == 2


def test_interval_sampling_widens_the_interval_until_the_frames_fit() -> None:
    indices, seconds = frame_indices(np.arange(100) / 10, 10.0, settings(sampling="interval", max_frames=7))
    assert seconds.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert indices.tolist() == [0, 20, 40, 60, 80, 80]
    for seconds_long in range(1, 60):
        assert frame_count(seconds_long * 10, 10.0, settings(sampling="interval", max_frames=7)) in (2, 4, 6)


def test_a_broadcast_frame_rate_still_gives_round_seconds() -> None:
    indices, seconds = frame_indices(np.arange(300) * 1001 / 30000, 30000 / 1001, settings(sampling="interval"))
    assert seconds.tolist() == [k / 2 for k in range(20)]
    # Frame 15 appears at 0.5005 s, within the tolerance of a millisecond; frame 30 at 1.001 s.
    assert indices.tolist()[:3] == [15 * k for k in range(3)]


@pytest.mark.parametrize(
    ("total", "video_fps", "changes", "message"),
    [
        (1, 30.0, {}, "at least 2"),
        (0, 30.0, {}, "above zero"),
        (10, 0.0, {}, "above zero"),
        (10, 30.0, {"max_frames": 1}, "max_frames is 1"),
        (10, 30.0, {"sampling": "random"}, "'linspace' or 'interval'"),
    ],
)
def test_impossible_counts_are_errors(total: int, video_fps: float, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frame_count(total, video_fps, settings(**changes))


def test_contradicting_pixel_settings_and_ribbons_are_errors() -> None:
    with pytest.raises(ValueError, match="max_pixels is 784"):
        frame_size(100, 100, 4, settings(max_pixels=784))
    with pytest.raises(ValueError, match="200 times"):
        frame_size(1, 300, 4, settings())
