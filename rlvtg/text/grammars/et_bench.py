"""How E.T. Bench reads the answer to a grounding question: arXiv 2409.18111, its compute_metrics.py (the copy in
THUNLP-MT/MUSEG@889565e data/eval/et_bench)."""

import re
from math import isfinite

from rlvtg.text.span import Span
from rlvtg.text.tags import only_answer

# Its `(\d+\.*\d*)\s*-\s*(\d+\.*\d*)` and `(\d+\.*\d*)\s* to \s*(\d+\.*\d*)`. Starting only where a run of digits
# starts, and never giving back a character, changes no match; the space before "to" is looked for behind it.
_A_DASH_B = re.compile(r"(?<!\d)(\d++\.*+\d*+)\s*+-\s*+(\d++\.*+\d*+)")
_A_TO_B = re.compile(r"(?<!\d)(\d++\.*+\d*+)\s*+(?<= )to \s*+(\d++\.*+\d*+)")
# Its `\b(\d+\.\d+\b|\b\d+)\b`.
_WHOLE_NUMBER = re.compile(r"\b(\d++\.\d++\b|\d++)\b")
_SENTENCE_END = re.compile(r"[!?\n]")
# Its `[-+]?\d*\.\d+|[-+]?\d+`.
_SIGNED_NUMBER = re.compile(r"[-+]?\d*+\.\d++|[-+]?\d++")


def parse(text: str) -> list[Span]:
    """The spans in the one answer block, as MUSEG's src/eval_et_bench.py cuts it out: see `spans`."""
    answer = only_answer(text)
    return [] if answer is None else spans(answer)


def spans(answer: str) -> list[Span]:
    """The spans of an answer (`tvg_format` there): all `a - b`; else all `a to b`; else pairs of loose numbers.

    Loose numbers are the first whole number of each sentence that speaks of a start, an end or a happening. Reversed
    pairs are turned round. A number with two dots in a row, on which the original fails, gives no spans. Clock times
    are read there too, but only where loose numbers were found in their sentences before, so never.
    """
    answer = answer.lower()
    pairs = _A_DASH_B.findall(answer) or _A_TO_B.findall(answer)
    if not pairs:
        sentences = [part for part in _SENTENCE_END.split(answer) if any(word in part for word in _KEYWORDS)]
        first = [match[1] for match in map(_WHOLE_NUMBER.search, sentences) if match]
        pairs = list(zip(first[::2], first[1::2], strict=False))
    try:
        found = [(float(a), float(b)) for a, b in pairs]
    except ValueError:
        return []
    return [(min(span), max(span)) for span in found] if all(isfinite(max(span)) for span in found) else []


_KEYWORDS = ("start", "end", "happen")


def moment(answer: str) -> float | None:
    """The first number of an answer, with its sign: the second that a highlight question asks for (`vhd_eval`)."""
    match = _SIGNED_NUMBER.search(answer)
    return float(match[0]) if match else None
