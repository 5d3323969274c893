"""The table of a sweep: results.json -> the text of docs/miniature.md. Pure; nothing is run."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.sweep.plan import COMPARISONS, FIRST, STARTS, Comparison
from rlvtg.recipe import INVERSE_TASKS

RESAMPLES = 2000
# Student's t with n - 1 degrees of freedom, two-sided 95 %, by n.
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
NONE = "–"

Run = Mapping[str, Any]


def page(results: Mapping[str, Any]) -> str:
    """The whole page as Markdown; comparisons of which an arm was not run are left out.

    Raises ValueError where the runs of an arm and its baseline are not about the same queries, and where there is
    nothing to compare.
    """
    known = {(run["run"], run["seed"]): run for run in results["runs"]}
    seeds = [int(seed) for seed in results["seeds"]]
    lines: list[str] = []
    for comparison in COMPARISONS:
        lines += _lines(comparison, known, seeds)
    if not lines:
        raise ValueError("the results hold no arm together with its baseline; there is nothing to compare")
    table = "\n".join([*HEAD, *lines]) + "\n"
    return "\n".join([_opening(results, seeds), table, READING + _earned(results), LIMITS])


HEAD = (
    "| what differs | arm | constant | start | mIoU | each seed | difference | each seed "
    "| 95 %, other videos | 95 %, other seeds | R1@0.5 | unread | CPU s |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def _lines(comparison: Comparison, known: Mapping[tuple[str, int], Run], seeds: Sequence[int]) -> list[str]:
    """The rows of a comparison, its baseline first; none if a run of the baseline is missing or all arms lack some."""

    def complete(arm: str) -> bool:
        return all((name, seed) in known for name in (arm, STARTS[arm]) for seed in seeds)

    arms = [arm for arm in comparison.arms if complete(arm)]
    if not complete(comparison.baseline) or not arms:
        return []
    base = [known[comparison.baseline, seed] for seed in seeds]
    lines = []
    for arm in (comparison.baseline, *arms):
        runs = [known[arm, seed] for seed in seeds]
        start = fmean(_mean(known[STARTS[arm], seed], comparison.score) for seed in seeds)
        reached = [_mean(run, comparison.score) for run in runs]
        cells = [
            f"{comparison.title} ({comparison.source})" if arm == comparison.baseline else "",
            f"`{arm}`",
            _constant(runs) if comparison.score == FIRST else NONE,
            f"{start:.3f}",
            f"{fmean(reached):.3f}",
            " ".join(f"{value:.3f}" for value in reached),
            *([NONE] * 4 if arm == comparison.baseline else _difference(runs, base, comparison.score)),
            f"{fmean(run['R1@0.5'] for run in runs):.3f}",
            f"{fmean(run['parse_failure_rate'] for run in runs):.3f}",
            f"{fmean(run['cpu_seconds'] for run in runs):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _constant(runs: Sequence[Run]) -> str:
    known = [run["constant"] for run in runs if run["constant"] is not None]
    return f"{fmean(known):.3f}" if known else NONE


def _mean(run: Run, score: str) -> float:
    return fmean(run[score])


def _difference(runs: Sequence[Run], base: Sequence[Run], score: str) -> list[str]:
    """The cells of the paired difference: mean, each seed's, and the two intervals."""
    pairs = list(zip(runs, base, strict=True))
    for run, other in pairs:
        if run["ids"] != other["ids"]:
            raise ValueError(f"{run['run']} and {other['run']} of seed {run['seed']} answered other queries")
    gains = [np.array(run[score]) - np.array(other[score]) for run, other in pairs]
    each = [float(gain.mean()) for gain in gains]
    low, high = over_videos(gains, [run["videos"] for run in runs])
    seeds = over_seeds(each)
    return [
        f"{fmean(each):+.3f}",
        " ".join(f"{value:+.3f}" for value in each),
        f"{low:+.3f} to {high:+.3f}",
        NONE if seeds is None else f"{seeds[0]:+.3f} to {seeds[1]:+.3f}",
    ]


