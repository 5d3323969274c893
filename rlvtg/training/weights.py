"""The weights of a model that is being trained, whole and under their names in a checkpoint, one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled


def whole_weights(model: PreTrainedModel | PeftModel) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, weight) of every parameter of the plain model, in the order of its layers.

    Tied weights come under each of their names: vLLM on a CPU keeps the output layer apart from the embedding that it
    is tied to, and would go on with an old one. An adapter is added to its weight on the way, so the model itself is
    never merged and nothing of it is rounded. Under ZeRO-3 weights are gathered layer by layer, which all processes
    have to do together.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    adapted: list[str] = []
    for path, module in base.named_modules():
        if any(path.startswith(f"{above}.") for above in adapted):
            continue
        if isinstance(module, BaseTunerLayer):
            adapted.append(path)
        held = list(module.parameters(recurse=isinstance(module, BaseTunerLayer)))
        if held:
            with torch.no_grad(), _gathered(held):
                yield from _own(path, module)


def _own(path: str, module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The parameters of a layer, with its adapter if it has one."""
    layer = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    found = []
    for name, value in layer.named_parameters(recurse=False):
        weight = value.detach()
        if name == "weight" and isinstance(module, BaseTunerLayer):
            for adapter in module.active_adapters:
                weight = weight + module.get_delta_weight(adapter).to(weight)
        # what was gathered is gone when the next layer is
        found.append((f"{path}.{name}", weight.clone() if is_deepspeed_zero3_enabled() else weight))
    return found


@contextmanager
def _gathered(held: list[torch.nn.Parameter]) -> Iterator[None]:
    """The parameters whole, where ZeRO-3 has split them."""
    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(held):
        yield
