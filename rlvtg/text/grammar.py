"""Answer grammars: how a method writes spans into a completion and how they are read back.

The project's regular expressions are here and nowhere else. Completions are untrusted text of any length, so each
function runs in linear time and gives what the paper's own, possibly quadratic, expression gives (cited with each).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite

from rlvtg.text.span import Span


class GrammarError(ValueError):
    """A grammar that there is not."""


@dataclass(frozen=True)
class Grammar:
    """One way of writing spans.

    `parse` takes a whole completion and returns its predicted spans, [] where there are none; it never raises.
    `write` takes spans and a number of decimals and returns what stands between the answer tags.
    `example` is one such text, to show in a prompt.
    """

    name: str
    example: str
    parse: Callable[[str], list[Span]]
    write: Callable[[Sequence[Span], int], str]


def last_answer(text: str) -> str | None:
    """What stands in the last closed `<answer>` block, or None.

    The last of `re.findall("<answer>(.*?)</answer>", text, re.DOTALL)`.
    """
    answer, position = None, 0
    while (start := text.find("<answer>", position)) >= 0:
        start += len("<answer>")
        end = text.find("</answer>", start)
        if end < 0:
            break
        answer, position = text[start:end], end + len("</answer>")
    return answer


def is_think_answer(text: str) -> bool:
    """Whether `text`, stripped, is a think block and an answer block with only white space between them.

    `re.fullmatch(r"<think>.*?</think>\\s*<answer>.*?</answer>", text.strip(), re.DOTALL)`: further blocks may stand
    inside either one, and both may be empty.
    """
    text = text.strip()
    if not (text.startswith("<think>") and text.endswith("</answer>")):
        return False
    return _BETWEEN_BLOCKS.search(text, len("<think>"), len(text) - len("</answer>")) is not None


_BETWEEN_BLOCKS = re.compile(r"</think>\s*<answer>")

# Time-R1's `(\d+\.?\d*) (to|and) (\d+\.?\d*)`. Starting only where a run of digits starts, and never giving back a
# digit, changes no match: a number that starts or stops inside a run can be widened to the whole run.
_A_TO_B = re.compile(r"(?<!\d)(\d++\.?+\d*+) (?:to|and) (\d++\.?+\d*+)", re.IGNORECASE)


def _parse_to(text: str) -> list[Span]:
    answer = last_answer(text)
    pairs = _A_TO_B.findall(answer) if answer is not None else []
    if not pairs:
        return []
    start, end = map(float, pairs[-1])
    # Some hundred digits make an infinite float, which is no time.
    return [(start, end)] if isfinite(start) and isfinite(end) else []


def _write_to(spans: Sequence[Span], decimals: int) -> str:
    if len(spans) != 1:
        raise ValueError(f"grammar 'to' writes exactly one span, got {len(spans)}")
    start, end = spans[0]
    if not (0 <= start < float("inf") and 0 <= end < float("inf")):
        raise ValueError(f"grammar 'to' writes finite times >= 0, got {spans[0]!r}")
    return f"{start:.{decimals}f} to {end:.{decimals}f}"


_GRAMMARS = {
    # Time-R1, arXiv 2503.13377, xiaomi-research/time-r1@7f2b594 main.py: the last "a to b" of the last answer block.
    "to": Grammar(name="to", example="3.25 to 11.50", parse=_parse_to, write=_write_to),
}


def grammar(name: str) -> Grammar:
    """The grammar called `name`; GrammarError with the known names and the nearest one if there is none."""
    if name in _GRAMMARS:
        return _GRAMMARS[name]
    nearest = get_close_matches(str(name), _GRAMMARS, n=1, cutoff=0.0)[0]
    raise GrammarError(f"no grammar is called {name!r}; there is {', '.join(_GRAMMARS)}; did you mean {nearest!r}?")
