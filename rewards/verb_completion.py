from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rlvtg.text.completion import Completion
from rlvtg.text.inverse import (
    InverseRow,
    answer_within,
    check_choice,
    holds,
    inverse_rewards,
    released_match,
    target_verbs,
)
from rlvtg.text.tags import first_answer
from rlvtg.text.verbs import Tagger, verbs
from rlvtg.text.verbs import tagger as tagger_named


def verb_completion(
    completions: Sequence[Completion],
    query: Sequence[str],
    masked_query: Sequence[str | None],
    verb: Sequence[str | None],
    id: Sequence[Any] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    *,
    mode: str = "robust",
    tagger: str | Tagger = "hanta",
    extra: int = 0,
    max_words: int | None = None,
    synonyms: Mapping[str, Collection[str]] | None = None,
    **_: Any,
) -> list[float | None]:
    """Whether the sentence with which the model completes a query that lacks its verb has that verb, in any tense.

    Formula: T = lemma of the verb, P = verb lemmas of the answer without those of the masked query. 1.0 or 0.0.
    Range: {0, 1}. None for a row without a verb, one whose verb the tagger does not see in the query or still sees in
    the masked one, and where the tagger fails (counted as `verb_completion/tagger_failures`). Modes:
    `robust`: each of T, or a synonym of it, is in P, P has at most `extra` more, and the only answer block has a
    letter and at most `max_words` words (None: twice the query's and 5 more). An unparsable answer is 0.0.
    `paper`: P = T in the first answer block.
    `original`: the first answer block, or nothing, has all verbs of the query, which is also asked of rows without a
    verb; if the query has no verb, the answer must have none. `original_strict`: and it has no others.
    `tagger` is `hanta`, a spaCy model or a function (rlvtg/text/verbs.py); `synonyms` maps a lemma to others.

    Source: Invert4TVG, arXiv 2508.07388; `act` of nian1125/Invert4TVG@3597015 qwen-vl-finetune/qwenvl/train/reward.py.
    Differs: `robust` is ours, since `original` is won by listing verbs, and by an empty answer to a query without one;
    `paper` follows second-hand notes. Papers tag with spaCy's en_core_web_sm. The release gives 0 where its tagger
    fails. At most 500 words of an answer are read.
    """
    check_choice("mode", mode, ("robust", "paper", "original", "original_strict"))
    tag = tagger_named(tagger)

    def score(text: str, row: InverseRow) -> bool | None:
        written = (first_answer(text) or "").strip()
        if mode in ("original", "original_strict"):
            return released_match(written, row.query, row.masked or "", tag, strict=mode == "original_strict")
        target = target_verbs(row, tag)
        if not target or row.masked is None:
            return None
        if mode == "paper":
            return set(verbs(written, tag)) - set(verbs(row.masked, tag)) == target
        answer = answer_within(text, 2 * len(row.query.split()) + 5 if max_words is None else max_words)
        if answer is None:
            return False
        predicted = set(verbs(answer, tag)) - set(verbs(row.masked, tag))
        return holds(predicted, target, synonyms) and len(predicted) <= len(target) + extra

    return inverse_rewards("verb_completion", score, completions, query, masked_query, verb, id, log_metric)


def check_verb_completion(*, tagger: str | Tagger = "hanta", **_: Any) -> None:
    """TaggerError for a tagger that cannot be loaded; `rlvtg.reward.bind` calls this before a model loads."""
    tagger_named(tagger)
