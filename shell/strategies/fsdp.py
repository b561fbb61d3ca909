"""Fully sharded data parallel (torch's fully_shard): each rank holds a share of every parameter, gradient and state."""

from collections.abc import Callable, Iterator
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
from flexcore.sharding import Sharding
from flexcore.tensor_parallel import TensorLayout
from shell.materializing import hollowed, with_memory
from shell.strategies.cutting import cut
from shell.strategies.in_shares import InShares


class FSDPStrategy(InShares):
    """Units and mesh are the plan's. A model that steps itself needs nothing else, as long as it calls itself."""

    tensor_group: dist.ProcessGroup | None = None

    def __init__(
        self, settings: planned.FSDP, device: torch.device, layout: Sharding | None, cut: TensorLayout | None
    ) -> None:
        assert layout is not None
        assert layout.units is not None
        super().__init__(cut)
        self.settings, self.device, self.layout = settings, device, layout

    def prepare(self, model: nn.Module, *, self_stepping: bool) -> nn.Module:  # noqa: ARG002 - one way for both
        self.model = model
        for path in self.layout.recomputed or ():
            recompute(model.get_submodule(path))
        place = torch.device("cpu") if self.layout.cpu_offload else self.device
        hollow = self.layout.skips_init or self.layout.meta_init
        weights = hollowed(model) if self.layout.meta_init else {}
        if not hollow:
            model.to(place)
            self.equalise()
        mesh = self._mesh()
        for path in self.layout.units or ():
            self._shard(model.get_submodule(path), mesh)
        self._shard(model, mesh)
        if hollow:
            with_memory(model, place)
        if self.layout.meta_init and not self.layout.skips_init:
            self.deal(weights)
        model.register_forward_hook(_let_go)
        self.shared_out(self.tensor_group)
        return model

    def _mesh(self) -> DeviceMesh:
        """What FSDP shares over; of a mesh that layers are cut over too, all but the dimension for that."""
        dims = {"replicate": self.layout.replicas or 1, "shard": self.layout.shards or dist.get_world_size()}
        if dims["replicate"] == 1:
            del dims["replicate"]
        if self.cut is None or self.parts is None:
            return init_device_mesh(self.device.type, tuple(dims.values()), mesh_dim_names=tuple(dims))
        every = (*dims, "tensor")
        mesh = init_device_mesh(self.device.type, (*dims.values(), self.cut.size or 1), mesh_dim_names=every)
        cut(self.model, self.cut, mesh["tensor"], self.parts)
        self.tensor_group = mesh.get_group("tensor")
        return mesh[tuple(dims)]

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

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Gradients stay whole on each rank, and are reduced when the window closes."""
        root: FSDPModule = self.model  # type: ignore[assignment]
        root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            root.set_requires_gradient_sync(True)


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
