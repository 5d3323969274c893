import pytest

from rlvtg.reward import find

keyword_usage = find("keyword_usage")


def test_different_keywords_of_the_last_think_block_count_up_to_a_bound():
    texts = ["however", "Stepwise, step by step", "WAIT, because", "wait because however", "waving", ""]
    values = [0.1, 0.1, 0.2, 0.2, 0.0, 0.0]
    assert keyword_usage([f"<think>{text}</think>" for text in texts]) == pytest.approx(values)
    assert keyword_usage(["however", "<think>however</think><think>x</think>"]) == [0.0, 0.0]


def test_other_keywords_can_be_looked_for():
    assert keyword_usage(["<think>a dog, however</think>"], keywords=["dog", "cat"], each=1.0) == [1.0]
