"""Which class carries out which planned strategy."""

from collections.abc import Mapping
from typing import Any

import torch

from flexcore import strategies as planned
from shell.strategies.base import Strategy
from shell.strategies.ddp import DDPStrategy
from shell.strategies.single_device import SingleDeviceStrategy

STRATEGIES: Mapping[type, Any] = {planned.SingleDevice: SingleDeviceStrategy, planned.DDP: DDPStrategy}


def executor(strategy: planned.Strategy, device: torch.device) -> Strategy:
    made: Strategy = STRATEGIES[type(strategy)](strategy, device)
    return made
