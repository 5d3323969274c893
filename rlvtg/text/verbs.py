"""The verbs of a sentence, as a part-of-speech tagger sees them.

Taggers are optional dependencies: each is imported when it is asked for and loaded once per process.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cache, lru_cache
from string import punctuation

Token = tuple[str, str, bool]
"""A word as written, its lemma in lower case, and whether it is a main verb: a verb that is no auxiliary."""

Tagger = Callable[[str], Sequence[Token]]
"""The tokens of a text, in order."""

# What a model wrote has no limits, and taggers take 10 ms for a word that is none; these are far above any sentence.
MOST_WORDS = 500
LONGEST_WORD = 30

_OWN = ("hanta", "suffix")


class TaggerError(ValueError):
    """A tagger that there is not, or that is not installed."""


class TaggingError(Exception):
    """A tagger failed on a text."""


def tagger(name: str | Tagger) -> Tagger:
    """The tagger called `name`; a function is one already.

    `hanta` is the Hanover Tagger with the English model that its package brings. `suffix` is `suffix_tagger`. Any other
    name is a spaCy model that is installed, such as en_core_web_sm, or a folder with one.

    Raises TaggerError, saying what to install, when it cannot be loaded.
    """
    return name if callable(name) else _loaded(name)


def tagged(text: str, tag: Tagger) -> Sequence[Token]:
    """The tokens of a text, of its first 500 words and without words of more than 30 characters.

    Raises TaggingError when the tagger fails.
    """
    words = text.split()
    if len(words) > MOST_WORDS or any(len(word) > LONGEST_WORD for word in words):
        text = " ".join(word for word in words[:MOST_WORDS] if len(word) <= LONGEST_WORD)
    if not text.strip():
        return []
    try:
        return tag(text)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise TaggingError(f"the tagger failed on {text!r}: {type(error).__name__}: {error}") from error


def verbs(text: str, tag: Tagger) -> list[str]:
    """The lemmas of the main verbs of a text, in order and as often as they occur."""
    return [lemma for _, lemma, is_main in tagged(text, tag) if is_main]


def word_lemma(word: str, tag: Tagger) -> str | None:
    """The lemma of a word that names an action: that of the verb that it can be, else its own.

    Taggers take a verb that stands alone for a noun (`closing`, `run`), so it is tagged behind a subject as well. None
    for a text that is no word of letters and hyphens.
    """
    word = word.strip(punctuation)
    if not word.replace("-", "").isalpha():
        return None
    for text in (word, f"they {word}", f"they are {word}"):
        tokens = tagged(text, tag)
        if tokens and tokens[-1][2]:
            return tokens[-1][1]
    tokens = tagged(word, tag)
    return tokens[-1][1] if tokens else None


def suffix_tagger(text: str) -> list[Token]:
    """Takes every word in -s, -ed or -ing for a verb and strips those letters in any order: closes -> clos, is -> "".

    What the release of Invert4TVG does without spaCy (nian1125/Invert4TVG@3597015 reward.py), to repeat its numbers;
    too crude for anything else.
    """
    return [
        (word, word.rstrip("s").rstrip("ed").rstrip("ing"), word.endswith(("s", "ed", "ing"))) for word in text.split()
    ]


@cache
def _loaded(name: str) -> Tagger:
    if name == "suffix":
        return suffix_tagger
    # The completions of a group share their query.
    return lru_cache(maxsize=4096)(_hanta() if name == "hanta" else _spacy(name))


def _hanta() -> Tagger:
    try:
        from HanTa.HanoverTagger import HanoverTagger
    except ImportError as error:
        raise TaggerError(
            f"tagger 'hanta' needs the package HanTa ({error}): pip install 'rlvtg[verbs]', or name a spaCy model"
        ) from error
    model = HanoverTagger("morphmodel_en.pgz")

    def tag(text: str) -> list[Token]:
        # Apostrophes and hyphens are parts of words, every other sign is a token of its own.
        words = "".join(letter if letter.isalnum() or letter in "'-" else f" {letter} " for letter in text).split()
        read = model.tag_sent(words, casesensitive=False)
        tags = [tag for _, _, tag in read]
        return [(word, lemma.lower(), _is_main(tags, place)) for place, (word, lemma, _) in enumerate(read)]

    return tag


def _is_main(tags: list[str], place: int) -> bool:
    """Whether the word at `place` is a main verb, from the tags of its sentence (BNC, C5).

    Lexical verbs are; forms of `do` and `have` are when they help no other verb; `be` and the modals are not.
    """
    if tags[place][:2] not in ("VD", "VH"):
        return tags[place].startswith("VV")
    between = ("AV0", "XX0", "PNP")  # adverbs, `not`, and the subject of a question
    helped = next((tag for tag in tags[place + 1 : place + 6] if tag not in between), "")
    return not helped.startswith("V")


def _spacy(name: str) -> Tagger:
    near = get_close_matches(name, _OWN, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    try:
        import spacy
    except ImportError as error:
        raise TaggerError(
            f"tagger {name!r} would be a spaCy model, and spaCy is not installed ({error}): pip install spacy; "
            f"without it there is {', '.join(_OWN)}{hint}"
        ) from error
    try:
        model = spacy.load(name)
    except OSError as error:
        raise TaggerError(
            f"tagger {name!r} is not {' or '.join(_OWN)} and no spaCy model that is installed ({error}): "
            f"python -m spacy download {name}{hint}"
        ) from error

    def tag(text: str) -> list[Token]:
        return [
            (token.text, token.lemma_.lower(), token.pos_ == "VERB" and token.dep_ not in ("aux", "auxpass"))
            for token in model(text)
        ]

    return tag
