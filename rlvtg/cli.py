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


def _doctor(verbs: Any) -> None:
    """`rlvtg doctor recipe=...`: is time right on this machine, with this model?"""

    def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        from rlvtg import recipe as recipes

        recipe = recipes.load(words)
        from rlvtg import doctor, machine

        print(machine.report(recipe))
        lines = doctor.examine(recipe, tolerance=arguments.tolerance)
        print(f"\n{doctor.report(lines)}")
        return 1 if any(line.fault for line in lines) else 0

    parser = verbs.add_parser(
        "doctor",
        usage="rlvtg doctor recipe=NAME [key=value ...] [--tolerance X]",
        help="check that every path of a run sees the time that its videos have",
        description="Runs one video at several frame rates, and the first video of each stage, through every path that "
        "the recipe will use, and shows positions, seconds per grid and log-probability differences. Exit status 1 if "
        "any is wrong.",
    )
    parser.add_argument("--tolerance", type=float, metavar="X", help="of log-probabilities (default: by dtype)")
    parser.set_defaults(run=run)


def _eval(verbs: Any) -> None:
    """`rlvtg eval recipe=NAME ...` or `rlvtg eval --predictions FILE`: measure models, or a file of predictions."""

    def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        if arguments.predictions is None:
            for name in ("protocol", "grammar", "annotations", "reader", "output"):
                if getattr(arguments, name) is not None:
                    parser.error(f"--{name} goes with --predictions; for models it is a word such as protocol=timelens")
            from rlvtg.evaluation.jobs import jobs

            if arguments.zoom is not None:
                words = [*words, f"evaluation.zoom={arguments.zoom}"]
            asked = jobs(words)  # what is wrong with the words is said before torch loads
            from rlvtg.evaluation.checkpoints import evaluate_all

            return evaluate_all(asked)
        if words or arguments.zoom is not None:
            got = " ".join(words) if words else "--zoom"
            parser.error(f"unrecognized arguments: {got}; --predictions takes options about the file only")
        from rlvtg.evaluation.predictions import write_metrics
        from rlvtg.evaluation.report import table
        from rlvtg.evaluation.rescore import rescore

        results = rescore(
            arguments.predictions,
            (arguments.protocol or "rlvtg").split(","),
            grammar_name=arguments.grammar,
            annotations=arguments.annotations,
            reader=arguments.reader or "jsonl",
        )
        if arguments.output:
            write_metrics(arguments.output, results)
        print(table(results))
        return 0

    parser = verbs.add_parser(
        "eval",
        usage="rlvtg eval recipe=NAME [model=PATH,...] [data=KEY,...] [protocol=NAME] [output=DIR] [key=value ...] "
        "[--zoom N]\n"
        "       rlvtg eval --predictions FILE [--protocol NAME,...|all] [--grammar NAME] "
        "[--annotations FILE [--reader NAME]] [--output FILE]",
        help="measure checkpoints on test sets, or score a file of predictions",
        description="With a recipe: predicts with each model (a folder, a PEFT adapter's folder or a hub id; default: "
        "the recipe's) on each test set (a key of the recipe's data) and writes predictions.jsonl and metrics.json of "
        "each, and one table of all, below output; a killed evaluation goes on where it stopped. With --predictions: "
        "scores JSON lines with an id and a completion or predicted spans, ours or another system's.",
    )
    parser.add_argument("--zoom", type=_count, metavar="N", help="ask N times, each about the part found before (1)")
    parser.add_argument("--predictions", metavar="FILE", help="score these instead of asking a model")
    parser.add_argument("--protocol", metavar="NAME,...", help="by whose published rules, or all (rlvtg)")
    parser.add_argument("--grammar", metavar="NAME", help="reads completions where the protocol has no grammar")
    parser.add_argument("--annotations", metavar="FILE", help="true spans, joined by id; default: the rows' own")
    parser.add_argument("--reader", metavar="NAME", help="the annotations' format: jsonl, charades_sta ... (jsonl)")
    parser.add_argument("--output", metavar="FILE", help="write the metrics with their protocols as JSON")
    parser.set_defaults(run=run)


