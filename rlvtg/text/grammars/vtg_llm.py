"""`<TIME_ZERO><TIME_ZERO><TIME_ONE><TIME_TWO><TIME_DOT><TIME_FIVE> - ...`: VTG-LLM, arXiv 2405.13382.

Absolute time tokens of gyxxyg/VTG-LLM, one for each digit and the dot, so a number is its seconds: four digits, dot,
one digit (vtgllm/datasets/datasets/video_instruct_dataset.py, which cuts further decimals off where we round).
Reading follows utils/format_tvg.py for answers of tokens.
"""

import re
from collections.abc import Sequence

from rlvtg.text.span import Span
from rlvtg.text.tags import last_answer

_NAMES = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
_CHARACTER = {f"<TIME_{name}>": str(digit) for digit, name in enumerate(_NAMES)} | {"<TIME_DOT>": "."}
_TOKEN = {character: token for token, character in _CHARACTER.items()}

# Lengths are bounded so that a long run of tokens takes linear time.
_DIGITS = rf"(?:<TIME_(?:{'|'.join(_NAMES)})> ?)"
_NUMBER = rf"({_DIGITS}{{1,6}}(?:<TIME_DOT> ?{_DIGITS}{{1,3}})?)"
_A_DASH_B = re.compile(rf"{_NUMBER}\s*+-\s*+{_NUMBER}")


def parse(text: str) -> list[Span]:
    """The first "a - b" of the last answer block or, where none is closed, of the text; the smaller first."""
    answer = last_answer(text)
    found = _A_DASH_B.search(text if answer is None else answer)
    if not found:
        return []
    start, end = sorted(map(_seconds, found.groups()))
    return [(start, end)]


def write(spans: Sequence[Span], decimals: int) -> str:
    """One span; the tokens always have one decimal, whatever `decimals`. ValueError from 9999.95 seconds on."""
    [(start, end)] = spans
    numbers = [f"{time:06.1f}" for time in (start, end)]
    if any(len(number) > 6 for number in numbers):
        raise ValueError(f"grammar 'vtg_llm' writes seconds of at most four digits, got {spans[0]!r}")
    return " - ".join("".join(map(_TOKEN.__getitem__, number)) for number in numbers)


def _seconds(tokens: str) -> float:
    for token, character in _CHARACTER.items():
        tokens = tokens.replace(token, character)
    return float(tokens.replace(" ", ""))
