import json

import pytest

from rlvtg.evaluation.protocol import (
    Protocol,
    ProtocolError,
    answer_iou,
    chosen,
    described,
    protocol,
    protocol_names,
    restored,
    summary,
)
from rlvtg.recipe import Evaluation


def test_a_strict_threshold_is_not_reached_by_equality():
    ious = [0.3, 0.5, 0.7, 0.71]
    assert summary(ious, Protocol("strict", strict=True)) == pytest.approx(
        {"mIoU": 0.5525, "R1@0.3": 0.75, "R1@0.5": 0.5, "R1@0.7": 0.25}
    )
    assert summary(ious, Protocol("equal")) == pytest.approx(
        {"mIoU": 0.5525, "R1@0.3": 1.0, "R1@0.5": 0.75, "R1@0.7": 0.5}
    )


def test_a_query_without_an_answer_counts_as_zero_or_is_dropped():
    zero, drop = Protocol("zero"), Protocol("drop", failures="drop")
    ious = [(1.0, 2.0)], []
    assert [answer_iou(found, [(1.0, 2.0)], zero) for found in ious] == [1.0, 0.0]
    assert [answer_iou(found, [(1.0, 2.0)], drop) for found in ious] == [1.0, None]
    assert summary([1.0, None], drop)["mIoU"] == 1.0
    assert summary([None], drop) == {"mIoU": 0.0, "R1@0.3": 0.0, "R1@0.5": 0.0, "R1@0.7": 0.0}


def test_whole_seconds_round_predictions_with_halves_to_the_even_second():
    rules = Protocol("whole", whole_seconds=True)
    assert answer_iou([(7.49, 11.51)], [(7.0, 11.0)], rules) == pytest.approx(0.8)
    assert answer_iou([(7.5, 8.5)], [(7.0, 11.0)], rules) == 0.0  # 8 to 8
    assert answer_iou([(10.2, 10.4)], [(10.0, 11.0)], rules) == 0.0


def test_of_several_true_spans_the_best_or_the_first_counts():
    true = [(30.0, 40.0), (10.0, 20.0)]
    assert answer_iou([(10.0, 20.0)], true, Protocol("best")) == 1.0
    assert answer_iou([(10.0, 20.0)], true, Protocol("first", true="first")) == 0.0


def test_only_the_first_predicted_span_counts():
    assert answer_iou([(30.0, 40.0), (10.0, 20.0)], [(10.0, 20.0)], Protocol("any")) == 0.0


def test_an_unknown_protocol_is_named_with_the_nearest():
    assert [protocol(name).name for name in protocol_names()] == protocol_names()
    with pytest.raises(ProtocolError, match="'time_r2'.*did you mean 'time_r1'"):
        protocol("time_r2")


def test_a_recipe_chooses_a_protocol_and_its_own_thresholds():
    rules = chosen(Evaluation(protocol="tempsamp_r1", thresholds=[0.1]))
    assert (rules.name, rules.thresholds, rules.whole_seconds) == ("tempsamp_r1", (0.1,), True)
    with pytest.raises(ProtocolError, match="did you mean 'timelens'"):
        chosen(Evaluation(protocol="timelense"))


def test_rules_that_are_told_in_a_file_can_be_used_again():
    rules = Protocol("mine", "to", (0.5,), strict=True)
    told = json.loads(json.dumps(described(rules, {"model": "m", "grammar": "percent", "fps": 2.0})))
    assert (told["name"], told["grammar"], told["model"], told["fps"]) == ("mine", "to", "m", 2.0)
    assert restored(told) == rules
    assert described(Protocol("plain"), {"grammar": "percent"})["grammar"] == "percent"
