import ast
import math
import random
import re
import time

import pytest

from rlvtg.text.completion import completion_text
from rlvtg.text.grammar import grammar
from rlvtg.text.grammars.boxes import parse as parse_boxes
from rlvtg.text.tags import first_answer, is_blocks, is_think_answer, last_answer, last_think, timestep_ranges

PLAIN_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
PLAIN_PAIR = re.compile(r"(\d+\.?\d*) (to|and) (\d+\.?\d*)", re.IGNORECASE)
PLAIN_PAIR_AS_WRITTEN = re.compile(r"(\d+\.?\d*) (to|and) (\d+\.?\d*)")
PLAIN_NUMBER = re.compile(r"\d+(?:\.\d+)?")
PLAIN_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
PLAIN_TIMESTEP = re.compile(r"<timestep>\s*(\d+\.?\d*)\s+to\s+(\d+\.?\d*)\s*</timestep>", re.IGNORECASE | re.DOTALL)
PLAIN_LIST = re.compile(r"^\[(\(\d+(\.\d+)?,\s*\d+(\.\d+)?\)(,\s*\(\d+(\.\d+)?,\s*\d+(\.\d+)?\))*(,)?|)\]$")
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


def test_blocks_equal_the_papers_expressions_on_random_text():
    glue = ["<glue>", "</glue>"]
    texts = strings([*TAGS, *TAGS[2:], *glue, *glue, " ", "x"], 8000, 9, seed=3)
    for tags in [("answer",), ("answer", "glue"), ("think", "answer", "glue")]:
        plain = re.compile(r"\s*".join(f"<{tag}>.*?</{tag}>" for tag in tags), re.DOTALL)
        around = [f"<{tags[0]}>{text}</{tags[-1]}>" for text in texts]
        expected = [plain.fullmatch(text.strip()) is not None for text in [*texts, *around]]
        assert [is_blocks(text, *tags) for text in [*texts, *around]] == expected
        assert sum(expected) > 20
    found = [PLAIN_THINK.findall(text) for text in texts]
    assert [last_think(text) for text in texts] == [each[-1].strip() if each else None for each in found]
    found = [PLAIN_ANSWER.search(text) for text in texts]
    assert [first_answer(text) for text in texts] == [match and match[1] for match in found]


def test_timesteps_equal_the_papers_expression_on_random_text():
    pieces = ["<timestep>", "</timestep>", "<TimeStep>", "1", "2.", "3.5", " ", "\n", " to ", " TO ", "-"]
    texts = strings([*pieces, "<timestep>1 to 2", " to 3</timestep>"], 20000, 9, seed=4)
    found = [len(PLAIN_TIMESTEP.findall(text)) for text in texts]
    assert [timestep_ranges(text) for text in texts] == found
    assert sum(map(bool, found)) > 50


@pytest.mark.parametrize("name", ["time_r1_eval", "timezero_eval", "videochat_r1_eval", "invert4tvg_eval"])
def test_evaluations_equal_the_papers_expression_on_random_text(name):
    texts = strings([*NUMBERS, *NUMBERS[:4], " to ", " and ", "<answer>", "</answer>"], 5000, 16, seed=5)
    pairs = [PLAIN_PAIR_AS_WRITTEN.findall(text) for text in texts]
    assert [grammar(name).parse(text) for text in texts] == [
        [(float(found[-1][0]), float(found[-1][2]))] if found else [] for found in pairs
    ]
    assert sum(len(found) > 1 for found in pairs) > 20


def test_the_first_two_numbers_equal_the_papers_expression_on_random_text():
    texts = strings(NUMBERS, 5000, 10, seed=6)
    found = [PLAIN_NUMBER.findall(text)[:2] for text in texts]
    expected = [[(float(each[0]), float(each[1]))] if len(each) == 2 else [] for each in found]
    assert [grammar("time_r1_force").parse(text) for text in texts] == expected


def plain_list(text):
    """The spans of a list as VideoChat-R1 reads it, with its expression and then as Python; None if invalid."""
    if not PLAIN_LIST.match(text):
        return None
    try:
        spans = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None
    return None if any(start > end for start, end in spans) else spans


