"""Which of our functions equal MUSEG's: src/train.py, src/eval_grounding.py and the grounding part of E.T. Bench."""

from rlvtg.evaluation import multi_span
from rlvtg.reward import find
from rlvtg.text.grammars import et_bench, ranges

REWARDS = {
    "format": ("museg_format", {"citation": "code"}),
    "format_n_timestamp": ("museg_format", {"citation": None}),
    "global_matching": ("global_matching", {"matching": "code"}),
    "local_matching": ("local_matching", {"matching": "code"}),
    "segment_matching": ("segment_matching", {"matching": "code"}),
}
METRICS = {
    "et_bench.tvg_eval": (multi_span.first_span, "mIoU", "F1@", "F1"),
    "et_bench.epm_eval": (multi_span.first_span, "mIoU", "F1@", "F1"),
    "et_bench.tem_eval": (multi_span.first_span, "mIoU", "R@", "mRec"),
    "et_bench.tal_eval": (multi_span.many_to_one, None, "F1@", "F1"),
}
NAMES = [*REWARDS, "eval_grounding.eval", "et_bench.tvg_format", *METRICS, "et_bench.evs_eval", "et_bench.vhd_eval"]


def score(reward, completion, kwargs):
    if reward in REWARDS:
        name, knobs = REWARDS[reward]
        columns = {} if name == "museg_format" else {"spans": [spans(kwargs["solution"])]}
        return find(name)(completions=[completion], **columns, **knobs)[0]
    if reward == "eval_grounding.eval":
        return eval_grounding(**kwargs)
    if reward == "et_bench.tvg_format":
        return [list(span) for span in et_bench.spans(completion)] or None
    if reward in METRICS:
        return et_bench_metric(reward, [(et_bench.spans(completion), spans(kwargs["tgt"]))])
    if reward == "et_bench.evs_eval":
        return rounded(multi_span.whole_seconds_f1([(et_bench.spans(completion), spans(kwargs["tgt"]))]), F1="F1")
    if reward == "et_bench.vhd_eval":
        return rounded(multi_span.moment_recall([(et_bench.moment(completion), spans(kwargs["tgt"]))]), R="F1")
    raise ValueError(f"got reward {reward!r} of museg, want one of {', '.join(NAMES)}")


def spans(annotation):
    """A list of [start, end] from one, from several, or from one such list per annotator."""
    if not isinstance(annotation[0], list):
        return [annotation]
    return [span for part in annotation for span in (part if isinstance(part[0], list) else [part])]


def eval_grounding(data_raw, eval_type):
    answers = [(ranges.paired_numbers(text), true) for true, text in data_raw]
    if eval_type == "tal":
        values, start, single = multi_span.many_to_one(answers), "F1", "multi"
    else:
        values, start, single = multi_span.first_span([(p, t[:1]) for p, t in answers]), "R1", "single"
        values["m_iou"] = values.pop("mIoU")
    values["tot"] = values.pop("n")
    del values["failed"]
    names = {f"{start}@{threshold}": f"f1_{single}_{threshold}" for threshold in multi_span.THRESHOLDS}
    names[f"mean_{start}"] = f"mean_f1_{single}"
    return {names.get(key, key): value for key, value in values.items()}


def et_bench_metric(reward, answers):
    metric, mean_iou, each, mean = METRICS[reward]
    values = metric(answers)
    ours = "R1" if mean_iou else "F1"
    names = {f"{ours}@{threshold}": f"{each}{threshold}" for threshold in multi_span.THRESHOLDS}
    return rounded(values, **names, **{f"mean_{ours}": mean}, **({"mIoU": mean_iou} if mean_iou else {}))


def rounded(values, **names):
    """Our metrics under their names of E.T. Bench, with its five decimals."""
    counts = {"Total": values["n"], "Failed": values["failed"]}
    return counts | {theirs: round(values[ours], 5) for ours, theirs in names.items()}
