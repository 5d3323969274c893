"""`rlvtg export RUN --check`: an exported folder answers as the trainer's model did, with nothing of rlvtg in it.

The folder is loaded by transformers and PEFT as anybody would, asked about the first rows of the run's test set, each
row by itself, and held against what the run's own evaluation wrote. Only the inputs come from this library: ids, pixels
and positions (see rlvtg/model/positions.py for why positions do).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from rlvtg.data.row import rows
from rlvtg.data_check import PROBES, usable_samples
from rlvtg.doctor import COARSE_TOLERANCE, TOLERANCE
from rlvtg.evaluation.evaluate import MADE_FROM, PREDICTIONS
from rlvtg.evaluation.predictions import Prediction, read_predictions
from rlvtg.export import ADAPTER
from rlvtg.export_run import Exported
from rlvtg.model.family import family
from rlvtg.model.inputs import Encoder, Inputs
from rlvtg.model.load import load_adapter, load_config, load_plainly, load_processor, plain_model
from rlvtg.recipe import RecipeError, evaluation_prompt
from rlvtg.video.scan import read_probes
from rlvtg.video.store import clip_store


@dataclass(frozen=True)
class Answer:
    """One row's greedy answer by the exported model, beside the trainer's.

    Args:
        id: the row's.
        expected: what the run's evaluation wrote.
        got: what the exported model says.
        margin: where they part, by how much the exported model prefers its own token to the trainer's, in nats; 0.0 if
            they do not part.
    """

    id: str
    expected: str
    got: str
    margin: float

    @property
    def same(self) -> bool:
        """Whether they agree in every character."""
        return self.expected == self.got


def check_export(exported: Exported, count: int) -> tuple[str, bool]:
    """(what was found, in words; whether the exported model answers as the trainer's did) for the first `count` rows.

    A row whose answers part at a tie, two tokens closer together than rounding in the model's precision decides, counts
    as answered alike, and is told.

    Raises:
        RecipeError: the run's evaluation of the stage is not there, or its rows are not.
    """
    expected = _predictions(exported)[:count]
    dtype = _dtype(exported)
    answers = _answers(exported, expected, dtype)
    tolerance = TOLERANCE if dtype == torch.float32 else COARSE_TOLERANCE
    ties = [one for one in answers if not one.same and one.margin <= tolerance]
    wrong = [one for one in answers if not one.same and one.margin > tolerance]
    same = len(answers) - len(ties) - len(wrong)
    precision = str(dtype).removeprefix("torch.")
    lines = [
        f"{exported.folder}: {same} of {len(answers)} greedy answers are the trainer's to the letter ({precision}, "
        "plain transformers" + (" and PEFT)" if exported.kind == ADAPTER else ")")
    ]
    if ties:
        lines.append(f"{len(ties)} part at a tie, two tokens within {tolerance:g} nats")
    if wrong:
        one = wrong[0]
        lines.append(f"{len(wrong)} differ; the first is row {one.id!r} (by {one.margin:.3g} nats):")
        lines += [f"  trainer:  {one.expected!r}", f"  exported: {one.got!r}"]
    return "\n".join(lines), not wrong


def _predictions(exported: Exported) -> list[Prediction]:
    file = exported.run / "evaluation" / exported.stage / PREDICTIONS
    if not file.is_file():
        raise RecipeError(f"--check: there is no {file} to hold the exported model against")
    return read_predictions(file)


def _dtype(exported: Exported) -> torch.dtype:
    """In which precision the run evaluated."""
    made = exported.run / "evaluation" / exported.stage / MADE_FROM
    found: torch.dtype = getattr(torch, json.loads(made.read_text(encoding="utf-8"))["dtype"])
    return found


def _answers(exported: Exported, expected: Sequence[Prediction], dtype: torch.dtype) -> list[Answer]:
    recipe, folder = exported.recipe, exported.folder
    probes = read_probes(exported.run / PROBES)
    samples = usable_samples(recipe, recipe.evaluation.data, probes, None)
    by_id = {row["id"]: row for row in rows(samples, evaluation_prompt(recipe), recipe.system)}
    gone = [one["id"] for one in expected if one["id"] not in by_id]
    if gone:
        raise RecipeError(f"--check: the test set has no row {gone[0]!r} any more, which the run evaluated")
    base = plain_model(str(folder))
    model = load_plainly(base, dtype=dtype, attn_implementation=recipe.attn_implementation)
    if exported.kind == ADAPTER:
        model = load_adapter(model, folder)
    model = model.eval().to("cuda" if torch.cuda.is_available() and not recipe.use_cpu else "cpu")
    processor = load_processor(folder)
    encoder = Encoder(processor, family(load_config(base)), recipe.video, store=clip_store(recipe))
    limit = recipe.evaluation.max_new_tokens
    config = GenerationConfig.from_pretrained(
        folder, max_new_tokens=limit, return_dict_in_generate=True, output_logits=True
    )
    answers = []
    for one in expected:
        # of an evaluation that looks at a video several times, the first look
        text = (one["passes"][0]["completion"] if one.get("passes") else one["completion"]) or ""
        tokens, logits = _greedy(model, encoder(by_id[one["id"]]), config)
        got = processor.decode(tokens, skip_special_tokens=True)
        margin = 0.0 if got == text else _margin(tokens, logits, processor.tokenizer, text)
        answers.append(Answer(one["id"], text, got, margin))
    return answers


@torch.no_grad()
def _greedy(model: PreTrainedModel, inputs: Inputs, config: GenerationConfig) -> tuple[list[int], torch.Tensor]:
    """C greedy tokens, and (C, V) logits of what stands at their places."""
    device = model.device
    made = model.generate(
        input_ids=inputs.input_ids[None].to(device),
        attention_mask=torch.ones_like(inputs.input_ids)[None].to(device),
        position_ids=inputs.position_ids[:, None].to(device),
        pixel_values_videos=inputs.video.pixel_values.to(device),
        video_grid_thw=inputs.video.grids.to(device),
        generation_config=config,
    )
    return made.sequences[0, len(inputs.input_ids) :].tolist(), torch.cat(made.logits).float().cpu()


def _margin(tokens: Sequence[int], logits: torch.Tensor, tokenizer: Any, text: str) -> float:
    """Nats between the token where `tokens` leave `text` and the one that would have gone on with it."""
    wanted = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    for token, want, scores in zip(tokens, wanted, logits, strict=False):
        if token != want:
            return float(scores[token] - scores[want])
    return float("inf")
