"""Which class carries out which planned strategy."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from flexcore import strategies as planned
from flexcore.sharding import Sharding
from shell.strategies.base import Strategy
from shell.strategies.ddp import DDPStrategy
from shell.strategies.single_device import SingleDeviceStrategy

Maker = Callable[[Any, torch.device, Sharding | None], Strategy]


def _fsdp(settings: planned.FSDP, device: torch.device, layout: Sharding | None) -> Strategy:
    from shell.strategies.fsdp import FSDPStrategy  # its imports cost a second that no other strategy owes

    return FSDPStrategy(settings, device, layout)


STRATEGIES: Mapping[type, Maker] = {
    planned.SingleDevice: lambda settings, device, _: SingleDeviceStrategy(settings, device),
    planned.DDP: lambda settings, device, _: DDPStrategy(settings, device),
    planned.FSDP: _fsdp,
}


def executor(strategy: planned.Strategy, device: torch.device, layout: Sharding | None = None) -> Strategy:
    """layout: of a strategy that shards the model."""
    return STRATEGIES[type(strategy)](strategy, device, layout)
