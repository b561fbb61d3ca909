"""One micro-batch, from forward to optimizer step; when a window closes is told, not decided, here."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from attrs import evolve
from torch import nn

from flexcore.plan_training import Optimizer as PlannedOptimizer
from flexcore.plan_training import Precision
from shell.contracts import Contract, Outputs
from shell.strategies.base import Strategy

Context = Callable[[], AbstractContextManager[Any]]


class Guard(Protocol):
    """What an update may be left out for."""

    def loss(self, loss: torch.Tensor) -> None:
        """Told of every micro-batch's loss."""

    def passes(self) -> bool:
        """Asked before each update; the same on every rank."""


class OptimWrapper:
    """The optimizer as hooks and self-stepping models see it (FlexibleRunner's OptimWrapper surface).

    `divisor` and `closing` are set by the loop from the plan before each micro-batch, `guard` by a hook.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        strategy: Strategy,
        planned: PlannedOptimizer,
        device: torch.device,
    ) -> None:
        self.optimizer, self.strategy, self.clip = optimizer, strategy, planned.clip_grad
        self.precision = planned.precision
        self.scaler = _scaler(planned.precision, device)
        self.autocast: Context = _autocast(planned.precision.dtype, device)
        self.divisor, self.closing = 1, True
        self.gradient_norm: torch.Tensor | None = None
        self.guard: Guard | None = None
        self._backward, self._step = strategy.backward, strategy.step

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def get_lr(self) -> dict[str, list[float]]:
        return {"lr": [group["lr"] for group in self.optimizer.param_groups]}

    def should_update(self) -> bool:
        return self.closing

    @contextmanager
    def optim_context(self, model: nn.Module | None = None) -> Iterator[None]:  # noqa: ARG002 - mmengine's signature
        """Autocast, and no gradient reduction before the window closes. For models with a train_step."""
        with self.autocast(), nullcontext() if self.closing else self.strategy.accumulating():
            yield

    def update_params(self, loss: torch.Tensor) -> None:
        """Backward, and if the window closes clip, step and clear."""
        if self.guard is not None:
            self.guard.loss(loss)
        if self.divisor != 1:
            loss = loss / self.divisor
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        closing = self.closing
        self._backward(loss, closing=closing)
        if not closing:
            return
        if self.scaler is None and self.clip is None and self.guard is None:
            self._step(self.optimizer)
        else:
            self.step()

    def step(self) -> None:
        if self.guard is not None and not self.guard.passes():
            self.optimizer.zero_grad()
            return
        if self.scaler is not None:
            self._scaled_step(self.scaler)
            return
        if self.clip is not None:
            self.gradient_norm = self.strategy.clip_gradients(self.clip)
        self.strategy.step(self.optimizer)

    def _scaled_step(self, scaler: torch.amp.GradScaler) -> None:
        if self.clip is not None:
            scaler.unscale_(self.optimizer)
            self.gradient_norm = self.strategy.clip_gradients(self.clip)
        scaler.step(self.optimizer)
        scale = self.precision.loss_scale
        scaler.update(scale if isinstance(scale, float) else None)
        self.optimizer.zero_grad()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()


def _scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler | None:
    if precision.loss_scale is None:
        return None
    if precision.loss_scale != "dynamic":
        return torch.amp.GradScaler(device.type, init_scale=precision.loss_scale)
    return torch.amp.GradScaler(
        device.type, init_scale=precision.init_scale, growth_factor=precision.growth_factor,
        backoff_factor=precision.backoff_factor, growth_interval=precision.growth_interval,
    )  # fmt: skip


def _autocast(dtype: str | None, device: torch.device) -> Context:
    if dtype is None:
        return nullcontext
    kind = getattr(torch, dtype)
    return lambda: torch.autocast(device.type, dtype=kind)


def stepper(
    model: nn.Module, contract: Contract, wrapper: OptimWrapper, *, accumulates: bool = True
) -> Callable[[Any], Outputs]:
    """The function of one training micro-batch, with everything the plan leaves out left out.

    accumulates: some window has more than one micro-batch. The outputs it returns are detached.
    """
    if contract.prepare is not None:
        prepare, step = (
            contract.prepare,
            stepper(model, evolve(contract, prepare=None), wrapper, accumulates=accumulates),
        )
        return lambda batch: step(prepare(batch, True))
    if contract.loss is None:
        return _self_stepping(model, wrapper)
    loss_of, update, autocast = contract.loss, wrapper.update_params, wrapper.autocast
    accumulating = wrapper.strategy.accumulating

    def plain(batch: Any) -> Outputs:
        loss, outputs = loss_of(model, batch)
        update(loss)
        return outputs

    def cast(batch: Any) -> Outputs:
        with autocast():
            loss, outputs = loss_of(model, batch)
        update(loss)
        return outputs

    closing = plain if autocast is nullcontext else cast
    if not accumulates:
        return closing

    def step(batch: Any) -> Outputs:
        if wrapper.closing:
            return closing(batch)
        with accumulating():
            return closing(batch)

    return step


def _self_stepping(model: nn.Module, wrapper: OptimWrapper) -> Callable[[Any], Outputs]:
    train_step: Callable[..., Outputs] = model.train_step  # type: ignore[assignment]

    def step(batch: Any) -> Outputs:
        outputs = train_step(batch, optim_wrapper=wrapper) or {}
        return {
            name: value.detach() if isinstance(value, torch.Tensor) else value
            for name, value in outputs.items()
        }

    return step
