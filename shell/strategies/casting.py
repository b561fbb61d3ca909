"""A model in half precision takes its floating-point inputs in that precision, whoever calls it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def cast_inputs(model: nn.Module, dtype: torch.dtype, chosen: tuple[int | str, ...] | None) -> None:
    """Cast at each call the floating-point tensors in the inputs `chosen` by position or name; None: in all."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        taken = [_cast(a, dtype) if chosen is None or i in chosen else a for i, a in enumerate(args)]
        named = {k: _cast(v, dtype) if chosen is None or k in chosen else v for k, v in kwargs.items()}
        return tuple(taken), named

    model.register_forward_pre_hook(hook, with_kwargs=True, prepend=True)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return type(value)({key: _cast(item, dtype) for key, item in value.items()})  # type: ignore[call-arg]
    if type(value) in (list, tuple):
        return type(value)(_cast(item, dtype) for item in value)
    return value
