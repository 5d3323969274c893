from rlvtg.reward import find

timestamp_citation = find("timestamp_citation")


def one(text, **knobs):
    return timestamp_citation([text], **knobs)[0]


def test_all_times_of_the_answer_must_occur_in_the_reasoning():
    assert one("<think>10.0, then 20.0</think><answer>10.00-20.00</answer>") == 1.0
    assert one("<think>10.0</think><answer>10.00-20.00</answer>") == 0.0
    assert one("<think></think><answer>10.00-20.00</answer>") == 0.0


def test_times_can_occur_by_value():
    text = "<think>10, then 20.04</think><answer>10-20</answer>"
    assert [one(text), one(text, citation="numeric"), one(text, citation="numeric", tolerance=0.01)] == [0.0, 1.0, 0.0]


def test_an_answer_without_times_cites_nothing():
    for answer in ["", "none", "20.0-10.0", "10.0-inf"]:
        assert one(f"<think>10.0 20.0 inf</think><answer>{answer}</answer>") == 0.0


def test_the_blocks_must_be_in_order():
    assert one("<answer>10-20</answer><think>10.0 20.0</think>") == 0.0
    assert one("10.0 20.0 <answer>10-20</answer>") == 0.0


def test_other_grammars_can_be_cited_too():
    assert one("<think>10.0 20.0</think><answer>10 to 20</answer>", grammar="to") == 1.0
