"""Entry point: `accelerate launch rlvtg/train.py recipe=NAME [scale=tiny] [key=value ...]`."""

import os
import sys

from rlvtg.data.sample import DataError
from rlvtg.prepare import prepare
from rlvtg.recipe import RecipeError, load
from rlvtg.reward import RewardError
from rlvtg.text.annotation import AnnotationError
from rlvtg.text.grammar import GrammarError
from rlvtg.video.index import VideoError


def main(argv: list[str]) -> int:
    """Run the recipe that `argv` names; returns the exit status, 2 for what its author can mend."""
    try:
        recipe = load(argv)
        # the first process makes data and writes lists; the others wait for it in `run`
        prepared = prepare(recipe) if os.environ.get("RANK", "0") == "0" else None
        from rlvtg.run import run  # torch loads here: what is wrong with recipe, rewards and rows has been said

        return run(recipe, prepared)
    except (RecipeError, RewardError, GrammarError, DataError, AnnotationError, VideoError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
