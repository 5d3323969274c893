"""Which of our functions equals each recorded function of TencentARC/TimeLens@5d90c06."""

from dataclasses import replace

from rewards.think_format import think_format
from rewards.tiou import tiou
from rlvtg.data.query import is_about_sound, tidy
from rlvtg.data.selection import DURATION_RANGES, draw_by_duration, drawn_rows
from rlvtg.evaluation.protocol import answer_iou, protocol, summary
from rlvtg.evaluation.timelens_results import timelens_answers
from rlvtg.text.grammar import grammar
from rlvtg.text.span import iou, whole_seconds


def spans_of(kwargs):
    """The annotated spans of a row's `anno`, which may hold one span instead of a list."""
    spans = kwargs["anno"][0]["span"]
    return spans if isinstance(spans[0], (list, tuple)) else [spans]


def metrics(data):
    # A result file holds times that were rounded when it was written.
    rules = replace(protocol("timelens"), whole_seconds=False)
    shares = summary([answer_iou(predicted, true, rules) for predicted, true in timelens_answers(data)], rules)
    names = {"R1@0.3": "IOU 0.3", "R1@0.5": "IOU 0.5", "R1@0.7": "IOU 0.7", "mIoU": "mIOU"}
    return {names[key]: 100 * share for key, share in shares.items()}


def drawn(ious, durs, mean, std, fixed, target, rng):
    draws = draw_by_duration(ious, durs, mean=mean, std=std, level_bins=fixed, target=target, seed=rng)
    return {
        "kept": drawn_rows(draws),
        "buckets": [{"indices": d.rows, "p": d.probabilities.tolist(), "picked": d.drawn} for d in draws],
    }


def filter_args(kwargs):
    (target,) = kwargs.values()
    size = target // len(DURATION_RANGES)
    return {"filter_range": list(DURATION_RANGES), "filter_target_size": [size] * len(DURATION_RANGES)}


SCORES = {
    "tiou": lambda text, k: tiou([text], [spans_of(k)], grammar="timelens", true="first")[0],
    "format": lambda text, k: think_format([text], strip=False)[0],
    "train.extract_time": lambda text, k: grammar("timelens").parse(text),
    "eval.extract_time": lambda text, k: grammar("timelens_eval").parse(text),
    "train.iou": lambda text, k: iou(k["A"], k["B"]),
    "eval.iou": lambda text, k: iou(k["a"], k["b"]),
    "compute_metrics": lambda text, k: metrics(k["data"]),
    "eval_dataloader.round": lambda text, k: [whole_seconds(span) for span in k["timestamps"]],
    "hybrid._build_default_filter_args": lambda text, k: filter_args(k),
    "GroundingDataset._filter_annos": lambda text, k: drawn(**k),
    "parse_query": lambda text, k: tidy(text),
    "is_audio_related_query": lambda text, k: is_about_sound(text),
    "format_response(SFT target)": lambda text, k: grammar("timelens").write(k["spans"], 1),
}


def score(reward, completion, kwargs):
    if reward not in SCORES:
        raise ValueError(f"got the reward {reward!r}; timelens has {', '.join(SCORES)}")
    return SCORES[reward](completion, kwargs)
