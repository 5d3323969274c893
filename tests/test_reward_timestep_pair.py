import pytest

from rlvtg.reward import find

timestep_pair = find("timestep_pair")


@pytest.mark.parametrize(
    ("thought", "value"),
    [
        ("<timestep>1.0 to 2.0</timestep>", 0.2),
        ("<TIMESTEP> 1.  TO\n2 </timestep>", 0.2),
        ("<timestep>1 to 2</timestep><timestep>3 to 4</timestep>", 0.2),
        ("<timestep>1.0-2.0</timestep>", 0.0),
        ("<timestep>1 and 2</timestep>", 0.0),
        ("<timestep>.5 to 2</timestep>", 0.0),
        ("", 0.0),
    ],
)
def test_a_cited_range_counts_once(thought, value):
    assert timestep_pair([f"<think>{thought}</think>"]) == [value]


def test_only_the_last_think_block_counts():
    cited = "<timestep>1 to 2</timestep>"
    assert timestep_pair([cited, f"<think>{cited}", f"<think>{cited}</think><think>x</think>"]) == [0.0, 0.0, 0.0]


def test_more_ranges_count_up_to_the_most_that_is_asked_for():
    cited = "<timestep>1 to 2</timestep>" * 5
    assert timestep_pair([f"<think>{cited}</think>"], each=0.1, most=3) == pytest.approx([0.3])
