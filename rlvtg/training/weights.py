"""The weights of a model that is being trained, whole and under their names in a checkpoint, one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled


def whole_weights(model: PreTrainedModel | PeftModel) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, weight) of every parameter of the plain model, each once, tied weights under their first name.

    An adapter is added to its weight on the way, so the model itself is never merged, and rounds nothing. Under ZeRO-3
    the weights are gathered layer by layer, which all processes have to do together.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    given: set[int] = set()
    adapted: list[str] = []
    for path, module in base.named_modules():
        if any(path.startswith(f"{above}.") for above in adapted):
            continue
        if isinstance(module, BaseTunerLayer):
            adapted.append(path)
            held = list(module.parameters())
        else:
            held = [value for value in module.parameters(recurse=False) if id(value) not in given]
        given.update(map(id, held))
        if held:
            with torch.no_grad(), _gathered(held):
                yield from _own(path, module, held)


def _own(path: str, module: torch.nn.Module, held: list[torch.nn.Parameter]) -> list[tuple[str, torch.Tensor]]:
    """The parameters `held` of a layer, with its adapter if it has one."""
    layer = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    found = []
    for name, value in layer.named_parameters(recurse=False):
        if not any(value is one for one in held):
            continue
        weight = value.detach()
        if name == "weight" and isinstance(module, BaseTunerLayer):
            for adapter in module.active_adapters:
                weight = weight + module.get_delta_weight(adapter).to(weight)
        found.append((f"{path}.{name}".lstrip("."), weight.clone() if is_deepspeed_zero3_enabled() else weight))
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
