import pytest

from rewards.parse_penalty import parse_penalty


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("[[10, 20]]", 0.0),
        ("[[90, 80], [1, 2]]", 0.0),
        ("[[10, 20], [10, 10]]", -1.0),
        ("[]", -1.0),
        ("10 - 20", -1.0),
        ("[[10, NaN]]", -1.0),
        ("", -1.0),
    ],
)
def test_one_span_that_is_none_spoils_the_answer(answer, value):
    assert parse_penalty([answer], [[[10.0, 20.0]]], grammar="json_list") == [value]


def test_a_reversed_answer_is_penalised_where_the_grammar_leaves_it_reversed():
    texts = ["<answer>10 to 20</answer>", "<answer>20 to 10</answer>"]
    assert parse_penalty(texts, [[[10.0, 20.0]]] * 2, grammar="to") == [0.0, -1.0]
