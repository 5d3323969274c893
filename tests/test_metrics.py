import itertools
import math
import time
from typing import Any

import numpy as np
import pytest

from rlvtg.evaluation.metrics import best_constant, constant_predictions, ious, miou_interval, score
from rlvtg.evaluation.predictions import Prediction
from rlvtg.evaluation.protocol import Protocol, metric_names, protocol
from rlvtg.text.span import iou


def prediction(spans: list[list[float]], predicted: list[list[float]], video: str = "v.mp4") -> Prediction:
    return {
        "id": "q", "video": video, "query": "a dog jumps", "duration": 30.0,
        "spans": spans, "completion": "", "predicted": predicted,
    }  # fmt: skip


def rules(*thresholds: float, **others: Any) -> Protocol:
    return Protocol("rlvtg", thresholds=thresholds, **others)


def query_iou(one: Prediction) -> float | None:
    [reached] = ious([one], rules())
    return reached


def test_score_of_four_answers_is_the_one_computed_by_hand() -> None:
    got = score(
        [
            prediction([[10, 20]], [[10, 20]], "a"),
            prediction([[10, 20]], [[10, 15]], "b"),
            prediction([[10, 20]], [[12, 18]], "c"),
            prediction([[10, 20]], [[21, 25]], "d"),
        ],
        rules(0.3, 0.5, 0.7),
    )
    assert got["n"] == 4
    assert got["mIoU"] == pytest.approx((1.0 + 0.5 + 0.6 + 0.0) / 4)
    assert (got["R1@0.3"], got["R1@0.5"], got["R1@0.7"]) == (0.75, 0.75, 0.25)
    assert got["parse_failure_rate"] == 0.0


def test_every_metric_that_a_recipe_may_name_is_one_of_the_scores() -> None:
    told = rules(0.25, 0.5)
    scores = score([prediction([[0, 1]], [[0, 1]])], told)
    assert set(metric_names(told)) == set(scores) - {"n", "mIoU_low", "mIoU_high", "missing", "dropped"}


def test_score_names_its_metrics_after_the_thresholds() -> None:
    assert list(score([prediction([[0, 1]], [[0, 1]])], rules(0.05, 0.5))) == [
        "n", "mIoU", "mIoU_low", "mIoU_high", "R1@0.05", "R1@0.5", "F1@0.1", "F1@0.3", "F1@0.5", "F1@0.7", "mF1",
        "parse_failure_rate", "missing", "dropped",
    ]  # fmt: skip


def test_an_iou_equal_to_the_threshold_counts() -> None:
    assert score([prediction([[0, 10]], [[0, 5]])], rules(0.5))["R1@0.5"] == 1.0


def test_a_failed_parse_counts_as_zero_and_stays_in_the_denominator() -> None:
    got = score([prediction([[0, 10]], [[0, 10]], "a"), prediction([[0, 10]], [], "b")], rules(0.5))
    assert (got["mIoU"], got["R1@0.5"], got["parse_failure_rate"]) == (0.5, 0.5, 0.5)


def test_a_failed_parse_does_not_reach_a_threshold_above_zero() -> None:
    assert score([prediction([[0, 10]], [])], rules(0.3)) == {
        "n": 1, "mIoU": 0.0, "mIoU_low": 0.0, "mIoU_high": 0.0, "R1@0.3": 0.0, "parse_failure_rate": 1.0,
        "F1@0.1": 0.0, "F1@0.3": 0.0, "F1@0.5": 0.0, "F1@0.7": 0.0, "mF1": 0.0, "missing": 0, "dropped": 0,
    }  # fmt: skip


def test_only_the_first_predicted_span_is_scored() -> None:
    assert query_iou(prediction([[0, 10]], [[20, 30], [0, 10]])) == 0.0


def test_the_best_of_several_true_spans_is_taken() -> None:
    assert query_iou(prediction([[0, 2], [10, 20], [25, 30]], [[10, 15]])) == 0.5


@pytest.mark.parametrize("span", [[20, 10], [15, 15], [1e308, float("inf")]])
def test_a_reversed_an_empty_and_an_endless_answer_have_no_overlap(span: list[float]) -> None:
    assert query_iou(prediction([[10, 20]], [span])) == 0.0


@pytest.mark.parametrize("span", [[20, 10], [15, 15], [float("nan"), 3]])
def test_a_true_span_that_does_not_end_after_it_starts_is_an_error(span: list[float]) -> None:
    with pytest.raises(ValueError, match="'q' has the true spans .*; a span must end after it starts"):
        query_iou(prediction([[1, 2], span], []))


