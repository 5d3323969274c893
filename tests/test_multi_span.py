import pytest

from rlvtg.evaluation.multi_span import first_span, many_to_one, moment_recall, pairwise_iou, whole_seconds_f1

TWO = [(5.0, 10.0), (30.0, 40.0)]


def test_the_first_predicted_span_is_scored_against_the_best_true_one():
    answers = [([(30.0, 40.0), (5.0, 10.0)], TWO), ([(0.0, 5.0), (5.0, 10.0)], TWO), ([], TWO), ([(5.0, 9.0)], TWO)]
    assert first_span(answers) == pytest.approx(
        {"n": 4, "failed": 1, "mIoU": 0.45, "R1@0.1": 0.5, "R1@0.3": 0.5, "R1@0.5": 0.5, "R1@0.7": 0.5, "mean_R1": 0.5}
    )
    assert first_span([([(30.0, 40.0)], TWO[:1])])["mIoU"] == 0.0


def test_a_threshold_is_reached_by_equality_in_single_precision():
    assert first_span([([(0.0, 3.0)], [(0.0, 10.0)])])["R1@0.3"] == 1.0
    # 0.7 in single precision is below 0.7 in double precision, and is compared with it there.
    assert first_span([([(0.0, 7.0)], [(0.0, 10.0)])])["R1@0.7"] == 0.0
    assert many_to_one([([(0.0, 7.0)], [(0.0, 10.0)])])["F1@0.7"] == 1.0


def test_f1_lets_one_span_be_the_partner_of_many():
    values = many_to_one([([(5.0, 40.0)], TWO)])
    assert (values["F1@0.1"], values["F1@0.3"], values["mean_F1"]) == (1.0, 0.0, 0.25)
    assert many_to_one([([(5.0, 10.0), (5.0, 10.0)], TWO)])["mean_F1"] == pytest.approx(2 / 3)


def test_f1_is_averaged_over_all_queries():
    values = many_to_one([(TWO, TWO), ([], TWO)])
    assert (values["n"], values["failed"], values["F1@0.7"], values["mean_F1"]) == (2, 1, 0.5, 0.5)


def test_whole_seconds_are_averaged_over_answered_queries_only():
    assert whole_seconds_f1([(TWO, TWO), ([], TWO)]) == {"n": 2, "failed": 1, "F1": 1.0}
    assert whole_seconds_f1([([(5.4, 9.6)], [(5.0, 10.0)])])["F1"] == 1.0
    assert whole_seconds_f1([([(0.0, 10.0)], [(5.0, 10.0)])])["F1"] == pytest.approx(2 / 3)
    assert whole_seconds_f1([([(0.5, 1.5), (900.0, 1e300)], [(0.0, 2.0), (900.0, 2000.0)])])["F1"] == 1.0
    assert whole_seconds_f1([([(20.0, 30.0)], TWO)])["F1"] == 0.0
    assert whole_seconds_f1([([], TWO)])["F1"] == 0.0


def test_a_moment_counts_where_it_lies_in_some_span_bounds_included():
    answers = [(5.0, TWO), (40.0, TWO), (20.0, TWO), (None, TWO)]
    assert moment_recall(answers) == {"n": 4, "failed": 1, "R": 0.5}


def test_ious_are_of_every_pair_and_never_nan():
    ious = pairwise_iou([(0, 10), (5, 5), (20, 10)], [(0, 5), (5, 5), (0.0, 1e300)])
    assert ious.shape == (3, 3)
    assert ious.tolist() == [[0.5, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("metric", [first_span, many_to_one, whole_seconds_f1, moment_recall])
def test_nothing_to_score_is_the_callers_error(metric):
    with pytest.raises(ValueError, match="no answers to score"):
        metric([])
    with pytest.raises(ValueError, match="answer 1 has no true span"):
        metric([(None, TWO), (None, [])])
