import random
import re

import pytest

from rlvtg.data.inverse import TASKS, inverse_samples
from rlvtg.data.sample import Sample
from rlvtg.text.inverse import InverseRow, added_words, answer_within, released_verbs, target_verbs, without_verb
from rlvtg.text.tags import first_answer, is_answer, is_only_answer, only_answer
from rlvtg.text.verbs import tagger

HANTA = tagger("hanta")


def test_the_blocks_equal_plain_expressions_on_random_text():
    draw = random.Random(0)
    pieces = ["<answer>", "</answer>", "<think>", "</think>", "a", "\n", " ", "<answ"]
    texts = ["".join(draw.choices(pieces, k=draw.randint(0, 7))) for _ in range(20_000)]
    found = [re.findall("<answer>(.*?)</answer>", text, re.DOTALL) for text in texts]
    assert [first_answer(text) for text in texts] == [blocks[0] if blocks else None for blocks in found]
    whole = [bool(re.fullmatch("<answer>.*?</answer>", text.strip(), re.DOTALL)) for text in texts]
    assert [is_answer(text) for text in texts] == whole
    tags = [(text.count("<answer>"), text.count("</answer>")) for text in texts]
    only = [blocks[0] if blocks and count == (1, 1) else None for blocks, count in zip(found, tags, strict=True)]
    assert [only_answer(text) for text in texts] == only
    plain = re.compile(r"\s*(<think>(?:(?!</?think>|</?answer>).)*</think>)?\s*<answer>(.*)</answer>\s*", re.DOTALL)
    blocks = [
        bool(match and count == (1, 1) and match[2].strip())
        for match, count in zip(map(plain.fullmatch, texts), tags, strict=True)
    ]
    assert [is_only_answer(text) for text in texts] == blocks
    assert 50 < sum(blocks) < sum(whole)


@pytest.mark.parametrize(
    ("text", "most", "answer"),
    [
        ("<answer> closes the door.\n</answer>", 3, "closes the door."),
        ("<answer>closes the door</answer>", 2, None),
        ("<answer>12 ?</answer>", 3, None),
        ("<answer> </answer>", 3, None),
        ("<answer></answer>", 3, None),
        ("closes", 3, None),
        ("<answer>closes", 3, None),
        ("</answer>closes<answer>", 3, None),
        ("<answer>a</answer><answer>b</answer>", 3, None),
        (f"<answer>{'a' * 31}</answer>", 3, None),
    ],
)
def test_an_answer_is_a_short_sentence_in_the_only_block(text, most, answer):
    assert answer_within(text, most) == answer


@pytest.mark.parametrize(
    ("query", "verb", "masked"),
    [
        ("person closes the door", "closes", "person the door"),
        ("A person Closes the door.", "closes", "A person the door."),
        ("a person is sneezing.", "sneezing", "a person is."),
        ("a person is putting a book on a shelf.", "putting", "a person is a book on a shelf."),
        ("person takes off their shoes", "takes off", "person their shoes"),
        ("closes, then opens", "closes", ", then opens"),
        ("person closes the door", "opens", None),
        ("person closes the door", "", None),
    ],
)
def test_the_verb_is_deleted_and_no_blank_is_left(query, verb, masked):
    assert without_verb(query, verb) == masked


def test_words_that_the_masked_query_lacks_are_added_and_replaced_ones_are_not():
    assert added_words("person the door", "person closes the door") == ["closes"]
    assert added_words("a man the door", "a person closes the door") == []
    assert released_verbs("a person closes the door", "a man the door", HANTA) == {"close"}


