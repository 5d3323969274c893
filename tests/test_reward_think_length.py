import pytest

from rlvtg.reward import find

think_length = find("think_length")


def test_characters_of_the_last_think_block_count_up_to_a_bound():
    texts = ["<think> abc </think>", "<think>abc</think><think>a\nb</think>", f"<think>{'x' * 900}</think>", "abc", ""]
    assert think_length(texts) == pytest.approx([0.003, 0.003, 0.5, 0.0, 0.0])
    assert think_length(texts[:1], each=1.0, most=2) == [2.0]