def _report(verbs: Any) -> None:
    """`rlvtg report RUN`: one HTML page of a run."""

    def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        if words:
            parser.error(f"unrecognized arguments: {' '.join(words)}")
        from rlvtg.evaluation.page import write_page

        print(write_page(arguments.folder, arguments.output, worst=arguments.worst))
        return 0

    parser = verbs.add_parser(
        "report",
        help="write one HTML page of a run",
        description="Writes RUN/report.html: metrics, learning curves, filmstrips with true and predicted spans, worst "
        "answers, rows left out, the recipe. The page loads nothing from anywhere; an interrupted run will do.",
    )
    parser.add_argument("folder", metavar="RUN", help="the folder of a run")
    parser.add_argument("--output", metavar="FILE", help="where the page goes (RUN/report.html)")
    parser.add_argument("--worst", type=_count, default=6, metavar="N", help="answers to show of the worst (6)")
    parser.set_defaults(run=run)


def _export(verbs: Any) -> None:
    """`rlvtg export RUN`: a folder for anybody to load, out of a run."""

    def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        if words:
            parser.error(f"unrecognized arguments: {' '.join(words)}")
        if arguments.check and arguments.checkpoint:
            parser.error("--check is for the result of a stage, which the run has evaluated")
        from rlvtg.export_run import export_run, push

        exported = export_run(
            Path(arguments.folder),
            kind=arguments.kind,
            stage=arguments.stage,
            checkpoint=arguments.checkpoint,
            output=arguments.output and Path(arguments.output),
        )
        print(exported.folder)
        if arguments.check:
            from rlvtg.export_check import check_export

            text, is_same = check_export(exported, arguments.rows)
            print(text)
            if not is_same:
                return 1
        if arguments.push:
            print(push(exported, arguments.push))
        return 0

    parser = verbs.add_parser(
        "export",
        help="write a run's model or adapter for others, with a model card",
        description="Writes one folder that PEFT, transformers and vLLM load without rlvtg: weights (safetensors), "
        "processor, chat template, generation config, model card. Nothing leaves the machine without --push.",
    )
    parser.add_argument("folder", metavar="RUN", help="the folder of a run")
    parser.add_argument("--kind", choices=("adapter", "merged"), help="an adapter needs its base model (as trained)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--stage", metavar="NAME", help="whose result (the last stage)")
    which.add_argument("--checkpoint", metavar="STAGE/checkpoint-N", help="a checkpoint of the run, of any launcher")
    parser.add_argument("--output", metavar="DIR", help="where it goes (a folder below RUN/export)")
    parser.add_argument(
        "--check", action="store_true", help="ask it what the run's evaluation asked; exit status 1 if it differs"
    )
    parser.add_argument("--rows", type=_count, default=8, metavar="N", help="rows of the test set to check (8)")
    parser.add_argument("--push", metavar="USER/REPO", help="upload it to the Hugging Face hub, with HF_TOKEN")
    parser.set_defaults(run=run)


