"""Inverse tasks: shown the segment that a query tells of, a model names its verb (Invert4TVG, arXiv 2508.07388).

A row has the `query`, its `verb` as an annotator marked it, and the `masked_query`, which lacks that verb.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from string import punctuation
from typing import Any

from rlvtg.text.annotation import AnnotationError, row_names
from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.tags import only_answer
from rlvtg.text.verbs import LONGEST_WORD, Tagger, TaggingError, suffix_tagger, tagged, verbs

TASKS = ("verb_completion", "action_recognition", "video_description")


@dataclass(frozen=True)
class InverseRow:
    """What an inverse task knows of a row."""

    query: str
    masked: str | None
    verb: str | None


def inverse_rewards(
    name: str,
    score: Callable[[str, InverseRow], bool | None],
    completions: Sequence[Completion],
    query: Sequence[str],
    masked_query: Sequence[str | None],
    verb: Sequence[str | None],
    id: Sequence[Any] | None,
    log_metric: Callable[[str, float], None] | None,
) -> list[float | None]:
    """`score(text, row)` of each completion as 1.0, 0.0 or None; None too where the tagger fails.

    How often it failed goes to TRL's `log_metric`, where there is one, as `<name>/tagger_failures`. AnnotationError
    names the row whose query is no text, or whose verb or masked query is neither a text nor None.
    """
    rows = []
    for whole, masked, word, row in zip(query, masked_query, verb, row_names(id, len(completions)), strict=True):
        if not isinstance(whole, str):
            raise AnnotationError(f"{row}: query must be a text, got {whole!r}")
        for column, cell in (("masked_query", masked), ("verb", word)):
            if not (cell is None or isinstance(cell, str)):
                raise AnnotationError(f"{row}: {column} must be a text or None, got {cell!r}")
        rows.append(InverseRow(whole, masked, word))
    rewards: list[float | None] = []
    failures = 0
    for completion, known in zip(completions, rows, strict=True):
        try:
            value = score(completion_text(completion), known)
        except TaggingError:
            value = None
            failures += 1
        rewards.append(None if value is None else float(value))
    if log_metric is not None:
        log_metric(f"{name}/tagger_failures", float(failures))
    return rewards


def target_verbs(row: InverseRow, tag: Tagger) -> set[str]:
    """The lemmas of the verbs that were taken out of the query; empty for a row that is none of an inverse task.

    That is one without a verb or a masked query, one whose verb the tagger does not find among the main verbs of the
    query, and one whose masked query gives the lemma away.
    """
    if not row.verb or row.masked is None:
        return set()
    words = {word.strip(punctuation).lower() for word in row.verb.split()}
    targets = {
        lemma
        for token, lemma, is_main in tagged(row.query, tag)
        if is_main and words & {token.strip(punctuation).lower(), lemma}
    }
    given_away = {lemma for _, lemma, _ in tagged(row.masked, tag)}
    return set() if targets & given_away else targets


def without_verb(query: str, verb: str) -> str | None:
    """The query with the first occurrence of the verb's words deleted and no blank left; None if there is none.

    Signs behind the verb stay: "a person is sneezing." -> "a person is."
    """
    words, removed = query.split(), [word.strip(punctuation).lower() for word in verb.split()]
    plain = [word.strip(punctuation).lower() for word in words]
    for first in range(len(words) - len(removed) + 1):
        last = first + len(removed)
        if removed and plain[first:last] == removed:
            signs = words[last - 1][len(words[last - 1].rstrip(punctuation)) :]
            return " ".join([*words[:first], *words[last:]]) if not signs else _joined(words, first, last, signs)
    return None


def _joined(words: list[str], first: int, last: int, signs: str) -> str:
    before = " ".join(words[:first]) + signs
    return " ".join([before, *words[last:]])


def added_words(masked: str, query: str) -> list[str]:
    """The words that an alignment of the masked query with the query finds added; replaced ones are none."""
    before, after = masked.split(), query.split()
    steps = SequenceMatcher(None, before, after).get_opcodes()
    return [word for step, _, _, first, last in steps if step == "insert" for word in after[first:last]]


def answer_within(text: str, max_words: int) -> str | None:
    """What stands in the only answer block, stripped; None if it is empty, has no letter or is longer than a sentence.

    That is more than `max_words` words, or a word of more than 30 characters.
    """
    answer = (only_answer(text) or "").strip()
    words = answer.split()
    if len(words) > max_words or any(len(word) > LONGEST_WORD for word in words):
        return None
    return answer if any(map(str.isalpha, answer)) else None


def with_synonyms(lemmas: Collection[str], synonyms: Mapping[str, Collection[str]] | None) -> set[str]:
    """The lemmas and the synonyms of each."""
    return {*lemmas, *(other for lemma in lemmas for other in (synonyms or {}).get(lemma, ()))}


def holds(predicted: set[str], target: Collection[str], synonyms: Mapping[str, Collection[str]] | None) -> bool:
    """Whether each target lemma, or a synonym of it, is among the predicted ones."""
    return all(predicted & with_synonyms([lemma], synonyms) for lemma in target)


def released_match(answer: str, query: str, masked: str, tag: Tagger, *, strict: bool) -> bool:
    """Whether an answer has every verb of the query, as the release of Invert4TVG asks for.

    Those are the verbs that the tagger finds in the query and in `added_words` by themselves. `strict` allows no
    others, apart from what the tagger makes of the verbs with their endings. Without any, the answer must have none.

    Source: `act` of nian1125/Invert4TVG@3597015 qwen-vl-finetune/qwenvl/train/reward.py.
    """
    wanted, predicted = released_verbs(query, masked, tag), set(verbs(answer, tag))
    if not wanted:
        return not predicted
    if strict and not predicted <= {variant for verb in wanted for variant in _variants(verb, tag)}:
        return False
    return wanted <= predicted


def released_verbs(query: str, masked: str, tag: Tagger) -> set[str]:
    """The verbs of the query and of `added_words` by themselves, where a tagger may see others."""
    added = added_words(masked, query) if masked else []
    return {*verbs(query, tag), *verbs(" ".join(added), tag)}


def _variants(verb: str, tag: Tagger) -> set[str]:
    if tag is suffix_tagger:
        return {verb}
    sentences = (f"I {verb}", f"He {verb}s", f"They {verb}ed", f"She is {verb}ing")
    return {verb, *(found for sentence in sentences for found in verbs(sentence, tag))}


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """ValueError with the choices and the nearest one if `value` is none of them."""
    if value not in choices:
        near = get_close_matches(str(value), choices, n=1, cutoff=0.0)
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(choices)}; did you mean {near[0]!r}?")
