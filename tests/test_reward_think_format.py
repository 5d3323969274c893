from rlvtg.reward import find

think_format = find("think_format")


def test_the_blocks_stand_alone_and_in_order():
    assert think_format(["<think>a</think>\n\n <answer>b</answer>", " <think>a</think><answer>b</answer>\n"]) == [1, 1]
    assert think_format(["<answer>b</answer>", "<think>a</think>x<answer>b</answer>", "<think>a</think>"]) == [0, 0, 0]


def test_both_blocks_may_be_empty():
    assert think_format(["<think></think><answer></answer>"]) == [1.0]


def test_one_tag_cannot_serve_twice():
    assert think_format(["<think><answer></answer>", "<think></think><answer>", "</think><answer>"]) == [0.0, 0.0, 0.0]
