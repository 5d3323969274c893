"""Entry point: `accelerate launch rlvtg/train.py recipe=NAME [scale=tiny] [key=value ...]`."""

import gc
import os
import sys

from rlvtg.disk import writing
from rlvtg.mistakes import exit_status
from rlvtg.prepare import prepare
from rlvtg.recipe import load


def main(argv: list[str]) -> int:
    """Run the recipe that `argv` names; returns the exit status, 2 for what its author can mend."""
    return exit_status(lambda: _train(argv))


def _train(argv: list[str]) -> int:
    recipe = load(argv)
    # the first process makes data and writes lists; the others wait for it in `run`
    with writing(recipe.output_dir):
        prepared = prepare(recipe) if os.environ.get("RANK", "0") == "0" else None
    # torch loads here: what is wrong with recipe, rewards and rows has been said. Nothing of it is ever garbage, and
    # looking through all of it again and again, now and in every collection of a training, takes time
    gc.disable()
    from rlvtg.run import run

    gc.enable()
    gc.freeze()
    return run(recipe, prepared)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
