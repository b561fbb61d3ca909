"""Which class carries out which planned strategy."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from flexcore import strategies as planned
from flexcore.sharding import Sharding
from shell.strategies.base import Strategy
from shell.strategies.ddp import DDPStrategy
from shell.strategies.deepspeed import DeepSpeedStrategy
from shell.strategies.single_device import SingleDeviceStrategy

Maker = Callable[[Any, torch.device, Sharding | None, dict[str, Any] | None], Strategy]


def _fsdp(settings: planned.FSDP, device: torch.device, layout: Sharding | None) -> Strategy:
    from shell.strategies.fsdp import FSDPStrategy  # its imports cost a second that no other strategy owes

    return FSDPStrategy(settings, device, layout)


STRATEGIES: Mapping[type, Maker] = {
    planned.SingleDevice: lambda settings, device, *_: SingleDeviceStrategy(settings, device),
    planned.DDP: lambda settings, device, *_: DDPStrategy(settings, device),
    planned.FSDP: lambda settings, device, layout, _: _fsdp(settings, device, layout),
    planned.DeepSpeed: lambda settings, device, _, native: DeepSpeedStrategy(settings, device, native),
}


def executor(
    strategy: planned.Strategy,
    device: torch.device,
    layout: Sharding | None = None,
    native: dict[str, Any] | None = None,
) -> Strategy:
    """layout: of a strategy that shards the model. native: what an engine of another's is told."""
    return STRATEGIES[type(strategy)](strategy, device, layout, native)
