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


def _data(verbs: Any) -> None:
    """`rlvtg data check|convert`: look at annotations, and write them in our own format."""

    def check(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        from rlvtg.data.oddities import report

        text, bad = report(_samples(arguments, words), files=arguments.videos is not None)
        print(text)
        return 1 if bad else 0

    def convert(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        from rlvtg.data import jsonl
        from rlvtg.data.oddities import report

        samples = _samples(arguments, words)
        text, _ = report(samples, files=False)
        jsonl.write(samples, arguments.output, arguments.videos, force=arguments.force)
        print(f"{arguments.output}: {text}")
        return 0

    parser = verbs.add_parser("data", help="check annotations, or convert them to rlvtg's own format")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("--reader", required=True, metavar="NAME", help="the format: charades_sta, jsonl, ... (docs)")
    source.add_argument("--annotations", required=True, metavar="FILE")

    checker = actions.add_parser(
        "check",
        parents=[source],
        help="count what is odd in annotations",
        description="Counts what is odd and which rows are bad. Exit status 1 if any row is bad.",
    )
    where = checker.add_mutually_exclusive_group(required=True)
    where.add_argument("--videos", metavar="DIR", help="the folder of the videos, which are looked for")
    where.add_argument("--no-videos", action="store_const", const=None, dest="videos", help="do not look for videos")
    checker.set_defaults(run=check)

    converter = actions.add_parser(
        "convert",
        parents=[source],
        help="write annotations as rlvtg's JSON lines",
        description="Writes every row, bad ones too, for the reader jsonl with the same folder of videos.",
    )
    converter.add_argument("--videos", required=True, metavar="DIR", help="the folder that paths are relative to")
    converter.add_argument("--output", required=True, metavar="FILE", help="a .jsonl file")
    converter.add_argument("--force", action="store_true", help="overwrite the file if it is there")
    converter.set_defaults(run=convert)


def _samples(arguments: argparse.Namespace, words: Sequence[str]) -> Any:
    from rlvtg.data.read import read
    from rlvtg.data.sample import DataError
    from rlvtg.recipe import Source

    if words:
        raise DataError(f"got {words[0]!r}, want no words: annotations are named by --reader and --annotations")
    return read(Source(arguments.annotations, arguments.videos or ".", arguments.reader))


VERBS: tuple[Callable[[Any], None], ...] = (_reward, _data)


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
