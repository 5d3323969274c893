import json

import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError

box_iou = find("box_iou")
EIGHT = [[0.1 * i, 0.0, 0.1 * i + 0.2, 0.4] for i in range(8)]


def test_one_box_scores_its_overlap():
    texts = ["[5, 5, 15, 15]", "(0, 0, 10, 10)", " [0.0, 0, 1e1, 5.] ", "[10, 10, 0, 0]", "[0, 0, 10]", "bad", ""]
    texts = [f"<answer>{text}</answer>" for text in texts]
    assert box_iou(texts, ["[0, 0, 10, 10]"] * len(texts)) == pytest.approx([25 / 175, 1.0, 0.5, 0, 0, 0, 0])


def test_boxes_are_compared_in_order_and_must_be_as_many():
    true = json.dumps(EIGHT)
    half = [[x0, y0, x1, y1 / 2] for x0, y0, x1, y1 in EIGHT]
    texts = [f"<answer>{boxes}</answer>" for boxes in [EIGHT, half, EIGHT[:4] + half[4:], EIGHT[:7], EIGHT + EIGHT[:1]]]
    assert box_iou(texts, [true] * 5) == pytest.approx([1.0, 0.5, 0.75, 0.0, 0.0])


def test_a_text_without_the_block_is_read_only_if_asked():
    assert box_iou(["[0, 0, 10, 10]"], ["[0, 0, 10, 10]"]) == [0.0]
    assert box_iou(["[0, 0, 10, 10]", "x [0, 0, 10, 10]"], ["[0, 0, 10, 10]"] * 2, untagged=True) == [1.0, 0.0]


def test_another_block_can_hold_the_boxes():
    text = "<answer>[0, 0, 5, 5]</answer><glue>[0, 0, 10, 10]</glue>"
    assert box_iou([text], ["[0, 0, 10, 10]"], block="glue") == [1.0]


def test_a_row_without_an_answer_is_none_of_its_business():
    assert box_iou(["x"], [None]) == [None]


@pytest.mark.parametrize(
    "cell", ["B", "", "[]", "[0, 0, 1]", "[[0, 0, 1, 1], [0]]", "[0, 0, NaN, 1]", "[0, 0, true, 1]", "{}", 3, "1" * 400]
)
def test_an_annotation_that_is_no_box_raises_with_its_row(cell):
    with pytest.raises(AnnotationError, match="row 'v1'"):
        box_iou(["x"], [cell], ["v1"])


def test_enormous_boxes_score_a_finite_number():
    assert box_iou(["<answer>[0, 0, 1e300, 1e300]</answer>"], ["[0, 0, 1e300, 1e300]"]) == [0.0]
