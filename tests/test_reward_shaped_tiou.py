import pytest

from rlvtg.reward import find
from rlvtg.text.annotation import AnnotationError

shaped_tiou = find("shaped_tiou")


def answer(end):
    return f"<answer>0 to {end}</answer>"


def test_the_papers_values():
    ends = [0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    want = [
        *(0.149932, 0.210020, 0.321546, 0.422459, 0.513769, 0.596390),
        *(0.671149, 0.738793, 0.8, 0.800953, 0.801823),
    ]
    got = shaped_tiou([answer(end) for end in ends], spans=[[[0, 10]]] * len(ends))
    assert got == pytest.approx(want, abs=1e-6)


def test_a_miss_and_no_answer_are_alike_unless_asked():
    texts, spans = ["<answer>20 to 30</answer>", "none"], [[[0, 10]]] * 2
    assert shaped_tiou(texts, spans) == pytest.approx([0.086764, 0.086764], abs=1e-6)
    assert shaped_tiou(texts, spans, shape_unparsed=False) == pytest.approx([0.086764, 0.0], abs=1e-6)


def test_the_best_of_several_annotated_spans_counts():
    assert shaped_tiou([answer(10)], spans=[[[30, 40], [0, 8]]]) == pytest.approx([0.8])


def test_the_knobs_move_the_bend():
    texts, spans = [answer(0.0001), answer(5), answer(10)], [[[0, 10]]] * 3
    assert shaped_tiou(texts, spans, tau=0.5) == pytest.approx([0.122459, 0.5, 0.504055], abs=1e-4)
    assert shaped_tiou(texts, spans, a1=0.1)[2] == pytest.approx(0.818232, abs=1e-6)
    assert shaped_tiou(texts, spans, a2=0.0)[1] == 0.5


def test_a_bend_outside_the_range_of_ious_is_refused():
    with pytest.raises(ValueError, match=r"got tau=80, want the IoU, from 0 to 1"):
        shaped_tiou([answer(5)], [[[0, 10]]], tau=80)


def test_a_row_without_spans_is_named():
    with pytest.raises(AnnotationError, match="'v7'"):
        shaped_tiou(["none"], [None], id=["v7"])
