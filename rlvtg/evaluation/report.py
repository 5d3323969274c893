"""What a run looks like to a reader: its learning curves, some of its answers as pictures, its numbers as a table.

Colours are from Okabe and Ito's palette, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/).
Pictures are drawn on Figure objects, never through pyplot, so nothing here depends on a display or changes the
caller's matplotlib settings.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rlvtg.text.span import Span

DPI = 100
TRUE, PREDICTED = "#0072B2", "#D55E00"
STAGES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY, TRACK = "#666666", "#EEEEEE"

# The logged quantities worth a curve, in reading order, with what their values are. Patterns match the keys of
# `state.log_history`.
CURVES = {
    "loss": "loss",
    "reward": "weighted sum of rewards",
    "rewards/*/mean": "reward",
    "on_policy/reward": "weighted sum of rewards",
    "on_policy/rewards/*/mean": "reward",
    "expert/reward_mean": "weighted sum of rewards",
    "*mIoU": "IoU",
    "*R1@*": "fraction of queries",
    "*parse_failure_rate": "fraction of queries",
    "completions/unparsed": "fraction of completions",
    "completions/mean_length": "tokens",
    "on_policy/completions/mean_length": "tokens",
    "completions/length_drift": "multiple of the first",
    "completions/clipped_ratio": "fraction of completions",
    "on_policy/completions/clipped_ratio": "fraction of completions",
    "spans/number": "predicted spans per answer",
    "spans/length": "seconds",
    "spans/length_ratio": "multiple of the annotated",
    "spans/length_drift": "multiple of the first",
    "spans/start": "fraction of the video",
    "spans/end": "fraction of the video",
    "spans/outside": "fraction of answers with spans",
    "entropy": "nats per token",
    "kl": "nats per token",
    "reward_std": "weighted sum of rewards",
    "rewards/*/std": "reward",
    "frac_reward_zero_std": "fraction of groups",
    "zero_variance/before": "fraction of groups",
    "zero_variance/after": "fraction of groups",
    "zero_variance/resamples": "groups",
    "mean_token_accuracy": "fraction of tokens",
    "grad_norm": "norm",
    "eval_loss": "loss",
    "eval_reward": "weighted sum of rewards",
    "eval_rewards/*/mean": "reward",
}
# Losses of different stages are different quantities (cross-entropy, policy surrogate): they never share an axis.
PER_STAGE = ("loss", "eval_loss")

FEWEST_TO_SMOOTH = 30
FRAMES = 12

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Curve]]:
    """Panel title -> stage -> (steps (n,), values (n,)), in reading order, of the quantities in CURVES that a stage
    logged.

    A value that is None or not finite (such as the mean of a reward that applied to no row) is left out of its curve.
    """
    found: dict[str, dict[str, Curve]] = {}
    for pattern in CURVES:
        for stage, history in histories.items():
            for key in dict.fromkeys(key for record in history for key in record if fnmatchcase(key, pattern)):
                logged = [record for record in history if math.isfinite(_or_nan(record.get(key)))]
                if logged:
                    title = f"{key} ({stage})" if key in PER_STAGE else key
                    steps = np.array([record["step"] for record in logged], dtype=np.float64)
                    values = np.array([record[key] for record in logged], dtype=np.float64)
                    found.setdefault(title, {})[stage] = (steps, values)
    return found


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred moving mean of `values` (n,) over about a fifteenth of them, none of fewer than 30; at the two ends,
    over the part of the window that exists."""
    half = len(values) // FEWEST_TO_SMOOTH
    window = np.ones(2 * half + 1)
    middle = slice(half, half + len(values))
    return np.convolve(values, window)[middle] / np.convolve(np.ones_like(values), window)[middle]


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path) -> None:
    """Draws the stages' training logs as one PNG of small panels: the logged values pale, their moving mean over them,
    a colour per stage.

    `histories` maps the name of a stage to its Hugging Face `trainer.state.log_history`: dicts with "step" and what
    was logged at that step. Every stage counts its own steps. Raises ValueError when no stage logged anything that
    CURVES names.
    """
    panels = curves(histories)
    if not panels:
        raise ValueError(
            f"got the histories of {list(histories)} with nothing to draw in them; drawn are {', '.join(CURVES)}"
        )
    colours = {
        stage: STAGES[i % len(STAGES)]
        for i, stage in enumerate(stage for stage in histories if any(stage in panel for panel in panels.values()))
    }
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = max(4.2, 3.2 * columns)
    names_per_line = int(width / 1.6)
    legend_height = 0.15 + 0.25 * math.ceil(len(colours) / names_per_line)
    height = 2.3 * rows + legend_height
    below_legend = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - legend_height / height))
    figure = Figure(figsize=(width, height), dpi=DPI, layout=below_legend)
    for i, (title, stages) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for stage, (steps, values) in stages.items():
            _draw_curve(axes, steps, values, colours[stage])
        key = title.split(" ")[0]
        axes.set_title(title, fontsize=9, loc="left", parse_math=False)
        axes.set_ylabel(
            next(unit for pattern, unit in CURVES.items() if fnmatchcase(key, pattern)), fontsize=8, color=GREY
        )
        axes.set_xlabel("step of the stage", fontsize=8, color=GREY)
        axes.tick_params(labelsize=7, colors=GREY)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", color=TRACK, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        [Line2D([], [], color=colour, linewidth=2.5) for colour in colours.values()], list(colours),
        loc="upper left", ncols=names_per_line, frameon=False, fontsize=10,
    )  # fmt: skip
    _save(figure, path)


