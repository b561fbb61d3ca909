"""Tensor parallelism alone: planned layers cut over each group of ranks, gradients averaged over groups."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from flexcore.tensor_parallel import TensorLayout
from shell.strategies.base import local
from shell.strategies.cutting import cut
from shell.strategies.in_shares import InShares


class TensorParallelStrategy(InShares):
    """What is not cut, every rank holds and computes alike, since ranks of a group see the same samples."""

    def __init__(self, device: torch.device, layout: TensorLayout | None) -> None:
        assert layout is not None
        assert layout.layers is not None
        assert layout.size is not None
        super().__init__(layout)
        self.device, self.layout = device, layout
        self.reduces = self.reduces or layout.groups != 1

    def prepare(self, model: nn.Module, *, self_stepping: bool) -> nn.Module:  # noqa: ARG002 - one way for both
        assert self.parts is not None
        self.model = model.to(self.device)
        self.equalise()
        dims = (self.layout.groups or 1, self.layout.size or 1)
        self.mesh = init_device_mesh(self.device.type, dims, mesh_dim_names=("replicate", "tensor"))
        cut(model, self.layout, self.mesh["tensor"], self.parts)
        self.shared_out(self.mesh.get_group("tensor"))
        return model

    def accumulating(self) -> AbstractContextManager[Any]:
        """Gradients are averaged as windows close."""
        return nullcontext()

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        super().reduce(parameters)
        if self.layout.groups != 1:
            average(parameters, self.mesh.get_group("replicate"))


def average(parameters: Sequence[nn.Parameter], group: dist.ProcessGroup) -> None:
    """The mean over a group of what its ranks hold of each gradient, as it was or as part of a whole.

    A parameter that some of them have not used counts as zero there; one that none has used stays without a gradient.
    """
    has = torch.tensor(
        [p.grad is not None for p in parameters], dtype=torch.float32, device=local(parameters[0]).device
    )
    dist.all_reduce(has, op=dist.ReduceOp.MAX, group=group)
    used = [p for p, any_has in zip(parameters, has.tolist(), strict=True) if any_has]
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    parts = [local(p.grad) for p in used if p.grad is not None]
    for sent in [dist.all_reduce(part, group=group, async_op=True) for part in parts]:
        sent.wait()  # type: ignore[union-attr]
    torch._foreach_div_(parts, dist.get_world_size(group))
