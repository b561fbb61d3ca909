"""Fully sharded data parallel (torch's fully_shard): each rank holds a share of every parameter, gradient and state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.utils.checkpoint import checkpoint

from flexcore import strategies as planned
from flexcore.config import ClipGrad
from flexcore.sharding import Sharding
from shell import sharded
from shell.materializing import with_memory
from shell.optimizer_states import optimizer_state, restore_optimizer
from shell.strategies.base import trainable


class FSDPStrategy:
    """Units and mesh are the plan's. A model that steps itself needs nothing else, as long as it calls itself."""

    shards, reduces = True, False

    def __init__(self, settings: planned.FSDP, device: torch.device, layout: Sharding | None) -> None:
        assert layout is not None
        assert layout.units is not None
        self.settings, self.device, self.layout = settings, device, layout

    def prepare(self, model: nn.Module, *, self_stepping: bool) -> nn.Module:  # noqa: ARG002 - one way for both
        self.model = model
        for path in self.layout.recomputed or ():
            recompute(model.get_submodule(path))
        place = torch.device("cpu") if self.layout.cpu_offload else self.device
        if not self.layout.skips_init:
            model.to(place)
            self._equalise()
        mesh = self._mesh()
        for path in self.layout.units or ():
            self._shard(model.get_submodule(path), mesh)
        self._shard(model, mesh)
        if self.layout.skips_init:
            with_memory(model, place)
        model.register_forward_hook(_let_go)
        return model

    def _equalise(self) -> None:
        """Every rank starts from rank 0's weights and buffers."""
        for tensor in self.model.state_dict().values():
            there = tensor.to(self.device)
            dist.broadcast(there, src=0)
            tensor.copy_(there)

    def _mesh(self) -> DeviceMesh:
        replicas, shards = self.layout.replicas or 1, self.layout.shards or dist.get_world_size()
        if replicas == 1:
            return init_device_mesh(self.device.type, (shards,), mesh_dim_names=("shard",))
        return init_device_mesh(self.device.type, (replicas, shards), mesh_dim_names=("replicate", "shard"))

    def _shard(self, module: nn.Module, mesh: DeviceMesh) -> None:
        offload = (
            CPUOffloadPolicy(pin_memory=self.device.type == "cuda")
            if self.layout.cpu_offload
            else OffloadPolicy()
        )
        fully_shard(
            module, mesh=mesh, reshard_after_forward=self.layout.reshard_after_forward,
            mp_policy=_policy(self.layout.mixed_precision), offload_policy=offload,
        )  # fmt: skip

    def joined(self, called: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:  # noqa: ARG002 - nothing more
        return called

    def backward(self, loss: torch.Tensor, *, closing: bool) -> None:  # noqa: ARG002 - accumulating() tells
        loss.backward()

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Backward has."""

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Gradients stay whole on each rank, and are reduced when the window closes."""
        root: FSDPModule = self.model  # type: ignore[assignment]
        root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            root.set_requires_gradient_sync(True)

    def clip_gradients(self, clip: ClipGrad, parameters: Sequence[nn.Parameter]) -> torch.Tensor | None:
        if clip.type == "value":
            nn.utils.clip_grad_value_(parameters, clip.clip_value or 0.0)
            return None
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = sharded.whole(nn.utils.get_total_norm(gradients, clip.norm_type))
        if clip.error_if_nonfinite and not bool(norm.isfinite()):
            text = f"the total norm of order {clip.norm_type} of the gradients is {float(norm)}, so it cannot be clipped."
            raise RuntimeError(text)
        nn.utils.clip_grads_with_norm_(parameters, clip.max_norm or 0.0, norm)
        return norm

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        optimizer.zero_grad()

    def share_buffers(self) -> None:
        for buffer in self.model.buffers():
            dist.broadcast(buffer, src=0)

    def save_state(self) -> Mapping[str, torch.Tensor]:
        state: Mapping[str, torch.Tensor] = self.whole(dict(self.model.state_dict()))
        return state

    def save_optimizer(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        tree: dict[str, Any] = self.whole(optimizer_state(optimizer, trainable(self.model)))
        return tree

    def load_optimizer(self, optimizer: torch.optim.Optimizer, tree: Mapping[str, Any]) -> None:
        restore_optimizer(optimizer, trainable(self.model), tree, self.placed)

    def whole(self, tree: Any) -> Any:
        return sharded.gathered(tree, keep=dist.get_rank() == 0)

    def placed(self, value: Any, like: torch.Tensor) -> Any:
        return sharded.placed(value, like)

    def load_state(self, state: Mapping[str, torch.Tensor], *, strict: bool = True) -> None:
        here = self.model.state_dict()
        own = {
            name: sharded.placed(value, here[name]) if name in here else value
            for name, value in state.items()
        }
        self.model.load_state_dict(own, strict=strict)


def recompute(module: nn.Module) -> None:
    """Keep none of a module's activations; backward runs its forward again. Its name and parameters stay as they are."""
    forward: Callable[..., Any] = module.forward

    def twice(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    module.forward = twice  # type: ignore[method-assign]


def _let_go(model: nn.Module, _inputs: Any, _outputs: Any) -> None:
    """After an evaluation's forward nothing stays gathered: weights set in between would not be seen by the next."""
    if not torch.is_grad_enabled():
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def _policy(asked: planned.MixedPrecision | None) -> MixedPrecisionPolicy:
    if asked is None:
        return MixedPrecisionPolicy()
    dtypes = {key: _dtype(getattr(asked, key)) for key in ("param_dtype", "reduce_dtype", "output_dtype")}
    return MixedPrecisionPolicy(**dtypes, cast_forward_inputs=asked.cast_forward_inputs)


def _dtype(name: str | None) -> torch.dtype | None:
    return None if name is None else getattr(torch, name)
