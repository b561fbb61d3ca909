"""Which class carries out which planned strategy."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import frozen

from flexcore import strategies as planned
from flexcore.sharding import Sharding
from flexcore.tensor_parallel import TensorLayout
from shell.strategies.base import Strategy
from shell.strategies.ddp import DDPStrategy
from shell.strategies.deepspeed import DeepSpeedStrategy
from shell.strategies.single_device import SingleDeviceStrategy


@frozen
class Layout:
    """What a plan says beside the strategy's own settings: of shares, of cut layers, and in another engine's words."""

    sharding: Sharding | None = None
    cut: TensorLayout | None = None
    native: dict[str, Any] | None = None


Maker = Callable[[Any, torch.device, Layout], Strategy]


def _fsdp(settings: planned.FSDP, device: torch.device, layout: Layout) -> Strategy:
    from shell.strategies.fsdp import FSDPStrategy  # its imports cost a second that no other strategy owes

    return FSDPStrategy(settings, device, layout.sharding, layout.cut)


def _tensor_parallel(_: planned.TensorParallel, device: torch.device, layout: Layout) -> Strategy:
    from shell.strategies.tensor_parallel import TensorParallelStrategy  # as above

    return TensorParallelStrategy(device, layout.cut)


STRATEGIES: Mapping[type, Maker] = {
    planned.SingleDevice: lambda settings, device, _: SingleDeviceStrategy(settings, device),
    planned.DDP: lambda settings, device, _: DDPStrategy(settings, device),
    planned.FSDP: _fsdp,
    planned.TensorParallel: _tensor_parallel,
    planned.DeepSpeed: lambda settings, device, layout: DeepSpeedStrategy(settings, device, layout.native),
}


def executor(strategy: planned.Strategy, device: torch.device, layout: Layout = Layout()) -> Strategy:
    return STRATEGIES[type(strategy)](strategy, device, layout)