def test_lists_of_tuples_equal_the_papers_reading_on_random_text():
    draw = random.Random(7)
    numbers = ["0", "00", "05", "05.0", "00.5", "7", "12", "3.5", "20.0", "5.", ".5", "-1", "1e1", "٣", "1_0"]
    space = ["", "", "", " ", "\n", "\t", "\r", "\f", "\v", "\xa0", "\u2003", "\x1c", "  "]

    def some(pieces, odd=0.06):
        return draw.choice(pieces) if draw.random() < odd else ""

    texts = []
    for _ in range(12000):
        tuples = [
            f"({draw.choice(numbers if draw.random() < 0.1 else numbers[5:9])}{some(space)},{some(space, 0.3)}"
            f"{draw.choice(numbers if draw.random() < 0.1 else numbers[5:9])}{some([',', ' ', ')'])})"
            for _ in range(draw.randint(0, 4))
        ]
        body = ("," + draw.choice(space)).join(tuples)
        tail = some([",", " ", ",,"]) + "]" + some(["\n", " ", "\r", "x"], 0.2)
        texts.append(f"{some(space)}[{some(space)}{body}{tail}")
    expected = [plain_list(text) for text in texts]
    for name, block, most in [("glue", "glue", 9), ("glue_few", "glue", 3), ("tuples_few", "answer", 3)]:
        for text, spans in zip(texts, expected, strict=True):
            got = grammar(name).parse(f"<{block}>{text}</{block}><{block}>[(1, 2)]</{block}>")
            assert got == (spans if spans is not None and len(spans) <= most else []), (name, text)
            assert grammar(name).says_none(f"<{block}>{text}</{block}>") is (spans == [])
    assert sum(bool(spans) for spans in expected) > 1000
    assert sum(spans == [] for spans in expected) > 300


@pytest.mark.parametrize("content", ["[(10, 20)]", "[(10, 20),]", "[(10,\n20)]\n"])
def test_a_list_is_read_from_the_first_block_of_its_kind(content):
    assert grammar("glue").parse(f"<answer>A</answer><glue>{content}</glue><glue>[]</glue>") == [(10, 20)]
    assert grammar("tuples_few").parse(f"<answer>{content}</answer><answer>[]</answer>") == [(10, 20)]
    assert grammar("glue").parse(f"<answer>{content}</answer>") == grammar("glue").parse(content) == []


@pytest.mark.parametrize("name", ["to", "to_ordered", "time_r1_eval", "time_r1_force"])
def test_one_span_cannot_say_that_there_is_none(name):
    assert not grammar(name).says_none("<answer></answer>")


def test_a_list_with_a_number_too_long_for_a_float_is_no_list():
    for text in [f"[(0, {'9' * 400})]", f"[(0, {'9' * 400}.0)]", f"[(0, {'9' * 5000})]"]:
        assert grammar("glue").parse(f"<glue>{text}</glue>") == []


@pytest.mark.parametrize("name", ["glue", "glue_few", "tuples_few"])
def test_lists_are_written_as_they_are_read(name):
    block = "answer" if name == "tuples_few" else "glue"
    named = grammar(name)
    spans = [(3.25, 11.5), (20.0, 24.0)]
    assert named.write(spans) == named.example
    for written in [spans, [(0.0, 0.5)], []]:
        assert named.parse(f"<{block}>{named.write(written)}</{block}>") == written
    assert named.parse(f"<{block}>{named.write(spans, 0)}</{block}>") == [(3, 12), (20, 24)]
    assert named.says_none(f"<{block}>{named.write([])}</{block}>")
    with pytest.raises(ValueError, match="starts after its end"):
        named.write([(2, 1)])
    if name != "glue":
        with pytest.raises(ValueError, match="more than 3 spans would not be read back, got 4"):
            named.write([(1, 2)] * 4)


def test_an_ordered_span_does_not_start_after_its_end():
    ordered = grammar("to_ordered")
    texts = ["10 to 20", "15 to 15", "20 to 10", "1 to 2, 20 to 10"]
    assert [ordered.parse(f"<answer>{text}</answer>") for text in texts] == [[(10, 20)], [(15, 15)], [], []]
    assert ordered.write([(3.25, 11.5)]) == ordered.example
    with pytest.raises(ValueError, match="starts after its end"):
        ordered.write([(2, 1)])


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
@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1.",
        "1 to ",
        "<answer>",
        "<think>",
        "</think> ",
        "</think>",
        "<glue>",
        "<timestep>1 ",
        "(1, 2), ",
        "(1,",
        "[1, 2, 3, 4], ",
        " ",
        "\n",
    ],
)
def test_reading_takes_linear_time(unit, length):
    body = unit * (length // len(unit))
    began = time.process_time()
    for text in [body, f"<answer>{body}</answer>", f"<think>{body}</answer>"]:
        for name in ["to", "to_ordered", "time_r1_eval", "time_r1_force", "tuples_few"]:
            grammar(name).parse(text)
        is_think_answer(text)
        is_blocks(text, "think", "answer", "glue")
        timestep_ranges(text)
    for around in ["[{}]", "[{}", "[(1, 2), {}]"]:
        grammar("glue").parse(f"<glue>{around.format(body)}</glue>")
        parse_boxes(around.format(body))
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
