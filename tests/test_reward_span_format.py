import pytest

from rlvtg.reward import find

span_format = find("span_format")


@pytest.mark.parametrize(
    ("completion", "loose", "strict"),
    [
        ("<answer> 7.0 to 11.0 </answer>", 1, 1),
        ("<think>a</think><answer>7-11</answer>", 1, 1),
        ("<answer>7.and 11</answer>\n \n", 1, 1),
        ("<answer>it runs from 7 to 11 seconds</answer>", 1, 1),
        ("<answer>7 to\n11</answer>", 1, 0),
        ("<answer>7 to 11\r</answer>", 1, 0),
        ("<answer>7 to 11</answer>.", 1, 0),
        ("<answer>7 to 11</answer><answer>7 to 11</answer>", 1, 0),
        ("<answer>7 to 11</answer><answer>none</answer>", 1, 0),
        ("<answer>none</answer><answer>7 to 11</answer>", 0, 0),
        ("<answer>7, 11</answer>", 0, 0),
        ("<answer>7s to 11s</answer>", 0, 0),
        ("<Answer>7 to 11</Answer>", 0, 0),
        ("<answer>7 to 11", 0, 0),
        ("7 to 11", 0, 0),
        ("", 0, 0),
    ],
)
def test_an_answer_has_two_numbers_and_strictly_nothing_around_it(completion, loose, strict):
    assert span_format([completion]) == [loose]
    assert span_format([completion], strict=True) == [strict]