def test_an_empty_list_of_predictions_is_an_error() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        score([], rules(0.5))


def test_a_query_without_true_spans_is_an_error_even_when_nothing_was_predicted() -> None:
    with pytest.raises(ValueError, match="'q' has no true span"):
        score([prediction([], [])], rules(0.5))


def test_a_threshold_in_percent_is_an_error() -> None:
    with pytest.raises(ValueError, match="threshold 50; thresholds are fractions"):
        score([prediction([[0, 1]], [[0, 1]])], rules(50))


def test_the_interval_holds_the_mean_and_is_the_same_every_time_and_in_every_order() -> None:
    ious = np.random.default_rng(1).uniform(size=200)
    rows = [prediction([[0, 1]], [[0, value]], f"{i // 2}") for i, value in enumerate(ious)]
    got = score(rows, rules())
    assert got["mIoU_low"] < got["mIoU"] < got["mIoU_high"]
    assert score(rows, rules()) == got
    assert score(rows[::-1], rules()) == pytest.approx(got)


def test_the_interval_of_independent_videos_agrees_with_the_normal_approximation() -> None:
    ious = np.random.default_rng(2).uniform(size=400)
    low, high = miou_interval(ious, [str(i) for i in range(400)])
    assert high - low == pytest.approx(2 * 1.96 * ious.std() / 20, rel=0.1)


