import pytest

from rlvtg.reward import find

paragraph_structure = find("paragraph_structure")


def test_lines_of_the_last_think_block_count_up_to_a_bound():
    thoughts = ["one", "one\n\n  \ntwo", "one\ntwo\nthree", " \n ", ""]
    values = [0.05, 0.1, 0.1, 0.0, 0.0]
    assert paragraph_structure([f"<think>{thought}</think>" for thought in thoughts]) == pytest.approx(values)
    assert paragraph_structure(["one\ntwo", "<think>one\ntwo</think><think>one</think>"]) == [0.0, 0.05]
