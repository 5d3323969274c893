"""The file of a video that annotations only name."""

from pathlib import Path

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def video_file(folder: str, name: str) -> str:
    """`folder/name` if the name ends in one of SUFFIXES, in either case; else the first of these files that is there.

    Where there is none it is `folder/name.mp4`, which will be reported as missing.
    """
    if Path(name).suffix.lower() in SUFFIXES:
        return str(Path(folder) / name)
    files = [Path(folder) / f"{name}{suffix}" for suffix in SUFFIXES]
    return str(next((file for file in files if file.is_file()), files[0]))
