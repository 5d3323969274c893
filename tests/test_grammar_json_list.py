import math
import time

import pytest

from rlvtg.text.grammar import grammar

PARSE = grammar("json_list").parse


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("[[10.0, 20.0]]", [(10, 20)]),
        ("[[30, 40], [5, 10]]", [(30, 40), (5, 10)]),
        ("[[20, 10]]", [(10, 20)]),
        ("[10, 20]", [(10, 20)]),
        ("[10, 20, 30]", [(10, 20)]),
        ("[[[[10, 20]]]]", [(10, 20)]),
        ("[[[10, 20]], [[[30, 40]]]]", [(10, 20), (30, 40)]),
        ('[["10", " 2e1 "]]', [(10, 20)]),
        ('["10", 20]', [(10, 20)]),
        ("[[10, 20], [30], [null, 1], {}, 5]", [(10, 20)]),
        ("[[10, 20]]]", [(10, 20)]),
        ("```json\n[10, 20]\n```", [(10, 20)]),
        ("at ```[5, 6]``` not [[1, 2]]", [(5, 6)]),
        ("at [[1, x]] or [[3, 4], [5, 6]]", [(3, 4), (5, 6)]),
        ("<thinking>[[1, 2]]</thinking> <answer>[[10, 20]]</answer>", [(10, 20)]),
        ("<answer>[[1, 2]]</answer><thinking></thinking><answer>[[10, 20]]</answer>", [(10, 20)]),
        ("<answer>[[10, 20]]</answer><answer>[[1, 2]]</answer>", [(10, 20)]),
        ("[[-5, 20]]", [(-5, 20)]),
        ("[[5, 10], [10, 10]]", [(5, 10), (10, 10)]),
        ("[[10, NaN], [1, 2]]", [(1, 2)]),
    ],
)
def test_a_json_list_is_read_from_the_answer(text, spans):
    assert PARSE(text) == spans


# fmt: off
@pytest.mark.parametrize("text", [
    "", "  ", "[]", "[[]]", "{}", "null", "7", "10 - 20", "[1:10, 1:20]", "[[1:10, 1:20]]", "see [10, 20]",
    "[[10, NaN]]", "[10, NaN]", "[NaN, 10]", "[[10, Infinity]]", "[10, 1e999]", "[10, " + "9" * 5000 + "]", '["10"]',
    '[10, "20"]', '["a", "b"]', '{"spans": 1}', "[[1, 2]", "<answer></answer>[[1, 2]]", "[true, 5]", "[[true, 5]]",
    '["1_0", "20"]',
])
# fmt: on
def test_what_is_no_list_of_finite_pairs_has_no_spans(text):
    assert PARSE(text) == []


def test_wrapping_has_an_end():
    assert PARSE("[[1, 2], " + "[" * 8 + "3, 4" + "]" * 8 + "]") == [(1, 2), (3, 4)]
    assert PARSE("[[1, 2], " + "[" * 9 + "3, 4" + "]" * 9 + "]") == [(1, 2)]
    assert PARSE("[" * 64 + "3, 4" + "]" * 64) == [(3, 4)]
    assert PARSE("[" * 65 + "3, 4" + "]" * 65) == []


def test_it_writes_what_it_reads():
    assert grammar("json_list").write([(3.25, 11.5)]) == grammar("json_list").example == "[[3.25, 11.50]]"
    assert grammar("json_list").write([]) == "[]"
    assert PARSE(grammar("json_list").write([(0, 7.127), (9, 10)], 1)) == [(0, 7.1), (9, 10)]


def test_a_thousand_bracketed_parts_are_tried():
    assert PARSE("[[x]] " * 999 + "[[1, 2]]") == [(1, 2)]
    assert PARSE("[[x]] " * 1000 + "[[1, 2]]") == []


# fmt: off
@pytest.mark.parametrize("unit", [
    "[", "{", '{"a":', "[]", "[[1]],", "[[1,2],", "[[1,2]],", "[[x]] ", "``` ", "`", "```json", '"', "9", " ", "[[\n",
    "<answer>", "<thinking>", "</thinking> ", '["1",',
])
# fmt: on
def test_reading_takes_linear_time_and_no_stack(unit):
    body = unit * (200_000 // len(unit))
    for text in [body, f"```{body}", f"[[{body}]]", f"<thinking></thinking><answer>{body}</answer>"]:
        began = time.process_time()
        assert all(math.isfinite(bound) for span in PARSE(text) for bound in span)
        assert time.process_time() - began < 1.0


def test_deep_nesting_is_no_answer():
    deep = "[" * 100_000 + "1, 2" + "]" * 100_000
    assert PARSE(deep) == PARSE("```" + deep) == PARSE('["' + "]" * 100_000 + '", ' + deep + "]") == []
