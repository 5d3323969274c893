"""`[x0, y0, x1, y1]`, or a list of such boxes: the image and tracking tasks of VideoChat-R1, arXiv 2504.06958."""

import re
from math import isfinite

from rlvtg.text.box import Box

_NUMBER = r"[+-]?+(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+"
_SPACE = r"[ \t\n\r\f]*+"
_FOUR = rf"{_SPACE}{_NUMBER}{_SPACE}(?:,{_SPACE}{_NUMBER}{_SPACE}){{3}},?+{_SPACE}"
_BOX = rf"\[{_FOUR}\]"
_ONE = re.compile(rf"{_BOX}|\({_FOUR}\)")
_LIST = re.compile(rf"\[{_SPACE}{_BOX}{_SPACE}(?:,{_SPACE}{_BOX}{_SPACE})*,?+{_SPACE}\]")
_NUMBERS = re.compile(_NUMBER)


def parse(text: str) -> list[Box]:
    """The boxes that are all there is in a text: one box, or a list of boxes; [] if it is anything else."""
    text = text.strip()
    if _ONE.fullmatch(text) is None and _LIST.fullmatch(text) is None:
        return []
    numbers = [float(number) for number in _NUMBERS.findall(text)]
    if not all(map(isfinite, numbers)):
        return []
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in zip(*[iter(numbers)] * 4, strict=True)]
