"""The three rewards of the inverse tasks: what wins and what must not, with a real tagger and with a table of verbs."""

import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError
from tests.invert4tvg_cases import TAGGERS, TASKS, reward

EVERY_TASK = pytest.mark.parametrize("task", TASKS)
EVERY_TAGGER = pytest.mark.parametrize("tagger", TAGGERS.values(), ids=TAGGERS)
LIST = "closes open puts takes sits runs"


@EVERY_TAGGER
@EVERY_TASK
@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "<answer></answer>",
        "<answer> \n</answer>",
        "<answer>?! ...</answer>",
        "<answer>12</answer>",
        "person closes the door",
        "<answer>person closes the door",
        "person closes the door</answer>",
        "</answer>person closes the door<answer>",
        "<answer>closes</answer><answer>closes</answer>",
        "<answer>closes the door</answer></answer>",
        f"<answer>{LIST}</answer>",
        f"<answer>{LIST.replace(' ', ', ')}</answer>",
        f"<answer>{LIST.replace(' ', '/')}</answer>",
        f"<answer>{'closes the door ' * 40}</answer>",
        "<answer>opens</answer>",
        "<answer>person opens the door</answer>",
        "<answer>the door</answer>",
        "<answer>la persona cierra la puerta</answer>",
    ],
)
def test_nothing_but_the_verb_wins(task, text, tagger):
    assert reward(task, text, tagger=tagger) == 0.0


@EVERY_TAGGER
@pytest.mark.parametrize("think", ["", "<think>is it closes, opens or puts?</think>\n"])
@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("verb_completion", "person closes the door"),
        ("verb_completion", "person closed the door"),
        ("verb_completion", " Person is closing the door.\n"),
        ("verb_completion", "closes the door"),
        ("action_recognition", "closes"),
        ("action_recognition", "closed"),
        ("action_recognition", "closing"),
        ("action_recognition", "Close."),
        ("action_recognition", "closes the door"),
        ("video_description", "Somebody in a red shirt closes a door and sits on a couch."),
        ("video_description", "A man is closing the white door of the kitchen."),
        ("video_description", "The door was closed by a person."),
    ],
)
def test_the_verb_wins_in_any_tense(task, answer, think, tagger):
    assert reward(task, f"{think}<answer>{answer}</answer>", tagger=tagger) == 1.0


@EVERY_TAGGER
@EVERY_TASK
@pytest.mark.parametrize("mode", ["robust", "paper"])
@pytest.mark.parametrize(
    "row",
    [
        {"query": "a red door", "masked": "a door", "verb": "red"},
        {"query": "a door", "masked": "a door", "verb": None},
        {"query": "a door", "masked": "a door", "verb": ""},
        {"query": "", "masked": "", "verb": "closes"},
        {"verb": None},
        {"verb": "opens"},
        {"masked": None},
        {"masked": "person closed the door"},
    ],
)
@pytest.mark.parametrize("text", ["", "<answer>a door</answer>", "<answer>person closes the door</answer>"])
def test_a_row_without_a_hidden_verb_is_none_of_the_task(task, mode, row, text, tagger):
    assert reward(task, text, mode=mode, tagger=tagger, **row) is None


@EVERY_TAGGER
def test_a_verb_that_the_masked_query_has_is_not_an_extra_one(tagger):
    row = {"query": "person begins to play on a phone", "masked": "person to play on a phone", "verb": "begins"}
    for answer, value in [("person begins to play on a phone", 1.0), ("person starts to play on a phone", 0.0)]:
        assert reward("verb_completion", f"<answer>{answer}</answer>", tagger=tagger, **row) == value


@EVERY_TAGGER
def test_extra_allows_as_many_other_verbs(tagger):
    hedge = "<answer>person closes and opens the door</answer>"
    assert [reward("verb_completion", hedge, extra=extra, tagger=tagger) for extra in (0, 1)] == [0.0, 1.0]


@EVERY_TAGGER
def test_synonyms_win_and_a_list_of_them_does_not(tagger):
    same = {"close": ["open", "put"]}
    for task, answer in [
        ("verb_completion", "person opens the door"),
        ("action_recognition", "opens"),
        ("video_description", "a man in a red shirt opens the door"),
    ]:
        text = f"<answer>{answer}</answer>"
        assert [reward(task, text, tagger=tagger, synonyms=each) for each in (same, None)] == [1.0, 0.0]
    for task in TASKS:
        assert reward(task, "<answer>opens puts closes</answer>", tagger=tagger, synonyms=same) == 0.0


@EVERY_TAGGER
def test_a_description_is_limited_in_verbs_their_share_and_words(tagger):
    text = "<answer>the person closes it and takes it and puts it and sits and then runs away</answer>"
    assert reward("video_description", text, tagger=tagger, max_verbs=4) == 0.0
    assert reward("video_description", text, tagger=tagger, max_verbs=5) == 1.0
    assert reward("video_description", text, tagger=tagger, max_verbs=5, max_share=0.2) == 0.0
    assert reward("video_description", text, tagger=tagger, max_verbs=5, max_words=15) == 0.0