def _draw_curve(axes: Axes, steps: NDArray[np.float64], values: NDArray[np.float64], colour: str) -> None:
    if len(values) < FEWEST_TO_SMOOTH:
        axes.plot(steps, values, color=colour, linewidth=1.6, marker="o", markersize=3)
        return
    pale = tuple(0.35 * channel + 0.65 for channel in to_rgb(colour))
    axes.plot(steps, values, color=pale, linewidth=0.7)
    axes.plot(steps, smoothed(values), color=colour, linewidth=1.6, zorder=3)


def filmstrip(
    frames: NDArray[np.uint8],
    timestamps: NDArray[np.floating[Any]],
    duration: float,
    true_spans: Sequence[Sequence[float]],
    predicted_spans: Sequence[Sequence[float]],
    title: str,
    path: str | Path,
) -> None:
    """Draws one answer as a PNG: frames in the order of time, each tied to its second on one time axis, over a bar of
    true and one of predicted spans.

    `frames` (N, H, W, 3) uint8 RGB and `timestamps` (N,) seconds, of which at most 12 evenly spaced ones are shown;
    `duration` of the video, true and predicted spans in seconds. What lies outside the video is cut off at its edge
    and marked by an arrow there; a span that does not end after it starts is an empty box; of several predicted spans
    the first, which is the scored one, is full and the others are pale. The numbers stand beside the bars.

    Raises ValueError for frames of another shape or type, a number of timestamps other than N and a duration that is
    not positive.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(
            f"got frames of shape {frames.shape} and type {frames.dtype}; they must be (N, H, W, 3) uint8 with N >= 1"
        )
    if len(timestamps) != len(frames):
        raise ValueError(f"got {len(timestamps)} timestamps for {len(frames)} frames; every frame needs one")
    if not duration > 0:
        raise ValueError(f"got a video of {duration} seconds; its duration must be positive")
    order = np.argsort(timestamps, kind="stable")
    shown = order[np.linspace(0, len(order) - 1, min(FRAMES, len(order))).round().astype(int)]
    edge = max(float(duration), float(timestamps.max()))

    # All measures in inches, from the lower left corner.
    left, strip, right, bars = 1.1, 11.0, 2.75, 1.05
    pitch = strip / len(shown)
    picture_width = min(0.94 * pitch, 1.9, 2.2 * frames.shape[2] / frames.shape[1])
    picture_height = picture_width * frames.shape[1] / frames.shape[2]
    lines = textwrap.wrap(title, 120, max_lines=2, placeholder=" ...")
    foot, ties, caption, head = 0.55, 0.35, 0.22, 0.25 + 0.22 * len(lines)
    width, height = left + strip + right, foot + bars + ties + caption + picture_height + head
    figure = Figure(figsize=(width, height), dpi=DPI)

    def inches(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return (x / width, y / height, w / width, h / height)

    figure.text(left / width, 1 - 0.12 / height, "\n".join(lines), va="top", fontsize=11, parse_math=False)
    base = foot + bars + ties
    for i, index in enumerate(shown):
        middle = left + (i + 0.5) * pitch
        axes = figure.add_axes(inches(middle - picture_width / 2, base + caption, picture_width, picture_height))
        enlarged = frames.shape[1] <= picture_height * DPI
        axes.imshow(frames[index], interpolation="nearest" if enlarged else "antialiased", aspect="auto")
        axes.set_axis_off()
        figure.text(
            middle / width,
            (base + 0.04) / height,
            f"{timestamps[index]:.1f} s",
            ha="center",
            va="bottom",
            fontsize=8,
            color=GREY,
        )
        on_axis = left + strip * max(0.0, float(timestamps[index])) / edge
        figure.add_artist(
            Line2D(
                [middle / width, on_axis / width],
                [base / height, (foot + bars) / height],
                color="#AAAAAA",
                linewidth=0.8,
            )
        )

    axes = figure.add_axes(inches(left, foot, strip, bars))
    axes.set(xlim=(0, edge), ylim=(-0.5, 1.5), yticks=[])
    axes.tick_params(labelsize=9, colors=GREY)
    axes.spines[["left", "right"]].set_visible(False)
    axes.spines[["top", "bottom"]].set_color("#AAAAAA")
    axes.set_xlabel("time in the video (seconds)", fontsize=9, color=GREY)
    for row, name, colour, spans in ((1, "true", TRUE, true_spans), (0, "predicted", PREDICTED, predicted_spans)):
        axes.add_patch(Rectangle((0, row - 0.28), duration, 0.56, color=TRACK, linewidth=0))
        for i, (start, end) in reversed(list(enumerate(spans))):
            _draw_span(axes, row, (start, end), duration, edge, colour, pale=name == "predicted" and i > 0)
        y = (foot + bars * (row + 0.5) / 2) / height
        figure.text((left - 0.15) / width, y, name, ha="right", va="center", fontsize=10, color=colour, weight="bold")
        figure.text((left + strip + 0.2) / width, y, _span_text(spans, duration), va="center", fontsize=9)
    _save(figure, path)


def _draw_span(axes: Axes, row: int, span: Span, duration: float, edge: float, colour: str, pale: bool) -> None:
    start, end = (min(max(second, 0.0), duration) for second in span)
    if span[1] <= span[0]:
        axes.add_patch(
            Rectangle((end, row - 0.28), start - end, 0.56, fill=False, edgecolor=colour, linestyle="--", linewidth=1.5)
        )
    elif end > start:
        fill = tuple(0.4 * channel + 0.6 for channel in to_rgb(colour)) if pale else colour
        axes.add_patch(Rectangle((start, row - 0.28), end - start, 0.56, color=fill, linewidth=0))
    # The arrows stand just outside the axis, where no bar can hide them.
    if max(span) > duration:
        axes.plot(edge * 1.006, row, marker=">", color=colour, markersize=9, markeredgewidth=0, clip_on=False)
    if min(span) < 0:
        axes.plot(-edge * 0.006, row, marker="<", color=colour, markersize=9, markeredgewidth=0, clip_on=False)


def _span_text(spans: Sequence[Sequence[float]], duration: float) -> str:
    """What stands beside a bar: at most three spans, with what is wrong with them."""
    if not spans:
        return "no span in the answer"
    lines = []
    for start, end in spans[:3]:
        wrong = ""
        if end <= start:
            wrong = " (no length)" if end == start else " (reversed)"
        elif start >= duration or end <= 0:
            wrong = " (not in the video)"
        elif end > duration:
            wrong = " (past the end)"
        lines.append(f"{_seconds(start)} to {_seconds(end)} s{wrong}")
    if len(spans) > 3:
        lines[-1] += f" and {len(spans) - 3} more"
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1e5 else f"{value:.2g}"


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The metrics of `score` as aligned plain text; see `cells`."""
    rows = cells(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def cells(results: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A header and a row per name: fractions with three decimals, counts, "-" where a row lacks a metric.

    The columns are mIoU with its 95 % interval, one R1 per threshold that any row has, the mean F1 if any row has it,
    the share of parse failures, the numbers of missing and dropped queries if any row has some, and that of queries.
    """
    if not results:
        raise ValueError("there are no results to put in a table; at least one is needed")
    recalls = dict.fromkeys(key for metrics in results.values() for key in metrics if key.startswith("R1@"))
    means = ["mF1"] if any("mF1" in metrics for metrics in results.values()) else []
    counts = [key for key in ("missing", "dropped") if any(metrics.get(key) for metrics in results.values())]
    rows = [["", "mIoU", "95 % interval", *recalls, *means, "parse failures", *counts, "n"]]
    for name, metrics in results.items():
        interval = f"{_number(metrics, 'mIoU_low')} to {_number(metrics, 'mIoU_high')}"
        rows.append([
            name,
            _number(metrics, "mIoU"),
            interval if "mIoU_low" in metrics else "-",
            *(_number(metrics, key) for key in (*recalls, *means, "parse_failure_rate")),
            *(_number(metrics, key, "d") for key in (*counts, "n")),
        ])  # fmt: skip
    return rows


def _number(metrics: Mapping[str, Any], key: str, form: str = ".3f") -> str:
    return format(metrics[key], form) if key in metrics else "-"


def histogram(ious: Sequence[float | None], path: str | Path) -> None:
    """Draws how many queries have which IoU as one PNG, in twenty bins; dropped queries (None) are left out."""
    kept = [iou for iou in ious if iou is not None]
    figure = Figure(figsize=(6.4, 2.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.hist(kept, bins=20, range=(0, 1), color=PREDICTED, edgecolor="white", linewidth=0.5)
    axes.set(xlim=(0, 1))
    axes.set_xlabel("IoU of the first predicted span", fontsize=9, color=GREY)
    axes.set_ylabel("queries", fontsize=9, color=GREY)
    axes.tick_params(labelsize=8, colors=GREY)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def spread(ious: Sequence[float | None], count: int) -> list[int]:
    """At most `count` of the queries, from the best IoU to the worst in even steps of rank; dropped ones are worst."""
    ranked = sorted(range(len(ious)), key=lambda index: -(ious[index] or 0.0))
    count = min(count, len(ranked))
    return [ranked[round(number * (len(ranked) - 1) / max(1, count - 1))] for number in range(count)]


def _save(figure: Figure, path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
