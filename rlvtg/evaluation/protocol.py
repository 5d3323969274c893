"""By which rules an answer is scored. Published numbers stand on different ones, so a number names its protocol.

Rules differ in how an answer is read, in whether a threshold is reached by equality, in what becomes of a query
without a readable answer, in rounding, and in which of several annotated spans counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from rlvtg.evaluation.multi_span import THRESHOLDS
from rlvtg.recipe import Evaluation
from rlvtg.text.grammar import grammar
from rlvtg.text.span import Span, iou, whole_seconds

FAILURES = ("zero", "drop")
TRUE = ("best", "first")


class ProtocolError(ValueError):
    """A protocol that there is not."""


@dataclass(frozen=True)
class Protocol:
    """One set of rules.

    Args:
        name: what a recipe or a command calls it.
        grammar: how completions are read (a name of rlvtg/text/grammar.py); None = as the recipe's answers are.
        thresholds: of the IoU, for R1@m.
        strict: whether a query must exceed a threshold (>); otherwise it reaches it by equality (>=).
        whole_seconds: whether predicted times are rounded to whole seconds first, halves to the even one.
        failures: `zero` counts a query without a readable answer as IoU 0; `drop` takes it out of the mean.
        true: with several annotated spans, `best` scores against each and keeps the best, `first` takes the first.
    """

    name: str
    grammar: str | None = None
    thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    strict: bool = False
    whole_seconds: bool = False
    failures: str = "zero"
    true: str = "best"


_PROTOCOLS = {
    entry.name: entry
    for entry in (
        Protocol("rlvtg"),
        # xiaomi-research/time-r1@7f2b594 evaluate.py
        Protocol("time_r1", "time_r1_eval", strict=True, true="first"),
        # www-Ye/Time-R1@d1a0d54 evaluate.py, the first version of the same paper
        Protocol("timezero", "timezero_eval", failures="drop", true="first"),
        # ZhangZikun6666/TempSamp-R1@55a9228 eval_timelens_bench.py
        Protocol("tempsamp_r1", "tempsamp_r1_eval", whole_seconds=True, true="first"),
        # nian1125/Invert4TVG@3597015 inference/evaluate.py
        Protocol("invert4tvg", "invert4tvg_eval", true="first"),
        # OpenGVLab/VideoChat-R1@73b2ea9 src_eval/evaluate_grounding.py
        Protocol("videochat_r1", "videochat_r1_eval", true="first"),
        # TencentARC/TimeLens@5d90c06 compute_metrics.py
        Protocol("timelens", "timelens_eval", whole_seconds=True, true="first"),
    )
}


def protocol(name: str) -> Protocol:
    """The protocol called `name`; ProtocolError with the known names and the nearest one if there is none."""
    if name in _PROTOCOLS:
        return _PROTOCOLS[name]
    nearest = get_close_matches(str(name), _PROTOCOLS, n=1, cutoff=0.0)[0]
    raise ProtocolError(f"no protocol is called {name!r}; there is {', '.join(_PROTOCOLS)}; did you mean {nearest!r}?")


def protocol_names() -> list[str]:
    """The names that `protocol` knows."""
    return list(_PROTOCOLS)


def chosen(settings: Evaluation) -> Protocol:
    """The protocol that a recipe's `evaluation` section names, with its thresholds.

    Raises ProtocolError for a name that there is not, GrammarError if the protocol's grammar is not there.
    """
    rules = replace(protocol(settings.protocol), thresholds=tuple(settings.thresholds))
    if rules.grammar is not None:
        grammar(rules.grammar)
    return rules


def metric_names(rules: Protocol) -> list[str]:
    """The metrics by which models can be compared under `rules`: of what `metrics.score` gives, the averages."""
    recalls = [f"R1@{threshold:g}" for threshold in rules.thresholds]
    return ["mIoU", *recalls, *(f"F1@{threshold:g}" for threshold in THRESHOLDS), "mF1", "parse_failure_rate"]


def described(rules: Protocol, made_from: Mapping[str, Any]) -> dict[str, Any]:
    """What a number stands on, for metrics.json: the rules of scoring, and what was asked of which model.

    `made_from` is what is known of the predictions; its `grammar` read them if the rules name none.
    """
    read_by = {"grammar": rules.grammar or made_from.get("grammar")}
    return {**asdict(rules), "thresholds": list(rules.thresholds), **made_from, **read_by}


def restored(told: Mapping[str, Any]) -> Protocol:
    """The rules that `described` told."""
    return Protocol(
        **{field.name: told[field.name] for field in fields(Protocol)} | {"thresholds": tuple(told["thresholds"])}
    )


def answer_iou(predicted: Sequence[Span], true: Sequence[Span], rules: Protocol) -> float | None:
    """IoU in [0, 1] of the first predicted span; None for a query that the protocol drops.

    `predicted` is what was read from the completion, [] if nothing could be; `true` holds at least one span.
    """
    if not predicted:
        return None if rules.failures == "drop" else 0.0
    answer = whole_seconds(predicted[0]) if rules.whole_seconds else predicted[0]
    return max(iou(answer, span) for span in (true[:1] if rules.true == "first" else true))


def summary(ious: Sequence[float | None], rules: Protocol) -> dict[str, float]:
    """`mIoU` and one `R1@<threshold>` each, as fractions of the queries that are not dropped; 0.0 if all are."""
    kept = [value for value in ious if value is not None]
    count = max(len(kept), 1)
    recalls = {
        f"R1@{threshold:g}": sum(value > threshold if rules.strict else value >= threshold for value in kept) / count
        for threshold in rules.thresholds
    }
    return {"mIoU": sum(kept) / count, **recalls}
