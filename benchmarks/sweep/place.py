"""Where the sweep's files are, counted from the folder in which its command is typed."""

from pathlib import Path

from rlvtg.recipe import SHIPPED

FOLDER = Path("runs/sweep")  # as in recipes/sweep/cold.yaml


def recipe_file(name: str) -> Path:
    """The recipe of a cold start or an arm."""
    return SHIPPED / "sweep" / f"{name}.yaml"


def run_folder(name: str, seed: int) -> Path:
    """Where a run of it lands."""
    return FOLDER / str(seed) / name
