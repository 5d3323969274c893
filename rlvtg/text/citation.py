"""Does the reasoning name the times that the answer gives? MUSEG's citation of timestamps, arXiv 2505.20715."""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from math import isfinite
from typing import Any

from rlvtg.text.grammars.ranges import numbers

CITATIONS = ("code", "numeric")

# How often the paper's code lets a text name one time.
_MOST = 10

# Edges of the tree of expressions that are not one character.
_ANY, _EE, _NAME = "any", "ee", "name"


def is_cited(times: Sequence[float], think: str, citation: str, tolerance: float) -> bool:
    """Whether `think` names every one of `times` (seconds); true if there are none.

    Args:
        times: the bounds of an answer.
        think: the text that should name them.
        citation: `code` looks for 10.0 as the paper's code does, see `is_matched`; `numeric` looks for a number in
            digits that is at most `tolerance` seconds away.
        tolerance: in seconds, >= 0, for `numeric`.
    """
    if citation not in CITATIONS:
        nearest = get_close_matches(str(citation), CITATIONS, n=1, cutoff=0.0)[0]
        raise ValueError(f"got citation {citation!r}; there is {', '.join(CITATIONS)}; did you mean {nearest!r}?")
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"got tolerance {tolerance!r}; it is a number of seconds >= 0, such as 0.05")
    if citation == "code":
        return is_matched({str(time) for time in times}, think)
    named = sorted(numbers(think))
    return all(isfinite(time) and _nearest(time, named) <= tolerance for time in times)


def is_matched(times: Collection[str], think: str) -> bool:
    """Whether each of `times`, Python's texts of numbers >= 0, has 1 to 10 matches in `think` as a regular expression.

    Equal to `1 <= len(re.findall(time, think, re.DOTALL)) <= 10` for each of them, so that "10.0" is found in 1000 and
    in 110.0, but not in "10". All are looked for in one pass, because a long answer has thousands of times.
    """
    tree: dict[str, Any] = {}
    for time in times:
        node = tree
        for character in time:
            if character == "+":  # only in an exponent: `e+` is one e or more
                continue
            node = node.setdefault(_edge(character, time), {})
        node[_NAME] = time
    ends: dict[str, int] = {}
    counts: dict[str, int] = {}
    for start, character in enumerate(think):
        if character not in tree:
            continue
        for time, end in _matches(tree, think, start):
            if start >= ends.get(time, 0):
                ends[time] = end
                counts[time] = counts.get(time, 0) + 1
                if counts[time] > _MOST:
                    return False
    return all(time in counts for time in times)


def _edge(character: str, time: str) -> str:
    if character == ".":
        return _ANY
    return _EE if character == "e" and "e+" in time else character


def _matches(tree: dict[str, Any], text: str, start: int) -> list[tuple[str, int]]:
    """The names of the tree's expressions that match `text` at `start`, with where each match ends."""
    found: list[tuple[str, int]] = []
    reached = [(tree, start)]
    while reached:
        node, position = reached.pop()
        if _NAME in node:
            found.append((node[_NAME], position))
        if position == len(text):
            continue
        character = text[position]
        if character in node:
            reached.append((node[character], position + 1))
        if _ANY in node:
            reached.append((node[_ANY], position + 1))
        if character == "e" and _EE in node:
            end = position
            while end < len(text) and text[end] == "e":
                end += 1
            reached.append((node[_EE], end))
    return found


def _nearest(time: float, ordered: Sequence[float]) -> float:
    """How far `time` is from the nearest of some ordered numbers; infinite if there are none."""
    place = bisect_left(ordered, time)
    return min((abs(time - number) for number in ordered[max(0, place - 1) : place + 1]), default=float("inf"))