def over_videos(gains: Sequence[np.ndarray], videos: Sequence[Sequence[str]]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over seeds of the mean gain, each (n,), of a query.

    The runs are held fixed, and the videos of each seed's test set are drawn anew with all their queries.
    """
    rng = np.random.default_rng(0)
    means = np.zeros(RESAMPLES)
    for gain, names in zip(gains, videos, strict=True):
        _, video = np.unique(np.asarray(names), return_inverse=True)
        total, queries = np.bincount(video, weights=gain), np.bincount(video)
        drawn = rng.integers(len(total), size=(RESAMPLES, len(total)))
        means += total[drawn].sum(axis=1) / queries[drawn].sum(axis=1) / len(gains)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def over_seeds(each: Sequence[float]) -> tuple[float, float] | None:
    """95 % t interval of the mean of the seeds' gains; None of fewer than 2 seeds or more than the table knows."""
    if len(each) not in STUDENT:
        return None
    half = STUDENT[len(each)] * stdev(each) / sqrt(len(each))
    return fmean(each) - half, fmean(each) + half


def _opening(results: Mapping[str, Any], seeds: Sequence[int]) -> str:
    runs = results["runs"]
    arms = {run["run"]: run for run in runs if run["run"] in STARTS}
    return OPENING.format(
        seeds=", ".join(map(str, seeds)),
        arms=len(arms),
        steps=" or ".join(str(steps) for steps in sorted({run["steps"] for run in arms.values()})),
        queries=max(run["n"] for run in arms.values()),
        hours=(sum(run["cpu_seconds"] for run in runs) + results["data_cpu_seconds"]) / 3600,
        overrides=f" Overrides: `{' '.join(results['overrides'])}`." if results["overrides"] else "",
    )


def _earned(results: Mapping[str, Any]) -> str:
    """A line about the rewards of the inverse tasks, where they were trained."""
    told = []
    for name in INVERSE_TASKS:
        ends = [run["rewards"][name] for run in results["runs"] if name in run["rewards"]]
        if ends:
            told.append(f"`{name}` {fmean(first for first, _ in ends):.2f} to {fmean(last for _, last in ends):.2f}")
    return f"- Rewards of the inverse tasks, first log to last, mean over seeds: {', '.join(told)}.\n" if told else ""


OPENING = """\
# The papers' comparisons in miniature

```bash
python -m benchmarks.sweep
```

reruns what some papers compare, with the demo's model of 0.4 M parameters on the demo's made videos, and writes this
page, whichever way it falls. It goes on where it was stopped. Every arm is a recipe of `recipes/sweep/`, which says in
what it differs. It needs the extra `verbs`.

Seeds {seeds}: data, first weights and order all differ. The arms of a comparison go from the same cold start, or
from one each where it is the cold start that must differ. Arms: {arms}, of {steps} GRPO steps each; test queries a
seed: {queries}, answered greedily; CPU hours in all: {hours:.1f}.{overrides}
"""

READING = f"""\
- **constant** is the mIoU of the best answer that looks at no video, **start** that of the cold start, **mIoU** that of
  the arm, each a mean over seeds: of the first span, or of all spans together where the row says so. Arms whose start
  is no better than the constant say little. **unread** is the share of answers in which no span could be read.
  R1@0.5 is of the first span.
- **difference**: to the first row of the comparison, query by query on the same videos of a seed.
- **95 %, other videos**: a bootstrap that draws the test videos of each seed anew and holds the trained models fixed.
  It says how far these models differ, and nothing of what training again would give.
- **95 %, other seeds**: a t interval of the seeds' differences. It covers new data, weights and order, but rests on as
  many numbers as there are seeds, so it is wide, and it trusts that they are normally distributed. Where it holds 0,
  the comparison is open.
- A full table has {sum(len(each.arms) for each in COMPARISONS)} differences, none of them corrected for their number:
  at 95 %, one in twenty intervals misses by chance.
"""

LIMITS = """\
## What this can and cannot show

It shows that each mechanism runs through the library's own entry, and in which direction it moves this model on this
data. It says nothing about the papers' models, data or numbers, for or against:

- A video is 16 to 24 s of two circles that come and go, at 28x28 pixels and one frame a second. Spans are exact whole
  seconds; there is no label noise, next to no language and no prior knowledge.
- All arms have the learning rate and batch of the demo's GRPO, none its own, and a group's rewards are divided by their
  standard deviation. An arm that would need other settings or more steps is at a disadvantage.
- `think` repeats the query in its think block. Whether reasoning helps where there is something to reason about is not
  asked.
- `hard` and `uniform` train on 300 of 1,000 rows several times over, where TimeLens chooses from far more. All videos
  fall into one range of durations, so that nothing is stratified.
- The verb of the inverse tasks is whether a circle moves or rests, which tells nothing about when it is there.
- With `overlay` the digits are 8 pixels high on a frame of 28, read by a vision tower of one layer that has never seen
  a digit. The cold starts of `positions`, `text` and `overlay` go without the narration that the others have.
- `one_segment` is never paid for a second span, and `all_segments` is: the row about all spans asks whether that is
  learnt, the row about the first what it costs.
"""
