import pytest

from rlvtg.reward import find

museg_format = find("museg_format")


def one(text, **knobs):
    return museg_format([text], **knobs)[0]


@pytest.mark.parametrize(
    ("answer", "value"),
    [("10-20", 0.6), ("10.0-20.0", 0.6), ("12-18", 1.0), ("18-12", 1.0), ("12-18 12-20", 0.6), ("12 - 18", 0.2)],
)
def test_every_time_must_be_cited(answer, value):
    text = f"<think>from 12.0 to 18.0</think><answer>{answer}</answer>"
    assert one(text) == value
    assert one(text, citation=None) == (0.2 if value == 0.2 else 1.0)


def test_numbers_can_be_cited_by_their_value():
    text = "<think>from 10 to 20</think><answer>10.00-20.04</answer>"
    assert [one(text), one(text, citation="numeric"), one(text, citation="numeric", tolerance=0.01)] == [0.6, 1.0, 0.6]
    wild = "<think>500 and 1000</think><answer>5.0-10.0</answer>"
    assert [one(wild), one(wild, citation="numeric")] == [1.0, 0.6]


@pytest.mark.parametrize("answer", ["", "  \n"])
def test_an_empty_answer_is_in_order_unless_an_answer_is_required(answer):
    text = f"<think>x</think><answer>{answer}</answer>"
    assert [one(text), one(text, require_answer=True), one(text, citation=None, require_answer=True)] == [1.0, 0.2, 0.2]


def test_an_infinite_time_keeps_the_format_of_the_paper():
    assert one("<think>10.0 inf</think><answer>10.0-inf</answer>") == 1.0


def test_a_citation_that_there_is_not_raises():
    with pytest.raises(ValueError, match="got citation 'off'; there is code, numeric"):
        one("<think>x</think><answer>1-2</answer>", citation="off")
