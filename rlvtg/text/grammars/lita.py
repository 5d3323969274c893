"""`<t5> <t42>`, relative time tokens: LITA, arXiv 2403.19046, with its T = 100 tokens.

NVlabs/LITA writes a second as `<t{n}>`, n = round((T - 1) * second / duration) from 0 to T - 1
(lita/dataset/event_loc_dataset.py), and reads it as n * duration / (T - 1) (lita/eval/eval_model_rtl.py): the last
token is the end of the video, so its Grammar has T - 1 = 99 parts. The paper numbers them from 1, as <1> to <T>.
A model whose tokenizer has no such tokens writes them as plain text.
"""

import re
from collections.abc import Sequence
from itertools import islice

from rlvtg.text.span import Span
from rlvtg.text.tags import last_answer

_TOKEN = re.compile(r"<t(\d{1,2})>")
_LAST = 99


def parse(text: str) -> list[Span]:
    """The first two tokens of the last answer block or, where none is closed, of the whole text, the smaller first.

    The release looks at the whole text always, and takes the whole video where there are fewer than two.
    """
    answer = last_answer(text)
    tokens = [float(token[1]) for token in islice(_TOKEN.finditer(text if answer is None else answer), 2)]
    return [(min(tokens), max(tokens))] if len(tokens) == 2 else []


def write(spans: Sequence[Span], decimals: int) -> str:
    """One span in 99ths of the video, as `<t5> <t42>`; a token has no `decimals`."""
    [(start, end)] = spans
    return f"<t{min(round(start), _LAST)}> <t{min(round(end), _LAST)}>"
