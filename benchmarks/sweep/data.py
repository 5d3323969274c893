"""The data and the model that the cold starts of one seed begin with: `python benchmarks/sweep/data.py seed=1`.

What the demo makes, and two files for the cold starts whose rows differ in their answers:

    sft_inverse.jsonl   all queries about when, and the inverse tasks of every other one
    sft_several.jsonl   queries with one or two spans and their answers
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.sweep.place import recipe_file
from rlvtg.data import jsonl
from rlvtg.data.inverse import inverse_samples
from rlvtg.data.read import read
from rlvtg.data.sample import Sample
from rlvtg.data_check import make_demo
from rlvtg.recipe import Recipe, Source, load
from rlvtg.text.grammar import grammar
from rlvtg.text.verbs import tagger

# As the prompts of recipes/sweep/inverse_on.yaml word them, without the video.
ASKED = {
    "verb_completion": ("complete {masked}", "{query}"),
    "action_recognition": ("verb of {masked}", "{verb}"),
    "video_description": ("describe", "{query}"),
}


def main(argv: Sequence[str]) -> None:
    """Make for the overrides in `argv` what is not there yet."""
    from rlvtg.model import tiny as tiny_model  # loads torch

    for name, answers in (("cold_inverse", inverse_rows), ("cold_several", several_rows)):
        recipe = load([f"recipe={recipe_file(name)}", *argv])
        make_demo(recipe)
        assert recipe.tiny is not None
        tiny_model.make(recipe.model, seed=recipe.tiny.seed)
        file, videos = recipe.data["cold_start"].annotations, recipe.data["cold_start"].videos
        if not Path(file).exists():
            samples = read(Source(str(Path(recipe.tiny.folder) / "sft.jsonl"), videos, "jsonl"))
            jsonl.write(answers(samples, recipe), file, videos)


def inverse_rows(samples: Sequence[Sample], recipe: Recipe) -> list[Sample]:
    """Grounding rows with their answers; and, behind every other one, one of the inverse tasks in turn."""
    made: list[Sample] = []
    for place, sample in enumerate(samples):
        ((start, end),) = sample.spans
        made.append(replace(sample, completion=f"<answer>{start:.0f} to {end:.0f}</answer>"))
        if place % 2 == 0:
            task = list(ASKED)[place // 2 % len(ASKED)]
            for segment in inverse_samples([sample], tasks=(task,), shortest=2.0, tagger=tagger("hanta"))[0]:
                words = {"masked": segment.masked_query, "query": segment.query, "verb": segment.verb}
                asked, answer = (template.format(**words) for template in ASKED[task])
                made.append(
                    replace(segment, task="inverse", query=asked, spans=(), completion=f"<answer>{answer}</answer>")
                )
    return made


def several_rows(samples: Sequence[Sample], recipe: Recipe) -> list[Sample]:
    """The rows with all their spans as answers, behind the query as a thought."""
    write = grammar(recipe.grammar).write
    return [
        replace(sample, completion=f"<think>{sample.query}</think><answer>{write(sample.spans, 0)}</answer>")
        for sample in samples
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