def test_a_word_limit_of_the_completion_grows_with_the_query():
    text = "<answer>person closes the door of a very big and old white house there</answer>"  # 13 words, the limit
    assert reward("verb_completion", text) == 1.0
    assert reward("verb_completion", text.replace("there", "right there")) == 0.0
    assert reward("verb_completion", text, max_words=12) == 0.0


def test_one_word_leaves_no_room_for_a_second_verb_that_the_tagger_takes_for_a_noun():
    text = "<answer>closes opening</answer>"
    assert [reward("action_recognition", text, max_words=most) for most in (3, 1)] == [1.0, 0.0]


@EVERY_TAGGER
@pytest.mark.parametrize(
    ("task", "answer", "value"),
    [
        ("verb_completion", "person closed the door", 1.0),
        ("verb_completion", LIST, 0.0),
        ("verb_completion", "", 0.0),
        ("action_recognition", "closing", 1.0),
        ("action_recognition", LIST, 1.0),  # the first verb
        ("action_recognition", "", 0.0),
        ("video_description", LIST, 1.0),
        ("video_description", "", 0.0),
    ],
)
def test_the_papers_definitions_have_no_limits(task, answer, value, tagger):
    assert reward(task, f"<answer>{answer}</answer>", mode="paper", tagger=tagger) == value


@EVERY_TASK
def test_a_tagger_that_fails_gives_none_and_is_counted(task):
    def broken(text):
        if "broken" in text:
            raise ValueError("no tags")
        return [(word, word, word == "closes") for word in text.split()]

    counted = {}
    texts = ["<answer>closes</answer>", "<answer>broken</answer>", "<answer>opens</answer>"]
    columns = {"query": ["man closes it"] * 3, "masked_query": ["man it"] * 3, "verb": ["closes"] * 3}
    rewards = find(task)(texts, **columns, log_metric=counted.__setitem__, tagger=broken, **share(task))
    assert rewards == [1.0, None, 0.0]
    assert counted == {f"{task}/tagger_failures": 1.0}


def share(task):
    return {"max_share": 1.0} if task == "video_description" else {}


@EVERY_TASK
@pytest.mark.parametrize(("column", "value"), [("query", None), ("verb", 3), ("masked_query", ["a"])])
def test_an_annotation_that_is_no_text_raises_with_its_row(task, column, value):
    columns = {"query": ["a"] * 2, "masked_query": ["b"] * 2, "verb": ["c"] * 2} | {column: ["a", value]}
    with pytest.raises(AnnotationError, match=f"row 'v2': {column} must be a text"):
        find(task)(["", "junk"], **columns, id=["v1", "v2"])


@EVERY_TASK
def test_an_unknown_mode_is_named_with_the_nearest(task):
    with pytest.raises(ValueError, match="mode is 'robsut'; allowed are robust, paper.*did you mean 'robust'"):
        reward(task, "", mode="robsut")


@EVERY_TAGGER
def test_the_released_reward_is_won_by_lists_and_by_nothing(tagger):
    def original(text, **row):
        return [
            reward("verb_completion", text, mode=mode, tagger=tagger, **row) for mode in ("original", "original_strict")
        ]

    assert original("<answer>person closed the door</answer>") == [1.0, 1.0]
    assert original(f"<answer>{LIST}</answer>") == [1.0, 0.0]
    assert original("") == [0.0, 0.0]
    assert original("", query="a door", masked="a door", verb=None) == [1.0, 1.0]
    assert original("", query="a door", masked=None) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "optional", "required", "forbidden", "released"),
    [
        ("<answer>closes</answer>", 1.0, 0.0, 1.0, 1.0),
        (" <answer>closes\nit</answer>\n", 1.0, 0.0, 1.0, 1.0),
        ("<think>x</think>\n<answer>closes</answer>", 1.0, 1.0, 0.0, 0.0),
        ("<think></think><answer>closes</answer>", 1.0, 1.0, 0.0, 0.0),
        ("<answer></answer>", 0.0, 0.0, 0.0, 1.0),
        ("<answer> </answer>", 0.0, 0.0, 0.0, 1.0),
        ("<answer>a</answer><answer>b</answer>", 0.0, 0.0, 0.0, 1.0),
        ("<answer>a</answer> b", 0.0, 0.0, 0.0, 0.0),
        ("b <answer>a</answer>", 0.0, 0.0, 0.0, 0.0),
        ("<think>x<answer>a</answer>", 0.0, 0.0, 0.0, 0.0),
        ("<think>x</think><think>y</think><answer>a</answer>", 0.0, 0.0, 0.0, 0.0),
        ("<Answer>a</Answer>", 0.0, 0.0, 0.0, 0.0),
        ("", 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_the_format_of_an_inverse_task(text, optional, required, forbidden, released):
    inverse_format = find("inverse_format")
    values = [inverse_format([text], think=think)[0] for think in ("optional", "required", "forbidden")]
    assert [*values, find("answer_format")([text])[0]] == [optional, required, forbidden, released]
    with pytest.raises(ValueError, match="think is 'always'; allowed are optional, required, forbidden"):
        inverse_format([text], think="always")
