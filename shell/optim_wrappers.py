"""Optimizers as hooks and self-stepping models see them: backward, clip, step and clear, as far as planned."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import nn

from flexcore.plan_training import Optimizer as PlannedOptimizer
from flexcore.plan_training import Precision
from flexcore.problems import ConfigError
from flexcore.rules import problem
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
    `open`: there are gradients that no step has used. `once`: a window's gradients are of one call an iteration.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        strategy: Strategy,
        planned: PlannedOptimizer,
        device: torch.device,
    ) -> None:
        self.optimizer, self.strategy, self.clip = optimizer, strategy, planned.clip_grad
        self.name = planned.name
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.precision = planned.precision
        self.scaler = _scaler(planned.precision, device)
        self.autocast: Context = _autocast(planned.precision, device)
        self.divisor, self.closing = 1, True
        self.gradient_norm: torch.Tensor | None = None
        self.guard: Guard | None = None
        self.open, self.once, self.calls = False, False, 0
        self._backward, self._step = strategy.backward, strategy.step
        self._bare = self.scaler is None and self.clip is None and not strategy.reduces

    @property
    def each(self) -> "tuple[tuple[str | None, OptimWrapper], ...]":
        """What several are told by, for one."""
        return ((self.name, self),)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def get_lr(self) -> dict[str, list[float]]:
        return {"lr": [group["lr"] for group in self.optimizer.param_groups]}

    def get_momentum(self) -> dict[str, list[float]]:
        """Momentum of each group, or betas[0]; 0 of one that has neither, as in mmengine."""
        found = [group.get("momentum", group.get("betas", (0,))[0]) for group in self.optimizer.param_groups]
        return {"momentum": found}

    def should_update(self) -> bool:
        return self.closing

    @contextmanager
    def optim_context(self, model: nn.Module | None = None) -> Iterator[None]:  # noqa: ARG002 - mmengine's signature
        """Autocast, and no gradient reduction before the window closes. For models with a train_step."""
        with self.autocast(), nullcontext() if self.closing else self.strategy.accumulating():
            yield

    def update_params(self, loss: torch.Tensor) -> None:
        """Backward, and if the window closes clip, step and clear."""
        closing = self.closing
        if self.divisor != 1:
            loss = self.scale_loss(loss)
        if self.guard is not None or self.scaler is not None:
            self.backward(loss)
        else:
            self._backward(loss, closing=closing)
        if not closing:
            self.open = True
        elif self._bare and self.guard is None:
            self.open = False
            self._step(self.optimizer)
        else:
            self.step()

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss's share of its accumulation window."""
        self.calls += 1
        if self.once and self.calls > 1 and self.divisor != 1:
            text = f"updates {self.name or 'its optimizer'} more than once in an iteration, and accumulation takes "
            text += f"{self.divisor} iterations to an update."
            remedy = "Leave accumulative_counts out, or call update_params once."
            raise ConfigError([problem("FO008", ("model",), text, remedy)])
        return loss / self.divisor

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of a loss as it is, for models that step when they want to."""
        self.open = True
        if self.guard is not None:
            self.guard.loss(loss)
        self._backward(loss if self.scaler is None else self.scaler.scale(loss), closing=self.closing)

    def step(self) -> None:
        """Reduce, look, clip, step and clear, as far as planned."""
        self.open = False
        if self.strategy.reduces:
            self.strategy.reduce(self.parameters)
        if self.guard is not None and not self.guard.passes():
            self.optimizer.zero_grad()
        elif self.scaler is not None:
            self._scaled_step(self.scaler)
        else:
            if self.clip is not None:
                self.gradient_norm = self.strategy.clip_gradients(self.clip, self.parameters)
            self.strategy.step(self.optimizer)

    def _scaled_step(self, scaler: torch.amp.GradScaler) -> None:
        if self.clip is not None:
            scaler.unscale_(self.optimizer)
            self.gradient_norm = self.strategy.clip_gradients(self.clip, self.parameters)
        scaler.step(self.optimizer)
        scale = self.precision.loss_scale
        scaler.update(scale if isinstance(scale, float) else None)
        self.optimizer.zero_grad()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def scaler_state(self) -> dict[str, Any] | None:
        return None if self.scaler is None else self.scaler.state_dict()

    def load_scaler(self, state: dict[str, Any] | None) -> None:
        if state is not None and self.scaler is not None:
            self.scaler.load_state_dict(state)


class OptimWrapperDict(Mapping[str, OptimWrapper]):
    """Several optimizers by name, as a self-stepping model sees them (FlexibleRunner's OptimWrapperDict surface)."""

    def __init__(self, wrappers: Mapping[str, OptimWrapper]) -> None:
        self.wrappers = dict(wrappers)
        self.each: tuple[tuple[str | None, OptimWrapper], ...] = tuple(self.wrappers.items())
        self._divisor, self._closing = 1, True

    def __getitem__(self, name: str) -> OptimWrapper:
        return self.wrappers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.wrappers)

    def __len__(self) -> int:
        return len(self.wrappers)

    @property
    def divisor(self) -> int:
        return self._divisor

    @divisor.setter
    def divisor(self, value: int) -> None:
        self._divisor = value
        for _, wrapper in self.each:
            wrapper.divisor = value

    @property
    def closing(self) -> bool:
        return self._closing

    @closing.setter
    def closing(self, value: bool) -> None:
        self._closing = value
        for _, wrapper in self.each:
            wrapper.closing = value

    @property
    def param_groups(self) -> dict[str, list[dict[str, Any]]]:
        return {name: wrapper.param_groups for name, wrapper in self.wrappers.items()}

    def get_lr(self) -> dict[str, list[float]]:
        return {f"{name}.lr": wrapper.get_lr()["lr"] for name, wrapper in self.wrappers.items()}

    def get_momentum(self) -> dict[str, list[float]]:
        return {f"{name}.momentum": one.get_momentum()["momentum"] for name, one in self.wrappers.items()}

    def should_update(self) -> bool:
        return self._closing

    def zero_grad(self) -> None:
        for _, wrapper in self.each:
            wrapper.zero_grad()

    def __getattr__(self, verb: str) -> Any:
        if verb in ("update_params", "backward", "step", "optim_context", "scale_loss"):
            names = ", ".join(self.wrappers)
            text = f"calls optim_wrapper.{verb}, and there are several optimizers: {names}."
            remedy = f'Say which: optim_wrapper["{next(iter(self.wrappers))}"].{verb}.'
            raise ConfigError([problem("FO004", ("model",), text, remedy)])
        raise AttributeError(verb)


AnyOptim = OptimWrapper | OptimWrapperDict


def _scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler | None:
    if precision.loss_scale is None:
        return None
    if precision.loss_scale != "dynamic":
        return torch.amp.GradScaler(device.type, init_scale=precision.loss_scale)
    return torch.amp.GradScaler(
        device.type, init_scale=precision.init_scale, growth_factor=precision.growth_factor,
        backoff_factor=precision.backoff_factor, growth_interval=precision.growth_interval,
    )  # fmt: skip


def _autocast(precision: Precision, device: torch.device) -> Context:
    if precision.dtype is None or precision.casts_model:
        return nullcontext
    kind = getattr(torch, precision.dtype)
    return lambda: torch.autocast(device.type, dtype=kind)
