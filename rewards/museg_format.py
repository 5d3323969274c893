from collections.abc import Sequence
from typing import Any

from rlvtg.text.citation import is_cited
from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.grammars.ranges import ranges
from rlvtg.text.tags import only_think_answer


def museg_format(
    completions: Sequence[Completion],
    *,
    citation: str | None = "code",
    tolerance: float = 0.05,
    require_answer: bool = False,
    **_: Any,
) -> list[float | None]:
    """Whether a completion is one think and one answer block, the answer nothing but ranges, and its times cited.

    Formula: 0.0 unless the text is `<think>...</think>` and `<answer>...</answer>` with white space at most around
    them and each tag in it once; else 0.2 if a token of the answer is not two numbers as in `10.00-20.00`; else 0.6 if
    the reasoning does not cite each of them; else 1.0. Range: {0, 0.2, 0.6, 1}. Starts need not lie before ends.
    An answer without any range is in order, and scores 1.0, unless `require_answer` makes it 0.2.
    `citation` says what citing is: "code" finds the time as Python writes it (10.0), 1 to 10 times, as a regular
    expression, so that 1000 cites it and 10 does not; "numeric" finds a number at most `tolerance` seconds away; with
    null, nothing need be cited.

    Source: arXiv 2505.20715; rewards `format` (citation "code", first phase) and `format_n_timestamp` (citation null,
    second phase) of THUNLP-MT/MUSEG@889565e src/train.py.
    Differs: `require_answer` and citation "numeric" are ours.
    """
    return [_format(completion_text(each), citation, tolerance, require_answer) for each in completions]


def _format(text: str, citation: str | None, tolerance: float, require_answer: bool) -> float:
    blocks = only_think_answer(text)
    if blocks is None:
        return 0.0
    think, answer = blocks
    spans = ranges(answer)
    if spans is None or (require_answer and not spans):
        return 0.2
    times = [time for span in spans for time in span]
    return 1.0 if citation is None or is_cited(times, think, citation, tolerance) else 0.6
