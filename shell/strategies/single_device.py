"""One process, one device: the protocol with nothing to share."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from flexcore.config import ClipGrad
from flexcore.strategies import SingleDevice
from shell.strategies.base import Replicated, clipper, trainable


class SingleDeviceStrategy(Replicated):
    def __init__(self, _: SingleDevice, device: torch.device) -> None:
        self.device = device

    def prepare(self, model: nn.Module, *, self_stepping: bool) -> nn.Module:  # noqa: ARG002 - nothing to wrap
        self.model = model.to(self.device)
        self.clip_gradients = clipper([p for _, p in trainable(model)])
        return self.model

    def backward(self, loss: torch.Tensor, *, closing: bool) -> None:  # noqa: ARG002 - nothing to reduce
        loss.backward()

    def accumulating(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def clip_gradients(self, clip: ClipGrad) -> torch.Tensor | None:  # noqa: ARG002 - replaced by prepare
        raise AssertionError("prepare comes first")

    def share_buffers(self) -> None:
        """Nobody to share with."""
