"""DistributedDataParallel: every rank holds the model, gradients are averaged as windows close."""

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from flexcore.strategies import COMM_HOOKS, DDP, comm_hook
from shell.sharded_optimizers import is_sharded, restore_share, state_in_pieces
from shell.strategies.base import Named, Replicated, trainable

BUCKET_MB = 25  # DDP's own default
PASSED = (
    "find_unused_parameters", "gradient_as_bucket_view", "static_graph", "skip_all_reduce_unused_params",
    "batched_grad_copy",
)  # fmt: skip
"""Settings that DistributedDataParallel takes under the same name."""


class DDPStrategy(Replicated):
    """A model that steps itself runs its own forward, which DDP cannot wrap: its gradients are averaged here."""

    def __init__(self, settings: DDP, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.wrapped: DistributedDataParallel | None = None
        self.told: set[tuple[str, ...]] = set()

    def prepare(self, model: nn.Module, *, self_stepping: bool) -> nn.Module:
        if self.settings.sync_bn:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(self.device)
        self.parameters = [p for _, p in trainable(model)]
        if self_stepping or not self.parameters:
            self._equalise()
            return self.model
        self.wrapped = DistributedDataParallel(
            model, device_ids=[self.device] if self.device.type == "cuda" else None, bucket_cap_mb=self.settings.bucket_cap_mb,
            **_buffers(self.settings.broadcast_buffers), **{name: getattr(self.settings, name) for name in PASSED},
        )  # fmt: skip
        hook = comm_hook(self.settings)
        if hook is not None:
            self.wrapped.register_comm_hook(None, getattr(default_hooks, f"{hook}_hook"))
        return self.wrapped

    def _equalise(self) -> None:
        for tensor in self.model.state_dict().values():
            dist.broadcast(tensor, src=0)

    def backward(self, loss: torch.Tensor, *, closing: bool) -> None:  # noqa: ARG002 - no_sync and reduce know
        if self.settings.detect_anomalous_params:
            self._tell_left_out(loss)
        loss.backward()

    def _tell_left_out(self, loss: torch.Tensor) -> None:
        """Once for each set of them, on any rank: a line at every step would bury the first."""
        names = tuple(left_out(loss, trainable(self.model)))
        if names and names not in self.told:
            self.told.add(names)
            rank = dist.get_rank()
            text = "rank %d: the loss does not depend on %s, which trains with it"
            logging.getLogger(f"flexcore.rank{rank}").error(text, rank, ", ".join(names))

    @property
    def reduces(self) -> bool:
        return self.wrapped is None

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Mean gradients over ranks, a bucket at a time.

        A parameter that some ranks have not used counts as zero there; one that none has used stays without a
        gradient, so that its optimizer leaves it alone as it would on a single device.
        """
        name = comm_hook(self.settings)
        crosses_in = None if name is None else getattr(torch, COMM_HOOKS[name])
        for bucket in self._buckets(parameters):
            average(bucket, crosses_in)

    def _buckets(self, parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
        """Of one dtype each, and of bucket_cap_mb as far as single parameters allow."""
        limit = (self.settings.bucket_cap_mb or BUCKET_MB) * 2**20
        open_buckets: dict[torch.dtype, list[nn.Parameter]] = {}
        sizes: dict[torch.dtype, int] = {}
        for parameter in parameters:
            kind = parameter.dtype
            open_buckets.setdefault(kind, []).append(parameter)
            sizes[kind] = sizes.get(kind, 0) + parameter.numel() * parameter.element_size()
            if sizes[kind] >= limit:
                yield open_buckets.pop(kind)
                sizes[kind] = 0
        yield from open_buckets.values()

    def accumulating(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.wrapped is None else self.wrapped.no_sync()

    def joined(self, called: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
        self.shards = self.shards or is_sharded(optimizer)
        return called

    def save_optimizer(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        if is_sharded(optimizer):
            return state_in_pieces(optimizer, trainable(self.model))
        return super().save_optimizer(optimizer)

    def load_optimizer(self, optimizer: torch.optim.Optimizer, tree: Mapping[str, Any]) -> None:
        if is_sharded(optimizer):
            restore_share(optimizer, trainable(self.model), tree)
        else:
            super().load_optimizer(optimizer, tree)

    def share_buffers(self) -> None:
        for buffer in self.model.buffers():
            dist.broadcast(buffer, src=0)


def left_out(loss: torch.Tensor, named: Named) -> list[str]:
    """The names of parameters that no gradient of the loss can reach."""
    reached, seen, ahead = set(), set(), [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            reached.add(id(getattr(node, "variable", None)))
            ahead += [following for following, _ in node.next_functions]
    return [name for name, parameter in named if id(parameter) not in reached]


def average(parameters: Sequence[nn.Parameter], crosses_in: torch.dtype | None = None) -> None:
    """The mean over ranks of each gradient, in one collective that also tells which of them anybody has.

    crosses_in: what is sent is cast to it, divided first, as torch's compressing hooks do.
    """
    has = [parameter.grad is not None for parameter in parameters]
    parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters]
    flat = torch.cat([*parts, torch.tensor(has, dtype=parts[0].dtype, device=parts[0].device)])
    if crosses_in is not None:
        flat = flat.to(crosses_in) / dist.get_world_size()
    dist.all_reduce(flat)
    used = has if all(has) else (flat[-len(has) :] != 0).tolist()  # looking waits for the device
    if crosses_in is None:
        flat /= dist.get_world_size()
    shares = flat[: -len(has)].split([p.numel() for p in parameters])
    for parameter, share, any_has in zip(parameters, shares, used, strict=True):
        if any_has and parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
        if any_has:
            parameter.grad.copy_(share.view_as(parameter))


def _buffers(broadcast: bool) -> dict[str, bool]:
    """Torch 2.13 renamed broadcast_buffers; either way buffers start equal on every rank."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": broadcast}
