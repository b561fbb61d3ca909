"""DistributedDataParallel: every rank holds the model, gradients are averaged as windows close."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from flexcore.config import ClipGrad
from flexcore.strategies import DDP
from shell.strategies.base import Replicated, clipper, trainable


class DDPStrategy(Replicated):
    """A model that steps itself runs its own forward, which DDP cannot wrap: its gradients are averaged here."""

    def __init__(self, settings: DDP, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.wrapped: DistributedDataParallel | None = None

    def prepare(self, model: nn.Module, *, self_stepping: bool) -> nn.Module:
        self.model = model.to(self.device)
        self.parameters = [p for _, p in trainable(model)]
        self.clip_gradients = clipper(self.parameters)
        if self_stepping or not self.parameters:
            self._equalise()
            return self.model
        settings = self.settings
        bucket = {} if settings.bucket_cap_mb is None else {"bucket_cap_mb": settings.bucket_cap_mb}
        self.wrapped = DistributedDataParallel(
            model, device_ids=[self.device] if self.device.type == "cuda" else None,
            find_unused_parameters=settings.find_unused_parameters, **_buffers(settings.broadcast_buffers),
            gradient_as_bucket_view=settings.gradient_as_bucket_view, static_graph=settings.static_graph, **bucket,
        )  # fmt: skip
        return self.wrapped

    def _equalise(self) -> None:
        for tensor in self.model.state_dict().values():
            dist.broadcast(tensor, src=0)

    def backward(self, loss: torch.Tensor, *, closing: bool) -> None:
        loss.backward()
        if closing and self.wrapped is None:
            self._average()

    def _average(self) -> None:
        """Mean gradients over ranks, flattened by dtype; a parameter unused on this rank counts as zero."""
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter)
        for group in by_dtype.values():
            flat = torch.cat([p.grad.reshape(-1) for p in group if p.grad is not None])
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
            for parameter, part in zip(group, flat.split([p.numel() for p in group]), strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(part.view_as(parameter.grad))

    def accumulating(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.wrapped is None else self.wrapped.no_sync()

    def clip_gradients(self, clip: ClipGrad) -> torch.Tensor | None:  # noqa: ARG002 - replaced by prepare
        raise AssertionError("prepare comes first")

    def share_buffers(self) -> None:
        for buffer in self.model.buffers():
            dist.broadcast(buffer, src=0)


def _buffers(broadcast: bool) -> dict[str, bool]:
    """Torch 2.13 renamed broadcast_buffers; either way buffers start equal on every rank."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": broadcast}
