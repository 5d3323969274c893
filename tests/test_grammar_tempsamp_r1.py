"""TempSamp-R1's two parsers and its format equal the release's plain expressions, in linear time."""

import random
import re
import time

import pytest

from rlvtg.text.grammar import grammar
from rlvtg.text.grammars.tempsamp_r1 import has_answered_pair
from rlvtg.text.tags import answer_blocks, first_answer, first_line_answer

BLOCK = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
LINE_BLOCK = re.compile(r"<answer>\s*(.*?)\s*</answer>")
A_TO_B = re.compile(r"(\d+\.?\d*)\s*(?:to|and)\s*(\d+\.?\d*)")
A_DASH_B = re.compile(r"(\d+\.?\d*)\s*-\s*(\d+\.?\d*)")
A_SPACED_TO_B = re.compile(r"(\d+\.?\d*)\s+to\s+(\d+\.?\d*)")
WORD = re.compile(r"\b(\d+\.?\d*)\b")
WHOLE_WORD = re.compile(r"\b(\d+\.\d+|\d+)\b")
CLOCK = re.compile(r"\b(\d{1,2}:\d{2}:\d{2}(?:\.\d+)?|\d{1,2}:\d{2}(?:\.\d+)?)\b")
PAIR = re.compile(r"\d+\.?\d*\s*(?:to|and|-)\s*\d+\.?\d*")

TAGS = ["<answer>", "</answer>"]
PIECES = ["7", "12", "3.5", "0", ".", ".", " to ", "to", " and ", "-", " - ", " ", "\n", "s", ":", "10:20", "٣", "TO"]
CLOCKS = ["1:05", "01:02:03", "12:34.5", ":", "5", "59", ".", " to ", "-", " ", "s"]


def strings(pieces, count, longest, seed):
    draw = random.Random(seed)
    return ["".join(draw.choices(pieces, k=draw.randint(0, longest))) for _ in range(count)]


def spans(pairs):
    return [(float(start), float(end)) for start, end in pairs]


def by_two(numbers):
    return [(numbers[i], numbers[i + 1]) for i in range(0, len(numbers) - 1, 2)]


def training(text):
    block = BLOCK.search(text)
    text = block[1] if block else text
    for pattern in (A_TO_B, A_DASH_B):
        if pattern.findall(text):
            return spans(pattern.findall(text)[-1:])
    return spans(by_two(WORD.findall(text)[:2]))


def evaluation(text):
    text = text.lower()
    block = LINE_BLOCK.search(text)
    text = block[1] if block else text
    clocks = [[float(part) for part in clock.split(":")] for clock in CLOCK.findall(text)]
    seconds = [sum(part * 60**power for power, part in enumerate(reversed(clock))) for clock in clocks]
    pairs = by_two(seconds) or A_DASH_B.findall(text) or A_SPACED_TO_B.findall(text)
    return spans(pairs or by_two(WHOLE_WORD.findall(text)))


def strictly(text):
    blocks = BLOCK.findall(text.rstrip())
    return len(blocks) == 1 and text.rstrip().endswith("</answer>") and bool(re.fullmatch(r"[^\n\r]*", blocks[0]))


def test_blocks_equal_the_plain_expressions_on_random_text():
    texts = strings([*TAGS, *TAGS, "<ans", "a", " ", "\n", "\n", "\u2003"], 10000, 14, seed=0)
    lines = [LINE_BLOCK.search(text) for text in texts]
    assert [list(answer_blocks(text)) for text in texts] == [BLOCK.findall(text) for text in texts]
    assert [first_answer(text) for text in texts] == [next(iter(BLOCK.findall(text)), None) for text in texts]
    assert [first_line_answer(text) for text in texts] == [found[1] if found else None for found in lines]
    assert sum("\n" in BLOCK.search(text)[1] for text, found in zip(texts, lines, strict=True) if found) > 50


