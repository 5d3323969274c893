from collections.abc import Sequence
from typing import Any

from rlvtg.text.citation import is_cited
from rlvtg.text.completion import Completion, completion_text
from rlvtg.text.grammar import grammar as grammar_named
from rlvtg.text.tags import only_think_answer


def timestamp_citation(
    completions: Sequence[Completion],
    *,
    citation: str = "code",
    tolerance: float = 0.05,
    grammar: str = "ranges",
    **_: Any,
) -> list[float | None]:
    """Whether the reasoning cites every time that the answer gives, so that an answer rests on what was looked at.

    Formula: 1.0 if each start and end in the answer occurs in the think block, else 0.0. Range: {0, 1}. 0.0 too for an
    answer without spans and for a text that is not one think and one answer block.
    `citation` says what occurring is: "code" finds the time as Python writes it (10.0), 1 to 10 times, as a regular
    expression, so that 1000 cites it and 10 does not; "numeric" finds a number at most `tolerance` seconds away.
    The numbers of the answer are compared as they are written: use a `grammar` whose numbers are seconds.

    Source: arXiv 2505.20715, reward r_T of the first training phase.
    Differs: the code, THUNLP-MT/MUSEG@889565e src/train.py, has it as the step from 0.6 to 1.0 of its format reward,
    where an answer without spans cites all of its times.
    """
    reader = grammar_named(grammar).reader
    rewards: list[float | None] = []
    for text in map(completion_text, completions):
        blocks, spans = only_think_answer(text), reader(text)
        times = [time for span in spans for time in span]
        rewards.append(float(blocks is not None and bool(times) and is_cited(times, blocks[0], citation, tolerance)))
    return rewards
