"""Files and folders that are whole or not there, whatever happens while they are written."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlvtg.disk import DiskError, refusal, remove, remove_unfinished, unfinished, whole_folder, write_whole, writing


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "new/a.json", "one")
    write_whole(tmp_path / "new/a.json", "two")
    assert (tmp_path / "new/a.json").read_text() == "two"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_a_folder_that_is_not_filled_well_leaves_the_one_before(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "merged") as made:
        (made / "weights").write_text("one")
        assert not (tmp_path / "merged").exists()
    with pytest.raises(ValueError, match="half way"), whole_folder(tmp_path / "merged") as made:
        (made / "weights").write_text("two")
        raise ValueError("half way")
    assert (tmp_path / "merged/weights").read_text() == "one"
    with whole_folder(tmp_path / "merged") as made:
        (made / "other").write_text("three")
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["other"]
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib; from rlvtg.disk import whole_folder\n"
        "with whole_folder(sys.argv[1]) as made:\n"
        "    (made / 'half').write_text('x'); time.sleep(60)"
    )
    place = tmp_path / "stage/merged"
    process = subprocess.Popen([sys.executable, "-c", script, str(place)])
    while not list(tmp_path.rglob("half")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    unfinished(tmp_path / "stage/log.json", "77").write_text("{")
    (tmp_path / "stage/.hidden").write_text("mine")
    assert not place.exists()
    remove_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / "stage").iterdir()] == [".hidden"]


def test_removing_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    remove(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["text", "torch", "safetensors"])
def test_a_refused_write_is_told_from_other_errors_whoever_writes(tmp_path: Path, how: str) -> None:
    file = tmp_path / "big"
    weights = {"a": torch.zeros(100_000)}
    write = {
        "text": lambda: write_whole(file, "x" * 400_000),
        "torch": lambda: torch.save(weights, file),
        "safetensors": lambda: save_file(weights, file),
    }[how]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with (
            pytest.raises(DiskError, match=r"^the weights could not be written: .*(File too large|file of this size)$"),
            writing("the weights"),
        ):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "x"), os.strerror(errno.ENOSPC)),
        (FileNotFoundError(errno.ENOENT, "x"), None),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space left"),
        (RuntimeError("PytorchStreamReader failed in inline_container.cc"), None),
        (RuntimeError("CUDA out of memory"), None),
    ],
)
def test_only_the_disks_refusals_are_the_disks(error: Exception, reason: str | None) -> None:
    found = refusal(error)
    assert found is None if reason is None else found is not None and reason in found
    with pytest.raises(type(error) if reason is None else DiskError), writing("it"):
        raise error
