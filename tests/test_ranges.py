import math
import random
import re
import time

import pytest

from rlvtg.text.grammar import grammar
from rlvtg.text.grammars import et_bench, ranges
from rlvtg.text.tags import is_empty_answer, only_answer, only_think_answer

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
PLAIN_BLOCKS = re.compile(r"^\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*$", re.DOTALL)
PLAIN_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def strings(pieces, count, longest, seed):
    draw = random.Random(seed)
    return ["".join(draw.choices(pieces, k=draw.randint(0, longest))) for _ in range(count)]


def plain_blocks(text):
    if any(len(re.findall(tag, text)) != 1 for tag in TAGS):
        return None
    found = PLAIN_BLOCKS.search(text)
    return found and found.groups()


def plain_answer(text):
    if any(len(re.findall(tag, text)) != 1 for tag in TAGS[2:]):
        return None
    found = PLAIN_ANSWER.search(text)
    return found and found.group(1)


def plain_evaluation_spans(answer):
    found = re.findall(r"\d+\.*\d*", answer)
    if len(found) % 2 or any(".." in number for number in found if not number.endswith("..")):
        return []
    try:
        pairs = [(float(found[i]), float(found[i + 1])) for i in range(0, len(found), 2)]
    except ValueError:
        return []
    return pairs if all(a < b for a, b in pairs) else []


