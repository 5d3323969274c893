import math
import random
import re
import time

import pytest

from rlvtg.text.completion import completion_text
from rlvtg.text.grammar import grammar
from rlvtg.text.tags import is_think_answer, last_answer

PLAIN_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
PLAIN_PAIR = re.compile(r"(\d+\.?\d*) (to|and) (\d+\.?\d*)", re.IGNORECASE)
PLAIN_FORMAT = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
NUMBERS = [
    "0",
    "7",
    "12",
    "3.5",
    ".",
    "..",
    "1.2.3",
    "٣",
    " to ",
    " TO ",
    " and ",
    " And ",
    " to to ",
    "to",
    " ",
    "\n",
    "-",
    ",",
]


def strings(pieces, count, longest, seed):
    draw = random.Random(seed)
    return ["".join(draw.choices(pieces, k=draw.randint(0, longest))) for _ in range(count)]


def test_last_answer_equals_the_papers_expression_on_random_text():
    texts = strings([*TAGS, "<ans", "wer>", "a", "\n"], 4000, 12, seed=0)
    blocks = [PLAIN_ANSWER.findall(text) for text in texts]
    assert [last_answer(text) for text in texts] == [found[-1] if found else None for found in blocks]
    assert sum(len(found) > 1 for found in blocks) > 50


def test_to_equals_the_papers_expression_on_random_answers():
    answers = strings([*NUMBERS, *NUMBERS[:4], " to ", " to ", " and "], 20000, 16, seed=1)
    pairs = [PLAIN_PAIR.findall(answer) for answer in answers]
    expected = [[(float(found[-1][0]), float(found[-1][2]))] if found else [] for found in pairs]
    assert [grammar("to").parse(f"<answer>{answer}</answer>") for answer in answers] == expected
    assert sum(len(found) > 1 for found in pairs) > 400


def test_think_answer_equals_the_papers_expression_on_random_text():
    texts = strings([*TAGS, *TAGS, " ", "\n", "\xa0", "x"], 20000, 7, seed=2)
    around = ["<think>" + text + "</answer>" for text in texts]
    expected = [PLAIN_FORMAT.fullmatch(text.strip()) is not None for text in [*texts, *around]]
    assert [is_think_answer(text) for text in [*texts, *around]] == expected
    assert 500 < sum(expected) < len(expected) - 500


@pytest.mark.parametrize(
    ("answer", "spans"),
    [
        ("12.54 to 17.83", [(12.54, 17.83)]),
        ("10 And 20", [(10, 20)]),
        ("From 10 to 20 seconds", [(10, 20)]),
        ("10 to 20 to 30", [(10, 20)]),
        ("10 to 20, 1 to 2", [(1, 2)]),
        ("-5 to 10", [(5, 10)]),
        ("12,5 to 17,8", [(5, 17)]),
        ("00:05 to 00:09", [(5, 0)]),
        ("1e1 to 2e1", [(1, 2)]),
        (".5 to 20", [(5, 20)]),
        ("20 to 10", [(20, 10)]),
        ("10s to 20s", []),
        ("10 - 20", []),
        ("10  to  20", []),
        ("10to20", []),
        ("10\xa0to\xa020", []),
        ("10\nto\n20", []),
        ("", []),
    ],
)
def test_to_reads_the_last_pair_of_the_answer(answer, spans):
    assert grammar("to").parse(f"<think>1 to 2</think><answer>{answer}</answer>") == spans


@pytest.mark.parametrize("text", ["", "10 to 20", "<answer>10 to 20", "10 to 20</answer>", "<Answer>10 to 20</Answer>"])
def test_to_needs_a_closed_answer_block(text):
    assert grammar("to").parse(text) == []


def test_to_reads_the_last_block_even_when_an_earlier_one_has_the_pair():
    assert grammar("to").parse("<answer>1 to 2</answer><answer>none</answer>") == []


def test_a_number_too_long_for_a_float_is_no_time():
    assert grammar("to").parse(f"<answer>0 to {'9' * 400}</answer>") == []
    assert math.isfinite(grammar("to").parse(f"<answer>0 to {'9' * 300}</answer>")[0][1])


def test_to_writes_what_it_reads():
    to = grammar("to")
    assert to.write([(3.25, 11.5)], 2) == to.example == "3.25 to 11.50"
    assert to.parse(f"<answer>{to.write([(0, 7.127)], 1)}</answer>") == [(0.0, 7.1)]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([], "exactly one span, got 0"),
        ([(1, 2), (3, 4)], "exactly one span, got 2"),
        ([(-1.0, 2.0)], r"finite times >= 0, got \(-1.0, 2.0\)"),
        ([(0.0, math.nan)], "finite times >= 0"),
    ],
)
def test_to_does_not_write_what_it_could_not_read_back(spans, message):
    with pytest.raises(ValueError, match=message):
        grammar("to").write(spans, 2)


def test_an_unknown_grammar_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="no grammar is called 'too'; there is to, .*; did you mean 'to'?"):
        grammar("too")


@pytest.mark.parametrize("length", [10_000, 50_000, 200_000])
@pytest.mark.parametrize("unit", ["1", "1.", "1 to ", "<answer>", "<think>", "</think> ", "</think>", " ", "\n"])
def test_reading_takes_linear_time(unit, length):
    body = unit * (length // len(unit))
    began = time.process_time()
    for text in [body, f"<answer>{body}</answer>", f"<think>{body}</answer>"]:
        grammar("to").parse(text)
        is_think_answer(text)
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("a", "a"),
        ([{"role": "assistant", "content": "a"}], "a"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], "a"),
        ([{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}], "a"),
        ([{"role": "assistant", "content": None}], ""),
        ([], ""),
    ],
)
def test_completion_text_reads_strings_and_messages(completion, text):
    assert completion_text(completion) == text


def test_a_completion_of_another_shape_is_the_callers_error():
    with pytest.raises(TypeError, match="a string or a list of messages, got int"):
        completion_text(3)
