"""Entry point: `accelerate launch rlvtg/train.py recipe=NAME [scale=tiny] [key=value ...]`."""

import sys

from rlvtg.recipe import RecipeError, load


def main(argv: list[str]) -> int:
    """Run the recipe that `argv` names; returns the exit status."""
    try:
        recipe = load(argv)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from rlvtg.run import run  # torch loads here: a bad recipe has already been refused

    return run(recipe)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
