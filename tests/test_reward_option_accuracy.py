import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError

option_accuracy = find("option_accuracy")


def answer(content):
    return f"<think>It is (C).</think><answer>{content}</answer>"


def test_the_strict_reader_takes_a_letter_that_stands_for_itself():
    right = ["B", " b ", "(B)", "( b )", "B.", "B. the dog", "B: the dog", "b) the dog", "(B) the dog"]
    wrong = ["A", "B the dog", "the answer is B", "Both", "BC", "(B", "", "?"]
    assert option_accuracy([answer(text) for text in right], ["B"] * len(right)) == [1.0] * len(right)
    assert option_accuracy([answer(text) for text in wrong], ["(B)"] * len(wrong)) == [0.0] * len(wrong)


def test_an_answer_needs_its_block_and_the_first_one_counts():
    assert option_accuracy(["B", "<answer>B", "<answer>B</answer><answer>C</answer>"], ["B"] * 3) == [0.0, 0.0, 1.0]


def test_a_row_without_an_answer_is_none_of_its_business():
    assert option_accuracy([answer("B")] * 2, ["B", None]) == [1.0, None]


@pytest.mark.parametrize("letter", ["strict", "videochat_r1", "time_r1_eval"])
def test_an_annotation_that_is_no_text_raises_with_its_row(letter):
    with pytest.raises(AnnotationError, match="row 'b': answer must name an option, as B or .B. does, got 3"):
        option_accuracy([answer("B")] * 2, ["B", 3], ["a", "b"], letter=letter)


@pytest.mark.parametrize("cell", ["", "the dog", "[[0, 0, 1, 1]]"])
def test_an_annotation_without_a_letter_raises_with_its_row(cell):
    with pytest.raises(AnnotationError, match="row 0 of the batch"):
        option_accuracy(["junk"], [cell])


@pytest.mark.parametrize(
    ("text", "true", "value"),
    [
        ("The best answer is B.", "(B)", 1.0),
        ("Both A and B", "B", 1.0),
        ("Best answer: A", "A", 0.0),
        ("a", "A", 0.0),
        ("I think it is DOG", "D", 1.0),
        ("the dog", "the cat", 1.0),
    ],
)
def test_the_papers_reader_keeps_the_papers_flaws(text, true, value):
    assert option_accuracy([f"<answer>{text}</answer>"], [true], letter="videochat_r1") == [value]


def test_time_r1s_evaluation_reads_the_last_letter_in_parentheses_of_the_whole_text():
    texts = ["(B) then (C)", "<answer>(C)</answer> no, (B)", "C", "(c)"]
    assert option_accuracy(texts, ["C"] * 4, letter="time_r1_eval") == [1.0, 0.0, 0.0, 0.0]


def test_an_unknown_reader_is_named():
    with pytest.raises(ValueError, match="got letter 'lax', want one of strict, videochat_r1, time_r1_eval"):
        option_accuracy(["x"], ["A"], letter="lax")
