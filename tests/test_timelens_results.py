import pytest

from rlvtg.evaluation.protocol import answer_iou, protocol, summary
from rlvtg.evaluation.timelens_results import timelens_answers


def test_timestamps_come_before_the_text_and_neither_is_a_failure():
    results = {
        "a.mp4>>>q>>>[10.0, 20.0]": {"timestamps": [[70, 80], [1, 2]], "answers": "10 - 20"},
        "a.mp4>>>a >>> b>>>(10, 20)": {"answers": "The event happens in 10.0 - 15.0 seconds."},
        "b.mp4>>>q>>>[10.0, 20.0]": {"timestamps": []},
        "c.mp4>>>q>>>[10.0, 20.0]": {"pred": [[10, 20]]},
        "d.mp4>>>q>>>[10.0, 20.0]": {"answers": None},
    }
    rows = timelens_answers(results)
    assert [predicted for predicted, _ in rows] == [[(70, 80), (1, 2)], [(10, 15)], [], [], []]
    assert all(true == [(10, 20)] for _, true in rows)
    rules = protocol("timelens")
    got = summary([answer_iou(predicted, true, rules) for predicted, true in rows], rules)
    assert got == {"mIoU": 0.1, "R1@0.3": 0.2, "R1@0.5": 0.2, "R1@0.7": 0.0}


@pytest.mark.parametrize("key", ["[1, 2]", "v>>>q>>>here", "v>>>q>>>[1]", "v>>>q>>>[1, 'b']", "v>>>q>>>7"])
def test_a_key_without_a_span_is_named(key):
    with pytest.raises(ValueError, match="does not end in"):
        timelens_answers({key: {"timestamps": []}})
