import pytest

from rewards.think_format import think_format
from rewards.thinking_format import thinking_format


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<thinking>x</thinking>\n<answer>[[1, 2]]</answer>", 1.0),
        ("<thinking></thinking><answer></answer>", 1.0),
        ("<redacted_thinking>x</thinking><answer></answer>", 1.0),
        ("<think>x</think><answer>[[1, 2]]</answer>", 0.0),
        ("<thinking>x</thinking>, <answer></answer>", 0.0),
        (" <thinking>x</thinking><answer></answer>", 0.0),
        ("<thinking>x</thinking><answer></answer>\n", 0.0),
        ("[[1, 2]]", 0.0),
    ],
)
def test_a_thinking_block_and_an_answer_block_make_the_whole_text(text, value):
    assert thinking_format([text]) == [value]


def test_think_format_strips_unless_told_not_to():
    texts = ["<think>x</think><answer></answer>", "<think>x</think><answer></answer>\n"]
    assert think_format(texts) == [1.0, 1.0]
    assert think_format(texts, strip=False) == [1.0, 0.0]
