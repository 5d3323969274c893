import random
import re
import time

import pytest

from rlvtg.text.citation import is_cited, is_matched


def plain(times, think):
    return all(1 <= len(re.findall(each, think, re.DOTALL)) <= 10 for each in times)


def test_matches_equal_the_papers_expressions_on_random_text():
    draw = random.Random(0)
    numbers = [
        "1",
        "10",
        "0.1",
        "1.5",
        "11.1",
        "111.1",
        "1e16",
        "1.5e16",
        "15e15",
        "1e22",
        "1e-5",
        "0.00015",
        "inf",
        "nan",
    ]
    pieces = ["1", "1", "0", "e", ".", "5", "1.0", "inf", "nan", "\n", " ", "16", "1e16", "1e-05", "6", "22", "1.5"]
    truths = 0
    for _ in range(20000):
        times = [str(float(each)) for each in draw.choices(numbers, k=draw.randint(0, 2))]
        think = "".join(draw.choices(pieces, k=draw.randint(0, 40)))
        assert is_matched(times, think) == plain(times, think), (times, think)
        truths += bool(times) and plain(times, think)
    assert truths > 1000


def test_matches_of_one_time_do_not_overlap_and_those_of_two_times_may():
    assert is_matched(["1.1"], "1" * 32) and plain(["1.1"], "1" * 32)
    assert not is_matched(["1.1"], "1" * 33) and not plain(["1.1"], "1" * 33)
    assert is_matched(["1.0", "11.0"], "11.0") and plain(["1.0", "11.0"], "11.0")


@pytest.mark.parametrize(
    ("times", "think", "code", "numeric"),
    [
        ([10.0, 20.0], "from 10.0 to 20.0", True, True),
        ([10.0, 20.0], "from 10 to 20", False, True),
        ([5.0, 10.0], "500 and 1000", True, False),
        ([5.0, 10.0], "15.0 and 110.0", True, False),
        ([12.3, 18.55], "from 12.30 to 18.55", True, True),
        ([12.3], "at 12.34", True, True),
        ([12.3], "at 12.4", False, False),
        ([10.0], "10.0 " * 10, True, True),
        ([10.0], "10.0 " * 11, False, True),
        ([10.0, 20.0], "from 10.0", False, False),
        ([float("inf")], "inf", True, False),
        ([float("nan")], "nan", True, False),
        ([], "", True, True),
        ([1.0], "", False, False),
    ],
)
def test_a_time_is_cited_by_its_text_or_by_its_value(times, think, code, numeric):
    assert is_cited(times, think, "code", 0.05) is code
    assert is_cited(times, think, "numeric", 0.05) is numeric


def test_the_tolerance_is_in_seconds():
    assert is_cited([10.0], "at 12", "numeric", 2.0)
    assert not is_cited([10.0], "at 12", "numeric", 1.9)


def test_a_setting_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="got citation 'numerical'; there is code, numeric; did you mean 'numeric'"):
        is_cited([1.0], "1.0", "numerical", 0.05)
    with pytest.raises(ValueError, match="got tolerance -1"):
        is_cited([1.0], "1.0", "numeric", -1)


def test_twenty_thousand_times_are_looked_for_in_one_pass():
    draw = random.Random(1)
    text = "0123456789" * 10000
    cited = {f"{text[i]}{text[i + 1]}.{text[i + 3]}" for i in range(10)}
    times = [*cited, *{f"{draw.randint(0, 10**9)}.5" for _ in range(20000)}]
    for think in [text, "1" * 100_000, "1e" * 50000]:
        began = time.process_time()
        assert not is_matched(times, think)
        assert not is_cited([float(each) for each in times], think, "numeric", 0.01)
        assert time.process_time() - began < 1.0
