"""The off-policy completion of a group, and its reward."""

import pytest

from rlvtg.model.tiny import tiny_processor
from rlvtg.recipe import Expert
from rlvtg.text.grammar import GrammarError
from rlvtg.training.experts import are_experts, controlled_reward, expert_completion, expert_text, expert_tokens

ROW = {"id": "row 7", "spans": [[7.0, 11.0]], "duration": 20.0}


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


def test_a_rows_expert_is_written_as_the_recipe_says_and_a_fault_names_the_row():
    assert expert_text(ROW, "to", Expert("<answer>{spans}</answer>", decimals=1)) == "<answer>7.0 to 11.0</answer>"
    with pytest.raises(ValueError, match="row 'row 7' has no expert completion: got template 'none'"):
        expert_text(ROW, "to", Expert("none"))
    with pytest.raises(ValueError, match="row 'row 7' has no expert completion: grammar 'to' writes exactly one span"):
        expert_text({**ROW, "spans": [[1.0, 2.0], [3.0, 4.0]]}, "to", Expert("<answer>{spans}</answer>"))


def test_its_tokens_end_the_sequence_and_are_no_more_than_a_policy_may_write():
    tokenizer, expert = tiny_processor().tokenizer, Expert("<answer>{spans}</answer>")
    ids = expert_tokens(ROW, "to", expert, tokenizer, 64)
    assert tokenizer.decode(ids[:-1]) == "<answer>7.00 to 11.00</answer>"
    assert ids[-1] == tokenizer.eos_token_id
    assert expert_tokens(ROW, "to", expert, tokenizer, len(ids)) == ids
    with pytest.raises(ValueError, match=f"'row 7': its expert .* has {len(ids)} tokens, but max_completion_length is"):
        expert_tokens(ROW, "to", expert, tokenizer, len(ids) - 1)


def test_the_last_of_each_group_is_the_experts():
    assert are_experts(6, 3) == [False, False, True, False, False, True]
