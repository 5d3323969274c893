"""Answer grammars by name: how a method writes spans into a completion and how they are read back.

Training and evaluation name the same grammar; a paper whose published evaluation reads answers in another way than its
training has that reading here too, under its own name, so that its numbers can be repeated. The expressions are in
rlvtg/text/grammars/, one file per way of writing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite

from rlvtg.text.grammars import (
    et_bench,
    json_list,
    lita,
    percent,
    ranges,
    seq2time,
    tempsamp_r1,
    timelens,
    to,
    tuples,
    vtg_llm,
    vtimellm,
)
from rlvtg.text.span import Span


class GrammarError(ValueError):
    """A grammar that there is not, or one that lacks what it needs to read or write spans."""


@dataclass(frozen=True)
class Grammar:
    """One way of writing spans.

    Args:
        name: what a recipe calls it.
        example: what stands between the answer tags (or is the whole answer), to show in a prompt.
        reader: a whole completion -> the numbers of its spans, [] where there are none. Never raises, linear time.
        writer: spans and a number of decimals -> text as in `example`.
        several: whether it can write more than one span, or none.
        parts: None if its numbers are seconds; else the number that stands for the end of the video, 0 standing for
            its start (100 for percent), and `parse` and `write` need the video's duration.
        none: whether a completion says, readably, that there is no span; None if the grammar cannot say it.
    """

    name: str
    example: str
    reader: Callable[[str], list[Span]]
    writer: Callable[[Sequence[Span], int], str]
    several: bool = False
    parts: float | None = None
    none: Callable[[str], bool] | None = None

    def parse(self, text: str, duration: float | None = None) -> list[Span]:
        """The spans of a completion in seconds, in the order in which they count; [] where there are none."""
        spans = self.reader(text)
        if self.parts is None:
            return spans
        second = self._second(duration)
        scaled = [(start * second, end * second) for start, end in spans]
        return [span for span in scaled if all(map(isfinite, span))]

    def says_none(self, text: str) -> bool:
        """Whether a completion says that there is no span, as against saying nothing that can be read."""
        return self.none is not None and self.none(text)

    def write(self, spans: Sequence[Span], decimals: int = 2, duration: float | None = None) -> str:
        """Spans in seconds as text; ValueError for spans that the grammar cannot write."""
        if not self.several and len(spans) != 1:
            raise ValueError(f"grammar {self.name!r} writes exactly one span, got {len(spans)}")
        for span in spans:
            if not all(0 <= bound < float("inf") for bound in span):
                raise ValueError(f"grammar {self.name!r} writes finite times >= 0, got {span!r}")
        if self.parts is None:
            return self.writer(spans, decimals)
        second = self._second(duration)
        return self.writer([(start / second, end / second) for start, end in spans], decimals)

    def _second(self, duration: float | None) -> float:
        """How many seconds the number 1 stands for."""
        if duration is None or self.parts is None or not 0 < duration < float("inf"):
            raise GrammarError(f"grammar {self.name!r} needs the video's duration in seconds, got {duration!r}")
        return duration / self.parts


_RANGES = "10.00-20.00 30.00-41.50"
_HAPPENS_IN = "The event happens in 3.25 - 11.50 seconds."

_GRAMMARS = {
    entry.name: entry
    for entry in (
        Grammar("to", example="3.25 to 11.50", reader=to.parse, writer=to.write),  # Time-R1, TimeZero
        # VideoChat-R1: a span that starts after its end is not read.
        Grammar("to_ordered", example="3.25 to 11.50", reader=to.parse_ordered, writer=to.write_ordered),
        # The published evaluations of these four read the last pair of the whole output.
        Grammar("time_r1_eval", example="3.25 to 11.50", reader=to.parse_anywhere, writer=to.write),
        Grammar("timezero_eval", example="3.25 to 11.50", reader=to.parse_anywhere, writer=to.write),
        Grammar("invert4tvg_eval", example="3.25 to 11.50", reader=to.parse_anywhere, writer=to.write),
        Grammar("videochat_r1_eval", example="3.25 to 11.50", reader=to.parse_anywhere, writer=to.write),
        # What Time-R1 falls back on when it measures difficulty.
        Grammar("time_r1_force", example="3.25 to 11.50", reader=to.parse_first_numbers, writer=to.write),
        # VideoChat-R1: the evidence of an answer, in a glue block.
        Grammar(
            "glue",
            example="[(3.25, 11.50), (20.00, 24.00)]",
            reader=tuples.parse_glue,
            writer=tuples.write,
            several=True,
            none=tuples.no_glue,
        ),
        # VideoChat-R1.5: at most 3 spans, in a glue block or as the answer.
        Grammar(
            "glue_few",
            example="[(3.25, 11.50), (20.00, 24.00)]",
            reader=tuples.parse_few_glue,
            writer=tuples.write_few,
            several=True,
            none=tuples.no_glue,
        ),
        Grammar(
            "tuples_few",
            example="[(3.25, 11.50), (20.00, 24.00)]",
            reader=tuples.parse_few,
            writer=tuples.write_few,
            several=True,
            none=tuples.no_spans,
        ),
        Grammar("tempsamp_r1", example="3.25 to 11.50", reader=tempsamp_r1.parse, writer=to.write),
        # TempSamp-R1's published scores: the first of the spans, which the reader gives all.
        Grammar("tempsamp_r1_eval", example="3.25 to 11.50", reader=tempsamp_r1.parse_evaluation, writer=to.write),
        # Times that are relative to the video, and one that is absolute but in tokens of its own.
        Grammar("percent", example="12.50% to 48.00%", reader=percent.parse, writer=percent.write, parts=100),
        Grammar("vtimellm", example="from 05 to 42", reader=vtimellm.parse, writer=vtimellm.write, parts=100),
        Grammar("lita", example="<t5> <t42>", reader=lita.parse, writer=lita.write, parts=99),
        Grammar(
            "seq2time",
            example="<0><4><8><0> - <7><0><0><0>",
            reader=seq2time.parse,
            writer=seq2time.write,
            parts=10_000,
        ),
        Grammar(
            "vtg_llm",
            example=vtg_llm.write([(3.5, 11.0)], 1),
            reader=vtg_llm.parse,
            writer=vtg_llm.write,
        ),
        Grammar("ranges", _RANGES, ranges.parse, ranges.write, several=True),  # MUSEG
        Grammar("museg_eval", _RANGES, ranges.parse_numbers, ranges.write, several=True),  # MUSEG src/eval_grounding.py
        Grammar("et_bench", _RANGES, et_bench.parse, ranges.write, several=True),  # E.T. Bench, run by MUSEG
        # TimeLens: its sentence read strictly (for training anew), as its rewards and as its evaluation read it.
        Grammar("happens_in", example=_HAPPENS_IN, reader=timelens.parse, writer=timelens.write, several=True),
        Grammar("timelens", example=_HAPPENS_IN, reader=timelens.parse_training, writer=timelens.write, several=True),
        Grammar(
            "timelens_eval", example=_HAPPENS_IN, reader=timelens.parse_evaluation, writer=timelens.write, several=True
        ),
        Grammar(  # TimeLens2
            "json_list", example="[[3.25, 11.50]]", reader=json_list.parse, writer=json_list.write, several=True
        ),
    )
}


def grammar(name: str) -> Grammar:
    """The grammar called `name`; GrammarError with the known names and the nearest one if there is none."""
    if name in _GRAMMARS:
        return _GRAMMARS[name]
    nearest = get_close_matches(str(name), _GRAMMARS, n=1, cutoff=0.0)[0]
    raise GrammarError(f"no grammar is called {name!r}; there is {', '.join(_GRAMMARS)}; did you mean {nearest!r}?")
