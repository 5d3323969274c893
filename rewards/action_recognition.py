from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rlvtg.text.completion import Completion
from rlvtg.text.inverse import InverseRow, answer_within, check_choice, inverse_rewards, target_verbs, with_synonyms
from rlvtg.text.tags import first_answer
from rlvtg.text.verbs import Tagger, verbs, word_lemma
from rlvtg.text.verbs import tagger as tagger_named


def action_recognition(
    completions: Sequence[Completion],
    query: Sequence[str],
    masked_query: Sequence[str | None],
    verb: Sequence[str | None],
    id: Sequence[Any] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    *,
    mode: str = "robust",
    tagger: str | Tagger = "hanta",
    max_words: int = 3,
    synonyms: Mapping[str, Collection[str]] | None = None,
    **_: Any,
) -> list[float | None]:
    """Whether the verb with which the model names the action that it sees is one of the query, in any tense.

    Formula: S = verb lemmas of the query, P = those of the answer; an answer of one word stands for its lemma even
    where the tagger sees no verb. 1.0 or 0.0. Range: {0, 1}. None for a row without a verb, one whose verb the tagger
    does not see in the query or still sees in the masked one, and where the tagger fails (counted as
    `action_recognition/tagger_failures`). Modes:
    `robust`: P is one lemma, of S or a synonym of one, and the only answer block has a letter and at most `max_words`
    words. An unparsable answer is 0.0.
    `paper`: the first verb of the first answer block is in S.
    `tagger` is `hanta`, a spaCy model or a function (rlvtg/text/verbs.py); `synonyms` maps a lemma to others.

    Source: Invert4TVG, arXiv 2508.07388; its release, nian1125/Invert4TVG@3597015, lacks this task.
    Differs: `robust` is ours, so that a list of verbs does not win; a tagger may still take one verb of two for a noun
    (`closes opening`), for which `max_words` 1 leaves no room. `paper` follows second-hand notes. The paper tags with
    spaCy's en_core_web_sm.
    """
    check_choice("mode", mode, ("robust", "paper"))
    tag = tagger_named(tagger)

    def score(text: str, row: InverseRow) -> bool | None:
        if not target_verbs(row, tag):
            return None
        seen = set(verbs(row.query, tag))
        answer = first_answer(text) if mode == "paper" else answer_within(text, max_words)
        named = _named(answer or "", tag)
        if mode == "paper":
            return bool(named) and named[0] in seen
        return len(set(named)) == 1 and named[0] in with_synonyms(seen, synonyms)

    return inverse_rewards("action_recognition", score, completions, query, masked_query, verb, id, log_metric)


def check_action_recognition(*, tagger: str | Tagger = "hanta", **_: Any) -> None:
    """TaggerError for a tagger that cannot be loaded; `rlvtg.reward.bind` calls this before a model loads."""
    tagger_named(tagger)


def _named(answer: str, tag: Tagger) -> list[str]:
    """The lemmas of the verbs of an answer; of one word, that of the word."""
    if len(answer.split()) == 1:
        lemma = word_lemma(answer, tag)
        return [] if lemma is None else [lemma]
    return verbs(answer, tag)
