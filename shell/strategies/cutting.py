"""Cuts a model's layers over a mesh dimension as the plan says, by torch's parallel styles; what is cut is not decided here."""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from flexcore.tensor_parallel import STYLES, CutLayer, TensorLayout
from shell.observing import heads_of

TORCHS: Mapping[str, Callable[[nn.Module], ParallelStyle | None]] = {
    "colwise": lambda _: ColwiseParallel(),
    "colwise_rep": lambda _: ColwiseParallel(output_layouts=Replicate()),
    "rowwise": lambda module: (
        RowwiseParallel(input_layouts=Replicate()) if isinstance(module, nn.Embedding) else RowwiseParallel()
    ),
    "rowwise_rep": lambda _: RowwiseParallel(input_layouts=Replicate()),
    "replicate": lambda _: None,
    "summed": lambda _: None,
    "fewer_heads": lambda _: None,
}


class Parts:
    """Parameters that hold several tensors one after the other, whose rows lie in another order than in the whole.

    A rank's share of each tensor is together in its share of the parameter: of [q, k, v] on two ranks, the first
    holds the first halves of q, k and v. Checkpoints have the rows as the model was written.
    """

    def __init__(self, layout: TensorLayout) -> None:
        layers = [layer for layer in layout.layers or () if layer.parts > 1]
        self.of = {f"{layer.path}.{name}": layer.parts for layer in layers for name in ("weight", "bias")}
        self.size = layout.size or 1

    def laid(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """Rows as ranks hold them, one rank's after the other's."""
        return self._turned(whole, self.of[name], self.size) if name in self.of else whole

    def written(self, name: str, laid: torch.Tensor) -> torch.Tensor:
        """Rows as the model was written."""
        return self._turned(laid, self.size, self.of[name]) if name in self.of else laid

    @staticmethod
    def _turned(tensor: torch.Tensor, outer: int, inner: int) -> torch.Tensor:
        blocks = tensor.unflatten(0, (outer, inner, tensor.shape[0] // (outer * inner)))
        return blocks.transpose(0, 1).reshape(tensor.shape)


def cut(model: nn.Module, layout: TensorLayout, mesh: DeviceMesh, parts: Parts) -> None:
    """Every planned layer in its style. Each rank takes its part of what it holds whole; nothing is sent."""
    shared = _shared(model)
    for layer in layout.layers or ():
        _cut_one(model.get_submodule(layer.path), layer, mesh, parts)
    for name, first in shared.items():
        _put(model, name, model.get_parameter(first))


def _cut_one(module: nn.Module, layer: CutLayer, mesh: DeviceMesh, parts: Parts) -> None:
    if STYLES[layer.style].divides:
        for name in heads_of(module):
            setattr(module, name, getattr(module, name) // parts.size)
    style = TORCHS[layer.style](module)
    if style is None:
        return
    for name, parameter in module.named_parameters():
        if layer.parts > 1:
            parameter.data = parts.laid(f"{layer.path}.{name}", parameter.data)
    parallelize_module(module, mesh, style, src_data_rank=None)


def _shared(model: nn.Module) -> dict[str, str]:
    """Further names of parameters that have several, and the first one."""
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    pairs = [(name, first.setdefault(id(parameter), name)) for name, parameter in named]
    return {name: own for name, own in pairs if name != own}


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, last = name.rpartition(".")
    model.get_submodule(path).register_parameter(last, parameter)