@pytest.mark.parametrize(
    ("query", "masked", "verb", "target"),
    [
        ("person closes the door", "person the door", "closes", {"close"}),
        ("person closes the door", "person the door", "close", {"close"}),
        ("a person is putting a book on a shelf.", "a person is a book on a shelf.", "is putting", {"put"}),
        ("person begins to play on a phone", "person to play on a phone", "begins", {"begin"}),
        ("person closes the door", "person the door", None, set()),
        ("person closes the door", "person the door", " ", set()),
        ("person closes the door", None, "closes", set()),
        ("a red door", "a door", "red", set()),  # no verb
        ("person closes the door", "person the door", "opens", set()),  # not of this query
        ("person closes and closed it", "person and closed it", "closes", set()),  # still there in another tense
    ],
)
def test_a_target_is_a_verb_of_the_query_that_its_masked_form_does_not_give_away(query, masked, verb, target):
    assert target_verbs(InverseRow(query, masked, verb), HANTA) == target


def sample(**changes):
    fields = {"id": "v1", "video": "v1.mp4", "duration": 30.0, "query": "person closes the door", "verb": "closes"}
    return Sample(**{**fields, "spans": ((5.0, 10.0),), **changes})


def test_a_grounding_sample_gives_one_sample_for_each_inverse_task():
    made, left_out = inverse_samples([sample(video_start=100.0, video_end=130.0, completion="5 to 10")])
    assert left_out == []
    assert [(one.id, one.task) for one in made] == [(f"v1/{task}", task) for task in TASKS]
    for one in made:
        assert (one.query, one.masked_query, one.verb) == ("person closes the door", "person the door", "closes")
        assert (one.video_start, one.video_end, one.duration, one.spans) == (105.0, 110.0, 5.0, ((0.0, 5.0),))
        assert one.completion is None


@pytest.mark.parametrize(
    ("span", "shortest", "start", "end"),
    [
        ((5.0, 10.0), 1.0, 5.0, 10.0),
        ((29.0, 31.5), 1.0, 29.0, 30.0),
        ((-1.0, 2.0), 1.0, 0.0, 2.0),
        ((5.0, 5.5), 1.0, 4.75, 5.75),
        ((29.875, 31.0), 1.0, 29.0, 30.0),
        ((0.0, 0.25), 1.0, 0.0, 1.0),
        ((0.0, 0.25), 60.0, 0.0, 30.0),
    ],
)
def test_the_segment_is_limited_to_the_video_and_lasts_two_frames(span, shortest, start, end):
    (one,), _ = inverse_samples([sample(spans=(span,))], tasks=["video_description"], shortest=shortest)
    assert (one.video_start, one.video_end, one.duration) == (start, end, end - start)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "qa"}, "its task is qa"),
        ({"spans": ((1.0, 2.0), (3.0, 4.0))}, "it has 2 spans"),
        ({"verb": None}, "it has no verb"),
        ({"verb": "opens"}, "its query has no 'opens'"),
        ({"query": "person closes it and closes the door"}, "its masked query still has 'closes'"),
        ({"spans": ((10.0, 5.0),)}, "the span is 10.0 to 5.0 s"),
        ({"spans": ((5.0, 5.0),)}, "the span is 5.0 to 5.0 s"),
        ({"spans": ((35.0, 40.0),)}, "the video lasts 30.0 s; they share no time"),
    ],
)
def test_a_sample_that_gives_no_inverse_task_is_left_out_with_its_reason(changes, reason):
    made, ((name, told),) = inverse_samples([sample(**changes)])
    assert (made, name) == ([], "v1") and reason in told


def test_a_tagger_leaves_out_what_the_rewards_would_not_score():
    queries = {"red": "a red door", "closes": "person closes a closed door and closed it", "opens": "person opens it"}
    samples = [sample(id=verb, verb=verb, query=query) for verb, query in queries.items()]
    assert len(inverse_samples(samples, tasks=TASKS[:1])[0]) == 3
    made, left_out = inverse_samples(samples, tasks=TASKS[:1], tagger=HANTA)
    assert [one.verb for one in made] == ["opens"]
    assert [name for name, _ in left_out] == ["red", "closes"]
    with pytest.raises(ValueError, match="did you mean 'action_recognition'"):
        inverse_samples(samples, tasks=["action_recognitoin"])
