from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rlvtg.text.completion import Completion
from rlvtg.text.inverse import InverseRow, answer_within, check_choice, holds, inverse_rewards, target_verbs
from rlvtg.text.tags import first_answer
from rlvtg.text.verbs import Tagger, verbs
from rlvtg.text.verbs import tagger as tagger_named


def video_description(
    completions: Sequence[Completion],
    query: Sequence[str],
    masked_query: Sequence[str | None],
    verb: Sequence[str | None],
    id: Sequence[Any] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    *,
    mode: str = "robust",
    tagger: str | Tagger = "hanta",
    max_verbs: int = 4,
    max_share: float = 0.5,
    max_words: int = 60,
    synonyms: Mapping[str, Collection[str]] | None = None,
    **_: Any,
) -> list[float | None]:
    """Whether the model's free description of what it sees has the query's verb, in any tense.

    Formula: T = lemma of the verb, P = verb lemmas of the answer. 1.0 or 0.0. Range: {0, 1}. None for a row without a
    verb, one whose verb the tagger does not see in the query or still sees in the masked one, and where the tagger
    fails (counted as `video_description/tagger_failures`). Modes:
    `robust`: each of T, or a synonym of it, is in P, P has at most `max_verbs`, at most `max_share` of the words are
    verbs, and the only answer block has a letter and at most `max_words` words. An unparsable answer is 0.0.
    `paper`: each of T is in P, of the first answer block.
    `tagger` is `hanta`, a spaCy model or a function (rlvtg/text/verbs.py); `synonyms` maps a lemma to others.

    Source: Invert4TVG, arXiv 2508.07388; its release, nian1125/Invert4TVG@3597015, lacks this task.
    Differs: `robust` is ours, so that a list of verbs does not win; `paper` follows second-hand notes. The paper tags
    with spaCy's en_core_web_sm.
    """
    check_choice("mode", mode, ("robust", "paper"))
    tag = tagger_named(tagger)

    def score(text: str, row: InverseRow) -> bool | None:
        target = target_verbs(row, tag)
        if not target:
            return None
        if mode == "paper":
            return target <= set(verbs(first_answer(text) or "", tag))
        answer = answer_within(text, max_words)
        if answer is None:
            return False
        found = verbs(answer, tag)
        few = len(set(found)) <= max_verbs and len(found) <= max_share * len(answer.split())
        return few and holds(set(found), target, synonyms)

    return inverse_rewards("video_description", score, completions, query, masked_query, verb, id, log_metric)


def check_video_description(*, tagger: str | Tagger = "hanta", **_: Any) -> None:
    """TaggerError for a tagger that cannot be loaded; `rlvtg.reward.bind` calls this before a model loads."""
    tagger_named(tagger)
