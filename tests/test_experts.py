"""The off-policy completion of a group, and its reward."""

import pytest

from rlvtg.text.grammar import GrammarError
from rlvtg.training.experts import controlled_reward, expert_completion


def test_the_annotation_becomes_an_answer():
    assert expert_completion([(7.0, 11.0)], "to") == "<answer> 7.00 to 11.00 </answer>"
    assert expert_completion([(7.0, 11.25)], "to", decimals=1) == "<answer> 7.0 to 11.2 </answer>"


def test_a_template_says_what_stands_around_the_spans():
    text = expert_completion([(7.0, 11.0)], "to", template="<think>a {b}</think><answer>{spans}</answer>")
    assert text == "<think>a {b}</think><answer>7.00 to 11.00</answer>"


@pytest.mark.parametrize(
    ("spans", "template", "fault"),
    [
        ([(7.0, 11.0)], "<answer>7 to 11</answer>", "want one with {spans}"),
        ([(7.0, 11.0)], "{spans}", "does not read"),
        ([], "<answer>{spans}</answer>", "exactly one span"),
        ([(-1.0, 11.0)], "<answer>{spans}</answer>", ">= 0"),
    ],
)
def test_what_could_not_be_rewarded_is_refused(spans, template, fault):
    with pytest.raises(ValueError, match=fault):
        expert_completion(spans, "to", template=template)


def test_an_unknown_grammar_is_named():
    with pytest.raises(GrammarError, match="no grammar is called 'too'"):
        expert_completion([(7.0, 11.0)], "too")


@pytest.mark.parametrize(
    ("scale", "cap", "want"), [(1.0, None, 1.1), (0.5, None, 0.55), (0.5, 0.9, 0.55), (1.0, 0.9, 0.9), (0.0, 0.9, 0.0)]
)
def test_a_reward_is_scaled_then_capped(scale, cap, want):
    assert controlled_reward(1.1, scale=scale, cap=cap) == want
