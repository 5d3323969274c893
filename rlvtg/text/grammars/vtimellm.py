"""`from 05 to 42`, indices of the 100 frames that the model sees: VTimeLLM, arXiv 2311.18445.

huangb23/VTimeLLM: vtimellm/train/dataset.py writes a second as round(100 * second / duration), at most 99, with two
digits; vtimellm/eval/eval.py reads the index n as the second n * duration / 100, start and end alike. (Its captioning
metric gives the end's frame its whole length, (n + 1) * duration / 100; grounding does not.)
"""

import re
from collections.abc import Sequence

from rlvtg.text.span import Span
from rlvtg.text.tags import last_answer

_A_TO_B = re.compile(r"(\d{2}) (?:to|and) (\d{2})")


def parse(text: str) -> list[Span]:
    """The first "aa to bb" or "aa and bb" of the last answer block or, where none is closed, of the whole text.

    The release looks at the whole text always; it knows no answer block.
    """
    answer = last_answer(text)
    found = _A_TO_B.search(text if answer is None else answer)
    return [(float(found[1]), float(found[2]))] if found else []


def write(spans: Sequence[Span], decimals: int) -> str:
    """One span in hundredths of the video, as `from 05 to 42`; an index has no `decimals`."""
    [(start, end)] = spans
    return f"from {min(round(start), 99):02d} to {min(round(end), 99):02d}"
