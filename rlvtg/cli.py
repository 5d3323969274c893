"""The console script `rlvtg VERB ...`. A verb is thin: it states its arguments and calls the module that does the work.

`accelerate launch rlvtg/train.py` trains; the verbs are for what comes before and after. A verb is one function that
adds its parser and sets `run`, named in VERBS. It imports what it needs when it runs, so that `--help` is quick.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PICTURES = (".png", ".pdf", ".svg")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that `argv` (None: the command line) names; returns the exit status, 2 for what its user can mend.

    Words that no argument of the verb takes, wherever they stand, are its `key=value` words.
    """
    parser = argparse.ArgumentParser(prog="rlvtg", description="Tools around rlvtg's training runs.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        verb(verbs)
    arguments, words = parser.parse_known_args(argv)
    options = [word for word in words if word.startswith("-")]
    if options:
        parser.error(f"unrecognized arguments: {' '.join(options)}")
    from rlvtg.mistakes import exit_status

    return exit_status(lambda: arguments.run(arguments, words))


def _reward(verbs: Any) -> None:
    """`rlvtg reward NAME COMPLETIONS`: try a reward on logged completions."""

    def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        from rlvtg import tryout
        from rlvtg.recipe import knobs

        trial = tryout.score(arguments.name, arguments.completions, knobs(words))
        print(tryout.report(trial, arguments.limit))
        if arguments.output:
            tryout.write(trial, arguments.output)
        if arguments.plot:
            tryout.plot(trial, arguments.plot)
        return 0

    parser = verbs.add_parser(
        "reward",
        usage="rlvtg reward NAME COMPLETIONS [key=value ...] [--limit N] [--output FILE] [--plot FILE]",
        help="try a reward on logged completions",
        description="Scores logged completions with a reward: the value of each row, and a summary of all. "
        "key=value words set the reward's knobs, over what the run's recipe sets.",
    )
    parser.add_argument("name", metavar="NAME", help="a file of rewards/, pkg.mod.fn or path/to/file.py:fn")
    parser.add_argument(
        "completions",
        metavar="COMPLETIONS",
        help="a .jsonl (rows with completion and the reward's columns, e.g. an evaluation's predictions), "
        "a .parquet of a run, or the folder of a run, of its stage or of its completions",
    )
    parser.add_argument("--limit", type=_count, default=20, metavar="N", help="rows to show; all are scored (20)")
    parser.add_argument("--output", metavar="FILE", help="write every row with its value as JSON lines")
    parser.add_argument("--plot", type=_picture, metavar="FILE", help="draw the histogram of the values (.png)")
    parser.set_defaults(run=run)


VERBS: tuple[Callable[[Any], None], ...] = (_reward,)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, want a number of rows, 0 or more")
    return int(text)


def _picture(text: str) -> str:
    if Path(text).suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"got {text!r}, want a file that ends in {', '.join(PICTURES)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
