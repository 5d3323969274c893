"""Rollout with Hugging Face `generate`: each prompt is encoded and prefilled once, then continued G times."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from rlvtg.model.inputs import Inputs, batch


@torch.no_grad()
def rollout(
    model: PreTrainedModel, prompts: Sequence[Inputs], config: GenerationConfig, *, num_generations: int = 1
) -> list[list[int]]:
    """Completions of P prompts, G of each, in the order of the prompts.

    The prompts run through the model once, without their last token; the cache is repeated G times and `generate`
    takes over from the last prompt token. Dropout is off meanwhile.

    Args:
        model: a model prepared with `share_vision` and `forbid_vision_tokens`, or a PEFT wrapper of one.
        prompts: P prompts.
        config: how to sample; its `pad_token_id` and `eos_token_id` must be set.
        num_generations: G.

    Returns:
        P * G lists of token ids, each ending with its end-of-sequence token unless it was cut at the length limit.
    """
    was_training = model.training
    model.eval()
    device = model.device
    nothing = torch.zeros((len(prompts), 0), dtype=torch.long, device=device)
    inputs = batch(prompts, nothing, nothing, pad_token_id=config.pad_token_id)
    ids, mask, positions = inputs.pop("input_ids"), inputs.pop("attention_mask"), inputs.pop("position_ids")
    # a left-padded prompt of one token would have nothing to prefill; a prompt with a video never is that short
    before_last = {**inputs, "input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}
    prefilled = model(**before_last, position_ids=positions[:, :, :-1], use_cache=True, logits_to_keep=1)
    cache = prefilled.past_key_values
    if num_generations > 1:
        cache.batch_repeat_interleave(num_generations)
    sequences = model.generate(
        input_ids=ids.repeat_interleave(num_generations, dim=0),
        attention_mask=mask.repeat_interleave(num_generations, dim=0),
        position_ids=positions.repeat_interleave(num_generations, dim=1),
        past_key_values=cache,
        generation_config=config,
        # the weights are whole (`generating`), and a process that has more prompts must not wait for the others' steps
        synced_gpus=False,
    )
    model.train(was_training)
    stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return [_until(sequence, stops) for sequence in sequences[:, ids.shape[1] :].tolist()]


def _until(tokens: list[int], stops: Sequence[int]) -> list[int]:
    """The tokens up to and including the first stop."""
    for index, token in enumerate(tokens):
        if token in stops:
            return tokens[: index + 1]
    return tokens
