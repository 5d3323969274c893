import random
import re
import time

import pytest

from rlvtg.text.grammar import grammar
from rlvtg.text.tags import first_answer, is_think_answer, is_thinking_answer, opening_answer, thinking_answer

# The expressions of TencentARC/TimeLens@5d90c06, as they stand there.
PLAIN_OPENING = re.compile(r"<think>.*?</think>\s*<answer>(.*?)</answer>", re.DOTALL)
PLAIN_STAMP = re.compile(r"\b(\d{1,2}:\d{2}:\d{2}(?:\.\d+)?|\d{1,2}:\d{2}(?:\.\d+)?)\b")
PLAIN_RULES = [re.compile(r"(\d+\.?\d*)\s*-\s*(\d+\.?\d*)"), re.compile(r"(\d+\.?\d*)\s+to\s+(\d+\.?\d*)")]
PLAIN_NUMBER = re.compile(r"\b(\d+\.\d+|\d+)\b")
# Of MCG-NJU/TimeLens2@a5ce450.
T = "(?:redacted_)?thinking"
PLAIN_THINKING = re.compile(rf"<{T}>.*?</{T}>\s*<answer>(.*?)</answer>", re.DOTALL)
PLAIN_THINKING_FORMAT = re.compile(rf"<{T}>.*?</{T}>\s*<answer>.*?</answer>", re.DOTALL)

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
THINKING_TAGS = ["<thinking>", "</thinking>", "<redacted_thinking>", "</redacted_thinking>", "<answer>", "</answer>"]
# fmt: off
NUMBERS = ["0", "7", "12", "99", "3.5", ".", "..", ":", "00:10", "1:02:03", "59:59.5", "٣", "-", " - ", " to ", " TO ",
           "to", " and ", " ", "\n", ",", "s", "x", "_"]
# fmt: on


def strings(pieces, count, longest, seed):
    draw = random.Random(seed)
    return ["".join(draw.choices(pieces, k=draw.randint(0, longest))) for _ in range(count)]


def in_seconds(stamp):
    *minutes, second = stamp.split(":")
    return sum(60 * 60**place * int(part) for place, part in enumerate(reversed(minutes))) + float(second)


def group(match):
    return match[1] if match else None


def plain_reading(text):
    stamps = PLAIN_STAMP.findall(text)
    if len(stamps) > 1:
        return [in_seconds(stamp) for stamp in stamps][: len(stamps) // 2 * 2]
    for rule in PLAIN_RULES:
        if pairs := rule.findall(text):
            return [float(number) for pair in pairs for number in pair]
    numbers = PLAIN_NUMBER.findall(text)
    return [float(number) for number in numbers][: len(numbers) // 2 * 2]


def test_both_released_readings_equal_the_plain_expressions_on_random_answers():
    texts = strings(NUMBERS, 20000, 12, seed=1)
    for name, prepared in [("timelens_eval", str.lower), ("timelens", lambda text: text.lower().replace("to", "-"))]:
        read = [[number for span in grammar(name).parse(text) for number in span] for text in texts]
        assert read == [plain_reading(prepared(text)) for text in texts]
        assert sum(len(numbers) > 2 for numbers in read) > 1500


def test_the_blocks_equal_the_plain_expressions_on_random_text():
    texts = strings([*TAGS, *TAGS, " ", "\n", "x"], 10000, 9, seed=2)
    texts += ["<think>" + text for text in texts]
    opening = [group(PLAIN_OPENING.match(text)) for text in texts]
    assert [opening_answer(text) for text in texts] == opening
    assert 300 < sum(answer is not None for answer in opening) < len(texts) - 300
    assert [first_answer(t) for t in texts] == [group(re.search("<answer>(.*?)</answer>", t, re.DOTALL)) for t in texts]
    whole = [re.fullmatch(PLAIN_OPENING.pattern, text, re.DOTALL) is not None for text in texts]
    assert [is_think_answer(text, strip=False) for text in texts] == whole


def test_the_thinking_blocks_equal_the_plain_expressions_on_random_text():
    texts = strings([*THINKING_TAGS, " ", "\n", "x"], 10000, 9, seed=3)
    texts += ["<thinking>" + text + "</answer>" for text in texts]
    answers = [group(PLAIN_THINKING.search(text)) for text in texts]
    assert [thinking_answer(text) for text in texts] == answers
    assert 300 < sum(answer is not None for answer in answers) < len(texts) - 300
    whole = [PLAIN_THINKING_FORMAT.fullmatch(text) is not None for text in texts]
    assert [is_thinking_answer(text) for text in texts] == whole
    assert sum(whole) > 300


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("The event happens in 10.0 - 20.0 seconds.", [(10, 20)]),
        ("The event happens in 10 - 20 seconds", [(10, 20)]),
        ("The event happens in 10.0 - 20.0 seconds, 30.0 - 40.5 seconds.", [(10, 20), (30, 40.5)]),
        ("The event happens in 10.0 - 20.0, 30.0 - 40.0 seconds.", [(10, 20), (30, 40)]),
        ("The event happens in 20.0 - 10.0 seconds.", [(20, 10)]),
        (" <think>1 - 2</think><answer>It happens in 10.0 - 20.0 seconds.</answer>", [(10, 20)]),
        ("It happens in 1 - 2 seconds. No, it happens in 3 - 4 seconds.", [(3, 4)]),
        ("<think>1 - 2 or 3 - 4</think>", []),
        ("10.0 - 20.0", []),
        ("The event happens in 10.0 to 20.0 seconds.", []),
        ("The event happens in 10.0s - 20.0s.", []),
        ("The event happens in 00:10 - 00:20 seconds.", []),
        ("The event happens in 10 - 00:20 seconds.", []),
        ("The event happens in 5 - 10:20 seconds.", []),
        ("The event happens in -5.0 - 20.0 seconds.", []),
        ("The event happens in tomato 10 stop 20.", []),
        (f"The event happens in 10 - {'9' * 400} seconds.", []),
        ("", []),
    ],
)
def test_the_strict_reading_takes_the_sentence_and_nothing_else(text, spans):
    assert grammar("happens_in").parse(text) == spans