def plain_et_bench_spans(answer):
    answer = answer.lower()
    pairs = re.findall(r"(\d+\.*\d*)\s*-\s*(\d+\.*\d*)", answer)
    pairs = pairs or re.findall(r"(\d+\.*\d*)\s* to \s*(\d+\.*\d*)", answer)
    if not pairs:
        words = ["starts", "ends", "happens in", "start time", "end time", "start", "end", "happen"]
        told = [part for part in re.split(r"[!?\n]", answer) if any(word in part for word in words)]
        loose = [found[0] for part in told if (found := re.findall(r"\b(\d+\.\d+\b|\b\d+)\b", part))]
        pairs = [(loose[i], loose[i + 1]) for i in range(0, len(loose) // 2 * 2, 2)]
    try:
        return [tuple(sorted((float(a), float(b)))) for a, b in pairs]
    except ValueError:
        return []


def test_blocks_equal_the_papers_expressions_on_random_text():
    middles = strings([*TAGS, *TAGS, " ", "\n", "\xa0", "x", "\x1c"], 20000, 5, seed=0)
    texts = [
        *middles,
        *[f" <think>{middle}</answer>\n" for middle in middles],
        *[f"<think>a{m}b</answer>" for m in middles],
    ]
    blocks = [plain_blocks(text) for text in texts]
    answers = [plain_answer(text) for text in texts]
    assert [only_think_answer(text) for text in texts] == blocks
    assert [only_answer(text) for text in texts] == answers
    assert [is_empty_answer(text) for text in texts] == [a is not None and not a.split() for a in answers]
    assert sum(block is not None for block in blocks) > 500
    assert sum(answer is not None for answer in answers) > sum(block is not None for block in blocks) + 500


def test_evaluation_spans_equal_the_papers_expression_on_random_answers():
    answers = strings(["1", "2", "30", "4", ".", "..", " ", "-", " to ", "٣", "x", "1.5-2.5 "], 20000, 9, seed=1)
    expected = [plain_evaluation_spans(answer) for answer in answers]
    assert [ranges.paired_numbers(answer) for answer in answers] == expected
    assert [grammar("museg_eval").parse(f"<answer>{answer}</answer>") for answer in answers] == expected
    assert sum(map(bool, expected)) > 1000


@pytest.mark.parametrize(
    "joint", [["-", " - ", "- "], [" to ", "  to ", "\xa0to ", "\n to  ", "to"], [" start ", "!", "\n", " end ", "s"]]
)
def test_et_bench_spans_equal_its_expressions_on_random_answers(joint):
    answers = strings(
        ["1", "20", "3", ".", "..", " ", "1.5", "00:10", "x", "_", "٣", *joint, *joint], 20000, 12, seed=2
    )
    expected = [plain_et_bench_spans(answer) for answer in answers]
    assert [et_bench.spans(answer) for answer in answers] == expected
    assert sum(map(bool, expected)) > 500


def test_et_bench_moments_equal_its_expression_on_random_answers():
    answers = strings(["1", "20", ".", "+", "-", "x", " ", "٣"], 10000, 8, seed=3)
    found = [re.search(r"[-+]?\d*\.\d+|[-+]?\d+", answer) for answer in answers]
    assert [et_bench.moment(answer) for answer in answers] == [match and float(match.group(0)) for match in found]


@pytest.mark.parametrize(
    ("answer", "spans"),
    [
        ("10.0-20.0", [(10, 20)]),
        (" 10.00-20.00\n30.00-41.50 ", [(10, 20), (30, 41.5)]),
        ("30-40 5-10", [(30, 40), (5, 10)]),
        ("1e1-2e1", [(10, 20)]),
        ("1_0.0-2_0.0", [(10, 20)]),
        ("１０.０-２０.０", [(10, 20)]),
        ("10-20-30", [(10, 20)]),
        ("10-20 40-30", []),
        ("10-20 30", []),
        ("10-10", []),
        ("10 - 20", []),
        ("10 to 20", []),
        ("10s-20s", []),
        ("10-20,", []),
        ("-5-20", []),
        ("10–20", []),
        ("10-inf", []),
        ("nan-20", []),
        ("10-1e999", []),
        ("", []),
    ],
)
def test_ranges_are_read_all_or_none(answer, spans):
    assert grammar("ranges").parse(f"<think>x</think><answer>{answer}</answer>") == spans


@pytest.mark.parametrize("name", ["ranges", "museg_eval", "et_bench"])
@pytest.mark.parametrize(
    "text",
    [
        "10-20",
        "<answer>10-20",
        "</answer>10-20<answer>",
        "<answer>1-2</answer><answer>10-20</answer>",
        "<think><answer></think><answer>10-20</answer>",
    ],
)
def test_the_answer_block_must_be_the_only_one(name, text):
    assert grammar(name).parse(text) == []
    assert grammar(name).parse("<answer>10-20</answer> and more") == [(10, 20)]


@pytest.mark.parametrize(
    ("answer", "spans"),
    [
        ("from 10.0 to 20.0", [(10, 20)]),
        ("5, 10, 30 and 40", [(5, 10), (30, 40)]),
        ("-5 to 20", [(5, 20)]),
        ("00:10-00:20", [(0, 10), (0, 20)]),
        ("5-10 30", []),
        ("5-10 40-30", []),
        ("10..5-20", []),
        (f"0-{'9' * 400}", []),
    ],
)
def test_the_papers_evaluation_reads_any_even_count_of_numbers(answer, spans):
    assert grammar("museg_eval").parse(f"<answer>{answer}</answer>") == spans


@pytest.mark.parametrize(
    ("answer", "spans"),
    [
        ("25 - 15", [(15, 25)]),
        ("5 - 10, 30 to 40", [(5, 10)]),
        ("5 TO 10, 30 to 40", [(5, 10), (30, 40)]),
        ("Start: 10.0s\nEnd: 20.0s", [(10, 20)]),
        ("it starts at 10 s", []),
        ("10..5 - 20", []),
        (f"0 - {'9' * 400}", []),
    ],
)
def test_et_bench_reads_prose(answer, spans):
    assert grammar("et_bench").parse(f"<answer>{answer}</answer>") == spans


@pytest.mark.parametrize("name", ["ranges", "museg_eval", "et_bench"])
def test_what_is_written_is_read_back(name):
    entry = grammar(name)
    assert entry.write([(10, 20), (30, 41.5)]) == entry.example
    assert entry.parse(f"<answer>{entry.example}</answer>") == [(10, 20), (30, 41.5)]
    assert entry.write([]) == ""


@pytest.mark.parametrize(
    "unit", ["9", "9.", ".", "1 ", "1-", "1 to ", " ", "1_", "+", "start 1\n", "1. ", "end", "-", "1-2 ", "<answer>"]
)
def test_reading_takes_linear_time(unit):
    body = unit * (200_000 // len(unit))
    began = time.process_time()
    for name in ["ranges", "museg_eval", "et_bench"]:
        grammar(name).parse(f"<answer>{body}</answer>")
    ranges.numbers(body)
    et_bench.moment(body)
    only_think_answer(f"<think>{body}</think>{body}<answer></answer>")
    assert time.process_time() - began < 1.0


def test_a_number_too_long_for_a_float_is_no_time():
    assert grammar("ranges").parse(f"<answer>0-{'9' * 400}</answer>") == []
    assert math.isfinite(grammar("ranges").parse(f"<answer>0-{'9' * 300}</answer>")[0][1])
