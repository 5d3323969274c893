"""Rollout with Hugging Face `generate`: each prompt is encoded and prefilled once, then continued G times."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from rlvtg.model.inputs import Inputs, batch


class Roomy(DynamicLayer):
    """The cached keys and values of one layer, repeated for G completions, with room for those to come.

    A `DynamicLayer` copies all that it holds for every token.

    Args:
        prefilled: (P, H, N, D) keys and values of P prompts.
        num_generations: G.
        room: tokens to come.
    """

    def __init__(self, prefilled: DynamicLayer, num_generations: int, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = prefilled.dtype, prefilled.device, True
        self._room = [self._with_room(states, num_generations, room) for states in (prefilled.keys, prefilled.values)]
        self._show(prefilled.keys.shape[2])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values, these included."""
        start, end = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        for held, states in zip(self._room, (key_states, value_states), strict=True):
            held[:, :, start:end] = states
        self._show(end)
        return self.keys, self.values

    @staticmethod
    def _with_room(states: torch.Tensor, num_generations: int, room: int) -> torch.Tensor:
        count, heads, length, width = states.shape
        held = states.new_empty(count * num_generations, heads, length + room, width)
        held[:, :, :length] = states.repeat_interleave(num_generations, dim=0)
        return held

    def _show(self, length: int) -> None:
        self.keys, self.values = (held[:, :, :length] for held in self._room)


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
    room = config.max_new_tokens or config.max_length
    cache.layers = [Roomy(layer, num_generations, room) for layer in cache.layers]
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