@pytest.mark.parametrize(
    ("text", "training", "evaluation"),
    [
        ("10.0 - 20.0 seconds", [(10, 20)], [(10, 20)]),
        ("10.0 to 20.0", [(10, 20)], [(10, 20)]),
        ("10.0to20.0", [(10, 20)], [(10, 0)]),
        ("10s to 20s", [], []),
        ("10.5s to 20.5s", [(10, 20)], [(10, 20)]),
        ("1 stop 2", [(1, 2)], [(1, 2)]),
        ("1 ato 2 - 3", [(2, 3)], [(2, 3)]),
        ("00:00:10.500 - 00:00:20.250", [(10.5, 20.25)], [(10.5, 20.25)]),
        ("00:10, 5 - 6", [(5, 6)], [(5, 6)]),
        ("00:10, 00:20, 5 - 6", [(10, 20)], [(10, 20)]),
        ("<think>1 - 2</think><answer>3 - 4</answer>", [(3, 4)], [(1, 2), (3, 4)]),
        (" <think>1 - 2</think><answer>3 - 4</answer>", [(1, 2), (3, 4)], [(1, 2), (3, 4)]),
        (f"1 - 2, 3 - {'9' * 400}, 5 - 6", [(1, 2)], [(1, 2)]),
    ],
)
def test_the_released_readings_take_almost_any_two_numbers(text, training, evaluation):
    assert grammar("timelens").parse(text) == training
    assert grammar("timelens_eval").parse(text) == evaluation


@pytest.mark.parametrize("name", ["happens_in", "timelens", "timelens_eval"])
def test_all_three_write_the_sentence_and_read_it(name):
    chosen = grammar(name)
    assert chosen.write([(3.25, 11.5)]) == chosen.example == "The event happens in 3.25 - 11.50 seconds."
    several = chosen.write([(10, 20), (30.04, 40.06)], 1)
    assert several == "The event happens in 10.0 - 20.0 seconds, 30.0 - 40.1 seconds."
    assert chosen.parse(several) == [(10, 20), (30, 40.1)]


@pytest.mark.parametrize("unit", ["9", "9.", "1:", "00:10 ", "1 - ", "1 to ", "to", " ", "<think>", "</think> ", "1\n"])
def test_reading_takes_linear_time(unit):
    body = unit * (200_000 // len(unit))
    text = f"<think>{body}</think><answer>The event happens in {body}</answer>"
    for name in ["happens_in", "timelens", "timelens_eval"]:
        began = time.process_time()
        grammar(name).parse(text)
        assert time.process_time() - began < 1.0
