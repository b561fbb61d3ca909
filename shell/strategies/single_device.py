"""One process, one device: the protocol with nothing to share."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from flexcore.strategies import SingleDevice
from shell.strategies.base import Replicated


class SingleDeviceStrategy(Replicated):
    reduces = False

    def __init__(self, _: SingleDevice, device: torch.device) -> None:
        self.device = device

    def prepare(self, model: nn.Module, *, self_stepping: bool) -> nn.Module:  # noqa: ARG002 - nothing to wrap
        self.model = model.to(self.device)
        return self.model

    def backward(self, loss: torch.Tensor, *, closing: bool) -> None:  # noqa: ARG002 - nothing to reduce
        loss.backward()

    def accumulating(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nobody to share with."""

    def share_buffers(self) -> None:
        """Nobody to share with."""
