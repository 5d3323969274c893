from rlvtg.reward import find
from tests.time_r1_cases import as_columns, as_values, cases

think_format = find("think_format")


def test_think_format_equals_the_recorded_cases():
    recorded = cases("format")
    assert len(recorded) == 14
    for case in recorded:
        assert think_format(**as_columns(case)) == as_values(case), case


def test_both_blocks_may_be_empty():
    assert think_format(["<think></think><answer></answer>"]) == [1.0]


def test_one_tag_cannot_serve_twice():
    assert think_format(["<think><answer></answer>", "<think></think><answer>", "</think><answer>"]) == [0.0, 0.0, 0.0]
