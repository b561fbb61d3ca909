"""Parameters without memory while a model is built, and memory for this rank's shares of them afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def without_memory() -> Iterator[None]:
    """Within, every parameter a module registers loses its memory at once; buffers keep theirs."""
    registered = nn.Module.register_parameter

    def register(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        registered(module, name, param)
        if param is not None and not param.is_meta:
            module._parameters[name] = nn.Parameter(param.detach().to("meta"), param.requires_grad)

    nn.Module.register_parameter = register  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = registered  # type: ignore[method-assign]


def hollowed(model: nn.Module) -> dict[str, torch.Tensor]:
    """The values of the parameters by name, which the model itself has no longer; shared ones stay shared."""
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}
    empty: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                lacking = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
                module._parameters[name] = empty.setdefault(parameter, lacking)
    return values


def with_memory(model: nn.Module, device: torch.device) -> None:
    """Arbitrary values for what has none; a checkpoint is to fill them in. Buffers move."""
    model._apply(
        lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device)
    )
