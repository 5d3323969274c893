from rlvtg.reward import find

glue_format = find("glue_format")
GOOD = "<think>t</think><answer>A</answer><glue>[(5.2, 10.4)]</glue>"


def test_three_blocks_in_order_with_a_list_in_the_last():
    assert glue_format([GOOD, f" {GOOD}\n", GOOD.replace("><", ">\n<"), GOOD.replace("(5.2, 10.4)", "")]) == [1.0] * 4
    assert glue_format([GOOD + "x", GOOD.replace("5.2", "-5"), GOOD.replace("think", "thought"), ""]) == [0.0] * 4
    assert glue_format(["<think>t</think><glue>[]</glue><answer>A</answer>"]) == [0.0]


def test_the_first_glue_block_counts():
    assert glue_format([GOOD.replace("t</think>", "<glue>x</glue></think>")]) == [0.0]


def test_the_thinking_can_be_left_out_and_the_list_kept_short():
    short = "<answer>A</answer><glue>[(1,2),(3,4),(5,6)]</glue>"
    long = "<answer>A</answer><glue>[(1,2),(3,4),(5,6),(7,8)]</glue>"
    assert glue_format([short, long, GOOD], think=False) == [1.0, 1.0, 0.0]
    assert glue_format([short, long, GOOD], think=False, most=3) == [1.0, 0.0, 0.0]
