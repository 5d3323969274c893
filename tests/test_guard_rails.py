"""What is logged of the spans that a policy answers with."""

import pytest

from rlvtg.training.guard_rails import drift, span_statistics


def test_spans_are_measured_in_seconds_and_as_parts_of_the_video():
    found = span_statistics([(2.0, 5.0), (7.0, 8.0)], [[1.0, 3.0]], 10.0)
    assert found == {
        "spans/number": 2.0,
        "spans/length": 4.0,
        "spans/true_length": 2.0,
        "spans/start": 0.2,
        "spans/end": 0.8,
        "spans/outside": 0.0,
    }


@pytest.mark.parametrize(
    ("span", "length", "start", "end", "outside"),
    [((5.0, 1e300), 5.0, 0.5, 1.0, 1.0), ((-3.0, 5.0), 5.0, 0.0, 0.5, 1.0), ((8.0, 2.0), 0.0, 0.8, 0.2, 0.0)],
)
def test_no_number_in_an_answer_can_move_an_average_out_of_the_video(span, length, start, end, outside):
    found = span_statistics([span], [[1.0, 3.0]], 10.0)
    assert [found[f"spans/{name}"] for name in ("length", "start", "end", "outside")] == [length, start, end, outside]


def test_an_answer_without_spans_only_says_so_and_a_row_without_annotation_nothing():
    assert span_statistics([], [[1.0, 3.0]], 10.0) == {"spans/number": 0.0}
    assert span_statistics([(1.0, 2.0)], [], 10.0) == {}


def test_drift_is_relative_to_what_a_stage_logged_first():
    history = [{"step": 1}, {"spans/length": None}, {"spans/length": 4.0}, {"spans/length": 8.0}]
    assert drift(6.0, "spans/length", history) == 1.5
    assert drift(6.0, "spans/length", []) is None
    assert drift(None, "spans/length", history) is None
