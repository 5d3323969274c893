import subprocess
import sys

import pytest

from rlvtg.reward import RewardError, bind
from rlvtg.text.verbs import LONGEST_WORD, MOST_WORDS, TaggerError, TaggingError, tagged, tagger, verbs, word_lemma

HANTA = tagger("hanta")
SUFFIX = tagger("suffix")


@pytest.mark.parametrize(
    ("text", "lemmas"),
    [
        ("person closes the door", ["close"]),
        ("Person Closed the Door.", ["close"]),
        ("a person is putting a book on a shelf.", ["put"]),
        ("person begins to play on a phone", ["begin", "play"]),
        ("closes, opens", ["close", "open"]),
        ("closes open puts takes sits runs", ["close", "put", "take", "sit"]),
        ("the person has not yet opened the door", ["open"]),
        ("the person has a cup", ["have"]),
        ("a person is doing homework", ["do"]),
        ("a person is a book on a shelf.", []),
        ("a red door", []),
        ("", []),
        (" \n", []),
        ("...", []),
    ],
)
def test_the_hanover_tagger_finds_the_main_verbs(text, lemmas):
    assert verbs(text, HANTA) == lemmas


def test_a_token_is_a_word_its_lemma_and_whether_it_is_a_main_verb():
    expected = [("She", "she", False), ("is", "be", False), ("sitting", "sit", True), (".", ".", False)]
    assert list(tagged("She is sitting.", HANTA)) == expected


@pytest.mark.parametrize("word", ["open", "opens", "opened", "opening", "Opening.", '"opens"'])
def test_a_verb_alone_has_the_lemma_of_the_verb(word):
    assert word_lemma(word, HANTA) == "open"


def test_a_word_that_is_no_verb_has_its_own_lemma():
    assert word_lemma("doors", HANTA) == "door"
    assert [word_lemma(text, HANTA) for text in ("?", "12s", "opens/closes", "")] == [None] * 4


@pytest.mark.parametrize("text", ["\ud800", "\x00", "１２ ½ ٣", "'", "-", "😀 é", "'s 's", "a" * 30, "x'y-z"])
def test_the_hanover_tagger_takes_any_text(text):
    assert all(isinstance(lemma, str) for _, lemma, _ in tagged(text, HANTA))


def test_a_tagger_sees_no_more_than_a_long_sentence():
    seen = []
    tagged("opens " * 10_000 + "x" * 200_000, lambda text: seen.append(text) or [])
    tagged(f"opens {'x' * (LONGEST_WORD + 1)} the  door", lambda text: seen.append(text) or [])
    tagged("opens  the\ndoor", lambda text: seen.append(text) or [])
    assert seen == [" ".join(["opens"] * MOST_WORDS), "opens the door", "opens  the\ndoor"]


def test_what_a_tagger_raises_is_one_error():
    def broken(text):
        raise KeyError("state")

    with pytest.raises(TaggingError, match="the tagger failed on 'a door': KeyError: 'state'"):
        verbs("a door", broken)


def test_the_suffix_tagger_strips_letters_and_not_endings():
    assert [verbs(text, SUFFIX) for text in ("person closes it", "He Was eating", "is")] == [
        ["clos"],
        ["Wa", "eat"],
        [""],
    ]


def test_a_tagger_is_loaded_once_and_a_function_is_one():
    assert tagger("hanta") is HANTA
    assert tagger(verbs) is verbs


def test_no_tagger_is_imported_before_it_is_asked_for():
    code = (
        "import sys, rlvtg.text.verbs, rlvtg.text.inverse, rlvtg.data.inverse; "
        "print([name for name in ('HanTa', 'spacy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder whose packages hide installed ones."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("HanTa", "spacy")]:
        monkeypatch.delitem(sys.modules, name)
    from rlvtg.text import verbs as module

    module._loaded.cache_clear()
    yield tmp_path
    module._loaded.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("HanTa", "spacy")]:
        del sys.modules[name]


def test_a_missing_hanover_tagger_says_what_to_install_before_a_model_loads(packages):
    (packages / "HanTa").mkdir()
    (packages / "HanTa" / "__init__.py").write_text("raise ImportError('No module named HanTa')")
    with pytest.raises(RewardError, match=r"tagger 'hanta' needs the package HanTa .*pip install 'rlvtg\[verbs\]'"):
        bind({"verb_completion": Spec()}, ["query", "masked_query", "verb"])


def test_a_name_that_is_no_tagger_says_what_there_is(packages):
    (packages / "spacy.py").write_text("raise ImportError('No module named spacy')")
    with pytest.raises(TaggerError, match="'hnata' would be a spaCy model, and spaCy is not installed.*mean 'hanta'"):
        tagger("hnata")


SPACY = """
from types import SimpleNamespace

def load(name):
    if name != "small_model":
        raise OSError(f"[E050] Can't find model {name!r}.")
    table = {"has": ("have", "AUX", "aux"), "Opened": ("Open", "VERB", "ROOT"), "going": ("go", "VERB", "aux")}
    def tag(text):
        for word in text.split():
            lemma, pos, dep = table.get(word, (word, "NOUN", "dobj"))
            yield SimpleNamespace(text=word, lemma_=lemma, pos_=pos, dep_=dep)
    return tag
"""


def test_a_spacy_model_is_read_by_part_of_speech_and_dependency(packages):
    (packages / "spacy.py").write_text(SPACY)
    tokens = list(tagged("has Opened going door", tagger("small_model")))
    assert tokens == [("has", "have", False), ("Opened", "open", True), ("going", "go", False), ("door", "door", False)]
    with pytest.raises(TaggerError, match="'en_core_web_sm' is not hanta or suffix .*python -m spacy download"):
        tagger("en_core_web_sm")


class Spec:
    weight, args, tasks = 1.0, {}, None
