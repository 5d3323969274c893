"""Grammars whose numbers are shares of the video, and one that writes seconds in tokens of its own."""

import math
import time

import pytest

from rlvtg import recipe
from rlvtg.reward import find
from rlvtg.text.grammar import GrammarError, grammar
from rlvtg.training.experts import expert_completion

RELATIVE = ["percent", "vtimellm", "lita", "seq2time"]
NAMES = [*RELATIVE, "vtg_llm"]
# How far a time can be from what it is written as, in shares of the video; in seconds for vtg_llm.
HALF_STEP = {"percent": 0.00005, "vtimellm": 0.005, "lita": 0.5 / 99, "seq2time": 0.00005, "vtg_llm": 0.05}


@pytest.mark.parametrize(
    ("name", "text", "spans"),
    [
        ("percent", "12.50% to 48.00%", [(25.0, 96.0)]),
        ("percent", "0 % to 100 %", [(0.0, 200.0)]),
        ("vtimellm", "from 05 to 42", [(10.0, 84.0)]),
        ("vtimellm", "between 00 and 99.", [(0.0, 198.0)]),
        ("lita", "<t0> <t99>", [(0.0, 200.0)]),
        ("lita", "<t33> <t66> and then <t80>", [(200 / 3, 400 / 3)]),
        ("lita", "<t66><t33>", [(200 / 3, 400 / 3)]),
        ("seq2time", "<0><7><2><9> - <5><0><0><0>", [(14.58, 100.0)]),
        ("seq2time", "<0> <7> <2> <9> to <5> <0> <0> <0>", [(14.58, 100.0)]),
        (
            "vtg_llm",
            "<TIME_ZERO><TIME_ZERO><TIME_ONE><TIME_TWO><TIME_DOT><TIME_FIVE> - <TIME_NINE><TIME_NINE>",
            [(12.5, 99)],
        ),
        ("vtg_llm", "<TIME_NINE> <TIME_NINE> <TIME_DOT> <TIME_ONE> - <TIME_ONE> seconds", [(1, 99.1)]),
    ],
)
def test_a_number_maps_to_seconds_of_a_video_of_200_seconds(name, text, spans):
    assert grammar(name).parse(text, 200.0) == [pytest.approx(span) for span in spans]
    assert grammar(name).parse(f"<think>{text[::-1]}</think><answer>{text}</answer>", 200.0) == [
        pytest.approx(span) for span in spans
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("percent", "10.0% to 20.0%"),
        ("vtimellm", "from 10 to 20"),
        ("lita", "<t10> <t20>"),
        ("seq2time", "<1><0><0><0> - <2><0><0><0>"),
        (
            "vtg_llm",
            "<TIME_ZERO><TIME_ZERO><TIME_ZERO><TIME_FIVE><TIME_DOT><TIME_ZERO>"
            " - <TIME_ZERO><TIME_ZERO><TIME_ONE><TIME_ZERO><TIME_DOT><TIME_ONE>",
        ),
    ],
)
def test_seconds_are_written_as_the_method_writes_them(name, text):
    end = 10.1 if name in ("lita", "vtg_llm") else 10.0
    assert grammar(name).write([(5.0, end)], 1, 50.0) == text


def test_the_grammars_of_parts_are_those_that_a_recipe_knows_as_such() -> None:
    with pytest.raises(GrammarError) as caught:
        grammar("none")
    names = str(caught.value).split("there is ")[1].split(";")[0].split(", ")
    assert len(names) > 20 and tuple(name for name in names if grammar(name).parts is not None) == recipe.RELATIVE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("duration", [1.0, 30.5, 3723.4])
def test_what_is_written_is_read_back_within_half_a_step(name, duration):
    named = grammar(name)
    step = HALF_STEP[name] * (1.0 if name == "vtg_llm" else duration)
    for share in [0.0, 0.001, 0.1234, 0.3333, 0.5, 0.75, 0.98]:
        span = (share * duration, min(1.0, share + 0.2) * duration)
        text = named.write([span], duration=duration)
        [(start, end)] = named.parse(f"<answer>{text}</answer>", duration)
        # The last index of vtimellm and the last position of seq2time are a step before the end.
        assert abs(start - span[0]) <= step * (1 + 1e-9) + 1e-9
        assert abs(end - span[1]) <= step * (2 + 1e-9) + 1e-9
        assert named.write([(start, end)], duration=duration) == text


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_in_the_grammar(name):
    named = grammar(name)
    [(start, end)] = named.parse(named.example, 100.0)
    assert 0 <= start < end <= 100
    assert named.write([(start, end)], duration=100.0) == named.example


@pytest.mark.parametrize("name", ["vtimellm", "lita", "seq2time"])
def test_a_time_behind_the_end_is_written_as_the_last_there_is(name):
    named = grammar(name)
    assert named.write([(0.0, 70.0)], duration=50.0) == named.write([(0.0, 50.0)], duration=50.0)
    assert 49.0 <= named.parse(named.write([(0.0, 70.0)], duration=50.0), 50.0)[0][1] <= 50.0


def test_vtg_llm_has_no_form_for_three_hours():
    with pytest.raises(ValueError, match="at most four digits"):
        grammar("vtg_llm").write([(0.0, 10800.0)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text", ["", "none", "10 to 20", "<t5>", "5 to 42", "<TIME_DOT> - <TIME_ONE>", "7% 8%", "<1><2> - <3>"]
)
def test_other_ways_of_writing_are_not_read(name, text):
    if (name, text) != ("vtimellm", "10 to 20"):
        assert grammar(name).parse(text, 100.0) == []


@pytest.mark.parametrize("name", RELATIVE)
def test_shares_need_the_videos_duration(name):
    with pytest.raises(GrammarError, match="needs the video's duration in seconds, got None"):
        grammar(name).parse(grammar(name).example)
    with pytest.raises(GrammarError, match="got 0"):
        grammar(name).write([(0.0, 1.0)], duration=0)


def test_a_share_too_long_for_a_float_is_no_time():
    assert grammar("percent").parse(f"0% to {'9' * 400}%", 10.0) == []
    assert grammar("percent").parse(f"0% to {'9' * 308}%", 1e6) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_reward_scores_shares_in_seconds(name):
    text = expert_completion([(20.0, 50.0)], name, template="<answer>{spans}</answer>", duration=100.0)
    [reward] = find("tiou")([text], [[[20.0, 50.0]]], duration=[100.0], grammar=name)
    assert math.isclose(reward, 1.0, abs_tol=0.03)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "unit", ["9", "9.", "9%", "9% to", "99 to ", "<t9>", "<9>", "<9> ", " ", "<TIME_NINE>", "<TIME_NINE> ", "<answer>"]
)
def test_reading_takes_linear_time(name, unit):
    body = unit * (100_000 // len(unit))
    began = time.process_time()
    grammar(name).parse(body, 100.0)
    grammar(name).parse(f"<answer>{body}</answer>", 100.0)
    assert time.process_time() - began < 1.0
