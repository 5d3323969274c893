from rlvtg.reward import find

box_format = find("box_format")
EIGHT = str([[0.1, 0.2, 0.3, 0.4]] * 8)


def test_eight_boxes_in_the_answer_after_thinking():
    seven = str([[0.1, 0.2, 0.3, 0.4]] * 7)
    texts = [f"<think>t</think><answer>{boxes}</answer>" for boxes in [EIGHT, EIGHT.replace(" ", "\n"), seven, "", "x"]]
    assert box_format(texts) == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert box_format([f"<answer>{EIGHT}</answer>", EIGHT]) == [0.0, 0.0]


def test_the_thinking_can_be_left_out():
    assert box_format([f"<answer>{EIGHT}</answer>", f"<think></think><answer>{EIGHT}</answer>"], think=False) == [1, 0]


def test_one_box_in_a_glue_block_after_the_answer():
    text = "<answer>A</answer> <glue>[1, 2, 3, 4]</glue>"
    assert box_format([text, text.replace("glue", "answer")], boxes=1, block="glue", think=False) == [1.0, 0.0]
