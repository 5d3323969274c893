from rlvtg.reward import find

answer_format = find("answer_format")


def test_an_answer_block_stands_alone():
    assert answer_format(["<answer>x</answer>", " <answer></answer>\n", "<answer>a</answer> <answer>b</answer>"]) == [
        1.0,
        1.0,
        1.0,
    ]
    assert answer_format(["", "x", "<answer>x</answer> y", "<think></think><answer>x</answer>"]) == [0.0] * 4
    assert answer_format(["<answer>", "</answer>", "<answer>/answer>", "<answer></answer"]) == [0.0] * 4
