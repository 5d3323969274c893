"""The off-policy completion of a group: the annotated answer, written as the policy is asked to write it.

Source: TempSamp-R1, arXiv 2509.18056 and ZhangZikun6666/TempSamp-R1@55a9228, which puts one into each group.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rlvtg.recipe import Expert
from rlvtg.text.grammar import grammar as grammar_named
from rlvtg.text.span import Span

_SPANS = "{spans}"


def expert_completion(
    spans: Sequence[Span],
    grammar: str,
    *,
    template: str = "<answer> {spans} </answer>",
    decimals: int = 2,
    duration: float | None = None,
) -> str:
    """The annotated spans, in seconds, as a completion; no end-of-sequence token.

    Args:
        spans: the annotation of one row.
        grammar: name of the grammar that the recipe's rewards read.
        template: the completion around the spans, with `{spans}` where they stand; other braces are kept. The default
            is the release's. Neither paper nor release says whether a reasoning policy's off-policy answer reasons; if
            it should, its reasoning goes here, as in `<think>...</think><answer>{spans}</answer>`.
        decimals: of the written numbers, where the grammar has decimals.
        duration: of the video in seconds, for grammars that write times relative to it.

    Raises:
        ValueError: the grammar cannot write these spans, the template has no `{spans}`, or the grammar does not read
            spans in the completion, so that no policy could earn what this completion is given.
    """
    if _SPANS not in template:
        raise ValueError(f"got template {template!r}, want one with {_SPANS} where the spans stand")
    named = grammar_named(grammar)
    completion = template.replace(_SPANS, named.write(spans, decimals, duration))
    if len(named.parse(completion, duration)) != len(spans):
        raise ValueError(f"grammar {grammar!r} does not read {spans!r} back from {completion!r}; mend the template")
    return completion


def expert_text(row: Mapping[str, Any], grammar: str, expert: Expert) -> str:
    """The expert completion of a dataset row, without end-of-sequence token; ValueError names the row's id."""
    try:
        return expert_completion(
            [(start, end) for start, end in row["spans"]],
            grammar,
            template=expert.template,
            decimals=expert.decimals,
            duration=row["duration"],
        )
    except ValueError as error:
        raise ValueError(f"row {row['id']!r} has no expert completion: {error}") from error


def expert_tokens(
    row: Mapping[str, Any], grammar: str, expert: Expert, tokenizer: Any, max_completion_length: int
) -> list[int]:
    """The same as token ids (C,) with the end-of-sequence token.

    Raises:
        ValueError: it is longer than `max_completion_length` tokens, which no policy may be; or as `expert_text`.
    """
    text = expert_text(row, grammar, expert)
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    if len(ids) > max_completion_length:
        raise ValueError(
            f"row {row['id']!r}: its expert completion {text!r} has {len(ids)} tokens, but max_completion_length is "
            f"{max_completion_length}"
        )
    return ids


def are_experts(completions: int, num_generations: int) -> list[bool]:
    """Which of whole groups of G completions, one group after the other, is the expert's: the last of each group."""
    return [place % num_generations == num_generations - 1 for place in range(completions)]


def controlled_reward(reward: float, *, scale: float = 1.0, cap: float | None = None) -> float:
    """min(cap, scale * reward): keeps an off-policy completion's reward from dominating its group's statistics.

    `scale` 0.8 is the paper's "reward downscaling" for a reward of at most 1; the release scales, then caps, and does
    neither by default.
    """
    scaled = scale * reward
    return scaled if cap is None else min(cap, scaled)