def _data(verbs: Any) -> None:
    """`rlvtg data check|convert`: look at annotations, and write them in our own format."""

    def check(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        if words and not arguments.reader:
            return files(arguments, words)
        from rlvtg.data.oddities import report

        text, bad = report(_samples(arguments, words), files=arguments.videos is not None)
        print(text)
        return 1 if bad else 0

    def files(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        from rlvtg.recipe import load

        recipe = load(words)
        from rlvtg.data_check import check_recipe

        return check_recipe(recipe, decode=arguments.decode)

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
    source.add_argument("--reader", metavar="NAME", help="the format: charades_sta, jsonl, ... (docs/data.md)")
    source.add_argument("--annotations", metavar="FILE")

    checker = actions.add_parser(
        "check",
        parents=[source],
        usage="rlvtg data check recipe=NAME [key=value ...] [--decode]\n"
        "       rlvtg data check --reader NAME --annotations FILE (--videos DIR | --no-videos)",
        help="list the bad rows of a recipe's data, or of an annotation file",
        description="With a recipe: reads every video that it uses, and lists the rows that a run would leave out; "
        "exit status 1 if a run would stop. With a file: counts what is odd in it; exit status 1 if any row is bad.",
    )
    checker.add_argument("--decode", action="store_true", help="decode every clip too, into the cache (data prepare)")
    where = checker.add_mutually_exclusive_group()
    where.add_argument("--videos", metavar="DIR", help="the folder of the videos, which are looked for")
    where.add_argument("--no-videos", action="store_const", const=None, dest="videos", help="do not look for videos")
    checker.set_defaults(run=check)

    preparer = actions.add_parser(
        "prepare",
        usage="rlvtg data prepare recipe=NAME [key=value ...]",
        help="decode every clip of a recipe into the cache on disk",
        description="What `data check --decode` does: decodes what the cache does not hold yet, in parallel, and lists "
        "the rows whose video cannot be decoded. It can be stopped and goes on where it was.",
    )
    preparer.set_defaults(run=files, decode=True)

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


def _serve(verbs: Any) -> None:
    """`rlvtg serve recipe=...`: the vLLM engine of a recipe's rollouts, for a run on another machine."""

    def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        from rlvtg import recipe as recipes

        recipe = recipes.load(words, files=False)
        from rlvtg.serve import serve_recipe

        serve_recipe(
            recipe, stage=arguments.stage, host=arguments.host, port=arguments.port, memory=arguments.gpu_memory
        )
        return 0

    parser = verbs.add_parser(
        "serve",
        usage="rlvtg serve recipe=NAME [key=value ...] [--stage NAME] [--host ADDRESS] [--port N] [--gpu-memory SHARE]",
        help="run the vLLM engine of a recipe's rollouts as a server",
        description="Loads the recipe's model into vLLM with the engine settings of its stage and answers runs that "
        "have use_vllm true and vllm_mode server, until it is told to end. Runs send it their weights. Whoever reaches "
        "it may do so: it listens to this machine alone, and asks for the token of RLVTG_SERVER_TOKEN if that is set, "
        "which it must be for any other address.",
    )
    parser.add_argument("--stage", metavar="NAME", help="whose settings (the first stage with vllm_mode server)")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8400, metavar="N", help="0 takes one that is free (8400)")
    parser.add_argument(
        "--gpu-memory",
        type=_share,
        default=0.9,
        metavar="SHARE",
        help="of a GPU that vLLM takes, above 0, up to 1 (0.9)",
    )
    parser.set_defaults(run=run)


def _samples(arguments: argparse.Namespace, words: Sequence[str]) -> Any:
    from rlvtg.data.read import read
    from rlvtg.data.sample import DataError
    from rlvtg.recipe import Source

    if words:
        raise DataError(f"got {words[0]!r} and --reader, want either a recipe or an annotation file")
    if not arguments.reader or not arguments.annotations:
        got = "--reader alone" if arguments.reader else "neither a recipe nor a reader"
        raise DataError(f"got {got}, want --reader NAME --annotations FILE")
    return read(Source(arguments.annotations, arguments.videos or ".", arguments.reader))


def _plan(verbs: Any) -> None:
    """`rlvtg plan recipe=NAME gpus=8 gpu_memory=80`: does it fit, and what does a step cost?"""

    def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
        from rlvtg import plan
        from rlvtg.recipe import load

        machine, seconds, rest = plan.machine(words)
        found = plan.plan(load(rest, files=False), machine, seconds=seconds)
        print(plan.report(found))
        return 0 if all(found.fits(stage) for stage in found.stages) else 1

    parser = verbs.add_parser(
        "plan",
        usage="rlvtg plan recipe=NAME [gpus=8] [gpu_memory=80] [zero=0|1|2|3] [seconds=X] [key=value ...]",
        help="say from shapes alone whether a recipe fits its GPUs, and what to change if not",
        description="Counts, without weights or data, what every stage holds on each GPU under DDP (zero=0) and ZeRO 1 "
        "to 3, what a step costs and the longest video that fits. gpu_memory is in GiB; seconds is the length of the "
        "videos (default: the most tokens that the recipe gives a video). Exit status 1 if a stage does not fit.",
    )
    parser.set_defaults(run=run)


VERBS: tuple[Callable[[Any], None], ...] = (_reward, _data, _doctor, _plan, _eval, _report, _export, _serve)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, want a number of rows, 0 or more")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}, want a port from 0 to 65535")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, want a number above 0, up to 1")
    return share


def _picture(text: str) -> str:
    if Path(text).suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"got {text!r}, want a file that ends in {', '.join(PICTURES)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
