import random
import re

from rlvtg.text.option import first_capital, last_bracketed_letter, option_letter


def test_a_letter_in_parentheses_may_be_spaced_but_must_be_closed():
    assert [option_letter(text) for text in ["( c )", "(c", "(cd)", "()", "(é)"]] == ["C", None, None, None, None]


def test_first_capital_takes_lead_ins_out_first():
    assert first_capital("The correct answer is B") == "B"
    assert first_capital("The best option is: (G)") == "G"
    assert first_capital("H") == ""


def test_last_bracketed_letter_equals_the_papers_expression_on_random_text():
    draw = random.Random(0)
    texts = ["".join(draw.choices(["(", ")", "A", "Z", "b", " "], k=draw.randint(0, 9))) for _ in range(5000)]
    found = [re.findall(r"\(([A-Z])\)", text) for text in texts]
    assert [last_bracketed_letter(text) for text in texts] == [each[-1] if each else None for each in found]
    assert sum(map(bool, found)) > 100
