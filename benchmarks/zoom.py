"""Does looking again help? mIoU of a finished run's last model with one pass and with several (`evaluation.zoom`).

    python benchmarks/zoom.py recipe=runs/tiny/recipe.yaml
    python benchmarks/zoom.py recipe=runs/tiny/recipe.yaml --lengths 16 14 12 10 8

The first prints a line for each number of passes over the same queries, with 95 % bootstrap intervals over videos and
the paired difference from the first line: on how many queries it is better and worse, how many later answers there
were, and how many of those could not be used.

The second is its control: what the model makes of a part of a video as such, at the recipe's own frame rate. The parts
hold the annotated span and start at 0, 2, 4, 6 and 8 s; the same queries are asked about the whole video.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlvtg.evaluation.metrics import ious as score_each
from rlvtg.evaluation.metrics import miou_interval
from rlvtg.evaluation.predict import predict
from rlvtg.evaluation.protocol import chosen
from rlvtg.evaluation.zoom import MARGIN, predict_zoomed
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder
from rlvtg.model.load import load_config, load_model, load_processor
from rlvtg.prepare import follow
from rlvtg.recipe import Recipe, load
from rlvtg.video.store import clip_store

Rows = Sequence[Mapping[str, Any]]
STARTS = (0.0, 2.0, 4.0, 6.0, 8.0)


def main(argv: list[str]) -> None:
    """Evaluate as `argv` asks and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="+", help="recipe=RUN/recipe.yaml and overrides")
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--margin", type=float, default=MARGIN, help="share of the found span, on each side")
    parser.add_argument("--lengths", type=float, nargs="+", help="of parts in seconds: the control")
    parser.add_argument("--model", help="folder; default: what the last stage of the run merged")
    args = parser.parse_args(argv)
    recipe = load(args.recipe)
    folder = Path(recipe.output_dir)
    path = args.model or str(folder / list(recipe.stages)[-1] / "merged")
    encoder = Encoder(load_processor(path), family(load_config(path)), recipe.video, store=clip_store(recipe))
    model = load_model(path, attn_implementation=recipe.attn_implementation).eval()
    rows = follow(recipe, folder).test_rows
    if args.lengths:
        compare_parts(recipe, model, encoder, rows, args.lengths)
    else:
        compare_passes(recipe, model, encoder, rows, args.passes, args.margin)


def batches(recipe: Recipe, rows: Rows) -> list[Rows]:
    """The rows as the evaluation takes them together."""
    size = recipe.evaluation.batch_size
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def compare_passes(
    recipe: Recipe, model: torch.nn.Module, encoder: Encoder, rows: Rows, several: Sequence[int], margin: float
) -> None:
    """A line for each number of passes."""
    videos, rules = [row["video"] for row in rows], chosen(recipe.evaluation)
    first: np.ndarray | None = None
    print(f"{len(rows)} queries, {encoder.settings.fps:g} fps, margin {margin:g}")
    print("passes   mIoU  95 % interval   R1@0.5  R1@0.7  difference                  better  worse  later  unusable")
    for passes in several:
        made = predict_zoomed(
            model,
            encoder,
            batches(recipe, rows),
            passes=passes,
            prompt=recipe.prompt,
            system=recipe.system,
            grammar_name=recipe.grammar,
            max_new_tokens=recipe.evaluation.max_new_tokens,
            margin=margin,
        )
        predictions = [prediction for several in made for prediction in several]
        ious = np.array(score_each(predictions, rules), dtype=np.float64)
        first = ious if first is None else first
        gain = ious - first
        low, high = miou_interval(ious, videos)
        gain_low, gain_high = miou_interval(gain, videos)
        passed = [prediction["passes"] for prediction in predictions if passes > 1]
        later = sum(len(answers) - 1 for answers in passed)
        whole = [[0.0, prediction["duration"]] for prediction in predictions]
        stands = [prediction.get("window", all_of_it) for prediction, all_of_it in zip(predictions, whole, strict=True)]
        unusable = sum(answers[-1]["window"] != part for answers, part in zip(passed, stands, strict=False))
        print(
            f"{passes:>6}  {ious.mean():.3f}  {low:.3f} to {high:.3f}  {np.mean(ious >= 0.5):>6.3f}  "
            f"{np.mean(ious >= 0.7):>6.3f}  {gain.mean():+.3f} ({gain_low:+.3f} to {gain_high:+.3f})  "
            f"{np.sum(gain > 0):>6}  {np.sum(gain < 0):>5}  {later:>5}  {unusable:>8}",
            flush=True,
        )


def compare_parts(
    recipe: Recipe, model: torch.nn.Module, encoder: Encoder, rows: Rows, lengths: Sequence[float]
) -> None:
    """A line for each length: parts alone against the whole videos, at the encoder's own frame rate."""

    def miou(some: Rows) -> float:
        made = predict(
            model,
            encoder,
            batches(recipe, some),
            grammar_name=recipe.grammar,
            max_new_tokens=recipe.evaluation.max_new_tokens,
        )
        predictions = [prediction for several in made for prediction in several]
        return float(np.mean(np.array(score_each(predictions, chosen(recipe.evaluation)), dtype=np.float64)))

    print("seconds  parts  mIoU of parts  of the whole videos")
    for length in lengths:
        wholes, parts = [], []
        for start in STARTS:
            for row in rows:
                inside = all(start <= span[0] and span[1] <= start + length for span in row["spans"])
                if inside and row["video_start"] is None and start + length <= row["duration"]:
                    wholes.append(row)
                    spans = [[bound - start for bound in span] for span in row["spans"]]
                    window = {"video_start": start, "video_end": start + length}
                    parts.append({**row, **window, "duration": length, "spans": spans})
        if parts:
            print(f"{length:>7g}  {len(parts):>5}  {miou(parts):>13.3f}  {miou(wholes):>19.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