def test_training_parser_equals_the_plain_expressions_on_random_text():
    texts = strings(PIECES, 6000, 10, seed=1)
    texts += strings([*PIECES, *TAGS, *TAGS], 4000, 14, seed=2)
    assert [grammar("tempsamp_r1").parse(text) for text in texts] == [training(text) for text in texts]
    assert sum(bool(training(text)) for text in texts) > 2000


def test_evaluation_parser_equals_the_plain_expressions_on_random_text():
    texts = strings(PIECES, 6000, 10, seed=3) + strings(CLOCKS, 6000, 10, seed=4)
    texts += strings([*PIECES, *TAGS, *TAGS, "<ANSWER>"], 4000, 14, seed=5)
    assert [grammar("tempsamp_r1_eval").parse(text) for text in texts] == [evaluation(text) for text in texts]
    assert sum(len(evaluation(text)) > 1 for text in texts) > 300


def test_format_equals_the_plain_expressions_on_random_text():
    texts = strings([*PIECES, *TAGS, *TAGS, *TAGS], 6000, 10, seed=6)
    inner = strings(["7", "12", "3.5", ".", " to ", " and ", "-", " - ", " to ", "\n", " ", "s"], 4000, 6, seed=7)
    texts += [f"<answer>{text}</answer>" + " \n." * (index % 4 == 0) for index, text in enumerate(inner)]
    loose = [(block := BLOCK.search(text)) is not None and PAIR.search(block[1]) is not None for text in texts]
    strict = [ok and strictly(text) for ok, text in zip(loose, texts, strict=True)]
    assert [has_answered_pair(text) for text in texts] == loose
    assert [has_answered_pair(text, strict=True) for text in texts] == strict
    assert 50 < sum(strict) < sum(loose) - 50 < len(texts) - 500


@pytest.mark.parametrize(
    ("text", "training", "evaluation"),
    [
        ("<answer>7 to 11, 5 to 9</answer>", [(5, 9)], [(7, 11), (5, 9)]),
        ("<answer>7to11</answer>", [(7, 11)], []),
        ("<answer>1:05 to 1:15</answer>", [(5, 1)], [(65, 75)]),
        ("<answer>1:00:05 - 1:00:15</answer>", [(5, 1)], [(3605, 3615)]),
        ("<ANSWER>7 TO 11</ANSWER>", [(7, 11)], [(7, 11)]),
        ("7.5s, 11s", [], []),
        ("7.0s - 11.0s", [(7, 11)], [(7, 11)]),
        ("<answer>none</answer> 7 to 11", [], []),
    ],
)
def test_training_and_evaluation_read_differently(text, training, evaluation):
    assert grammar("tempsamp_r1").parse(text) == training
    assert grammar("tempsamp_r1_eval").parse(text) == evaluation


@pytest.mark.parametrize("text", [f"0 to {'9' * 400}", f"{'9' * 400}-{'9' * 400}", f"{'9' * 400} 7"])
def test_a_number_too_long_for_a_float_is_no_time(text):
    assert grammar("tempsamp_r1").parse(text) == grammar("tempsamp_r1_eval").parse(text) == []


@pytest.mark.parametrize("name", ["tempsamp_r1", "tempsamp_r1_eval"])
def test_what_is_written_is_read_back(name):
    assert grammar(name).parse(f"<answer> {grammar(name).write([(7.0, 11.25)])} </answer>") == [(7.0, 11.25)]


@pytest.mark.parametrize("end", ["", "s"])
@pytest.mark.parametrize(
    "unit", ["1", "1.", "1:", "1 ", "1 to ", "1-", "<answer>", "<answer>\n", "</answer>", " ", "\n"]
)
def test_reading_takes_linear_time(unit, end):
    body = unit * (100_000 // len(unit)) + end
    began = time.process_time()
    for text in [body, f"<answer>{body}</answer>", f"<answer>a{body}a</answer>"]:
        grammar("tempsamp_r1").parse(text)
        grammar("tempsamp_r1_eval").parse(text)
        has_answered_pair(text, strict=True)
    assert time.process_time() - began < 2.0