def test_copies_of_the_queries_of_a_video_do_not_narrow_the_interval() -> None:
    ious = np.random.default_rng(3).uniform(size=50)
    once = miou_interval(ious, [str(i) for i in range(50)])
    ten_times = miou_interval(np.repeat(ious, 10), [str(i // 10) for i in range(500)])
    as_if_independent = miou_interval(np.repeat(ious, 10), [str(i) for i in range(500)])
    assert ten_times == pytest.approx(once)
    assert np.ptp(as_if_independent) < 0.5 * np.ptp(ten_times)


def test_a_single_video_has_an_interval_of_no_width() -> None:
    assert miou_interval(np.array([0.0, 1.0]), ["a", "a"]) == (0.5, 0.5)


def test_the_best_constant_of_equal_spans_is_that_span() -> None:
    assert best_constant([((2.0, 7.5), 10.0)] * 3) == (2.0, 7.5)


def test_the_best_constant_beats_every_answer_on_a_fine_grid() -> None:
    rng = np.random.default_rng(4)
    starts = rng.integers(0, 15, 40)
    spans = [(float(s), float(s + d)) for s, d in zip(starts, rng.integers(2, 9, 40), strict=True)]

    def mean(answer: tuple[float, float]) -> float:
        return sum(iou(answer, span) for span in spans) / len(spans)

    best = best_constant([(span, 24.0) for span in spans])
    grid = [quarter / 4 for quarter in range(97)]
    assert mean(best) >= max(mean((s, e)) for s, e in itertools.product(grid, grid) if s < e)


def test_the_best_constant_is_close_and_quick_on_as_many_queries_as_charades_has() -> None:
    rng = np.random.default_rng(5)
    starts = rng.uniform(0, 25, 12408)
    annotations = [((s, s + d), 31.0) for s, d in zip(starts, rng.uniform(2, 12, 12408), strict=True)]
    began = time.process_time()
    start, end = best_constant(annotations)
    assert time.process_time() - began < 10

    true = np.array([span for span, _ in annotations])

    def mean(s: float, e: float) -> float:
        inside = np.clip(np.minimum(e, true[:, 1]) - np.maximum(s, true[:, 0]), 0, None)
        return float((inside / (np.maximum(e, true[:, 1]) - np.minimum(s, true[:, 0]))).mean())

    near = [-0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5]
    assert max(mean(start + a, end + b) for a in near for b in near) - mean(start, end) < 1e-3


def test_spans_that_share_no_second_still_have_a_best_constant() -> None:
    assert best_constant([((0.0, 4.0), 30.0), ((10.0, 14.0), 30.0), ((20.0, 24.0), 30.0)]) == (0.0, 4.0)


def test_no_annotations_have_no_best_constant() -> None:
    with pytest.raises(ValueError, match="no annotations"):
        best_constant([])


def test_a_reversed_annotation_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(9.0, 3.0\); a span must end after it starts"):
        best_constant([((9.0, 3.0), 30.0)])


def test_the_constant_answer_is_scored_like_any_other_and_leaves_the_predictions_alone() -> None:
    rows = [prediction([[0, 10]], [], "a"), prediction([[5, 10]], [[0, 1]], "b")]
    got = score(constant_predictions(rows, (0.0, 10.0)), rules(0.7))
    assert (got["mIoU"], got["R1@0.7"], got["parse_failure_rate"]) == (0.75, 0.5, 0.0)
    assert [row["predicted"] for row in rows] == [[], [[0, 1]]]


def test_the_f1_is_over_all_predicted_and_all_true_spans() -> None:
    got = score([prediction([[0, 10], [20, 30]], [[0, 10], [50, 60]], "a"), prediction([[0, 10]], [], "b")], rules())
    # precision and recall of the first query are 1/2 at every threshold; the second has no answer
    assert [got[f"F1@{threshold}"] for threshold in (0.1, 0.3, 0.5, 0.7)] == [0.25] * 4
    assert got["mF1"] == 0.25


def test_the_f1_at_different_thresholds_is_averaged() -> None:
    got = score([prediction([[0, 10]], [[0, 4]])], rules())
    assert [got[f"F1@{threshold}"] for threshold in (0.1, 0.3, 0.5, 0.7)] == [1.0, 1.0, 0.0, 0.0]
    assert got["mF1"] == 0.5


def test_a_dropped_failure_is_in_no_mean_but_is_counted() -> None:
    rows = [prediction([[0, 10]], [[0, 5]], "a"), prediction([[0, 10]], [], "b"), prediction([[0, 10]], [], "c")]
    got = score(rows, rules(0.5, failures="drop"))
    assert (got["n"], got["dropped"], got["mIoU"], got["R1@0.5"]) == (3, 2, 0.5, 1.0)
    assert (got["mIoU_low"], got["mIoU_high"]) == (0.5, 0.5)
    assert got["parse_failure_rate"] == pytest.approx(2 / 3)
    assert ious(rows, rules(failures="drop")) == [0.5, None, None]


def test_nothing_but_dropped_failures_scores_zero() -> None:
    got = score([prediction([[0, 10]], [])], rules(0.5, failures="drop"))
    assert (got["mIoU"], got["mIoU_low"], got["mIoU_high"], got["R1@0.5"], got["dropped"]) == (0.0, 0.0, 0.0, 0.0, 1)


def test_a_missing_answer_is_a_failure_but_not_one_of_parsing() -> None:
    rows = [prediction([[0, 10]], [[0, 10]], "a"), {**prediction([[0, 10]], [], "b"), "missing": True}]
    got = score(rows, rules(0.5))
    assert (got["mIoU"], got["R1@0.5"], got["missing"], got["parse_failure_rate"]) == (0.5, 0.5, 1, 0.0)


def test_a_protocol_reads_the_completion_with_its_own_grammar_and_rounds() -> None:
    said: Prediction = {
        **prediction([[7, 11], [100, 110]], [[1, 2]]),
        "completion": "<answer>7.49 to 11.51</answer> or 30 to 40",
    }
    assert score([said], protocol("tempsamp_r1"))["mIoU"] == pytest.approx(0.8)  # 7 to 12
    assert score([said], protocol("rlvtg"))["mIoU"] == 0.0  # the spans as they were read before
    assert score([{**said, "completion": None}], protocol("tempsamp_r1"))["mIoU"] == 0.0  # nothing to read


def test_a_strict_protocol_is_not_reached_by_equality() -> None:
    half = prediction([[0, 10]], [[0, 5]])
    assert [score([half], rules(0.5, strict=strict))["R1@0.5"] for strict in (False, True)] == [1.0, 0.0]


def test_a_relative_grammar_needs_the_duration() -> None:
    said: Prediction = {**prediction([[0, 15]], []), "completion": "from 00 to 49"}
    assert score([said], rules(grammar="vtimellm"))["mIoU"] > 0.9
    with pytest.raises(ValueError, match="needs the video's duration"):
        score([{**said, "duration": math.nan}], rules(grammar="vtimellm"))


def test_a_completion_that_nobody_has_read_is_an_error_without_a_grammar() -> None:
    said: Prediction = {**prediction([[0, 10]], []), "completion": "<answer>0 to 5</answer>", "unread": True}
    assert score([said], rules(grammar="to"))["mIoU"] == 0.5
    with pytest.raises(ValueError, match="'q' has a completion and no predicted spans; name the grammar"):
        score([said], rules())
