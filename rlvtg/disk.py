"""Files and folders that appear whole or not at all, and what is said when the disk does not take them.

What is being written stands under another name, which ends in `.unfinished`, until it is renamed: a process killed
in between leaves what was there before, and a leftover that `remove_unfinished` finds.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname

UNFINISHED = ".unfinished"
# What the disk says to a write: full, over quota, larger than a file may be, not to be written, broken.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class DiskError(Exception):
    """Something could not be written; the message says what, and why."""


def unfinished(path: str | os.PathLike[str], writer: str | None = None) -> Path:
    """Where a file or folder stands until it is whole: beside its place, so that a rename takes it there.

    Every `writer` has a place of its own; None is this process, of all those on the machines that share the disk.
    """
    path = Path(path)
    return path.with_name(f".{path.name}.{writer or this_process()}{UNFINISHED}")


def this_process() -> str:
    """A name that no other running process has, on this machine or on another."""
    return f"{gethostname()}-{os.getpid()}"


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file that appears whole or not at all, in a folder that is made if absent."""
    part = unfinished(path)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill, which stands at `path` once the block has ended well; one that stood there before gives way."""
    part = unfinished(path)
    part.mkdir(parents=True)
    try:
        yield part
        put(part, Path(path))
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put(made: Path, path: Path) -> None:
    """Rename the folder `made` to `path`, whose old folder gives way."""
    remove(path)
    made.rename(path)


def remove(folder: Path) -> None:
    """Remove a folder, if it is there; it vanishes as a whole, since it gets the name of an unfinished one first."""
    if folder.exists():
        leaving = unfinished(folder, "removed")
        shutil.rmtree(leaving, ignore_errors=True)
        folder.rename(leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes have left below `folder`; nobody else may be writing there."""
    for left in list(folder.rglob(f".*{UNFINISHED}")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def refusal(error: BaseException) -> str | None:
    """What the disk said, if `error` is about a write that it refused; None for any other error.

    Writers in other languages raise errors of their own: safetensors quotes the system, torch.save only says that it
    failed.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in REFUSALS else None
    said = str(error)
    if "inline_container" in said and "PytorchStreamReader" not in said:
        return "the disk is full, or does not take a file of this size"
    return next((os.strerror(code) for code in REFUSALS if os.strerror(code) in said), None)


@contextmanager
def writing(what: str | os.PathLike[str]) -> Iterator[None]:
    """Raises DiskError naming `what` if the disk refuses what the block writes; other errors pass."""
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        raise DiskError(f"{os.fspath(what)} could not be written: {reason}") from error
