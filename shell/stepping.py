"""One micro-batch, from forward to optimizer step; when a window closes is told, not decided, here."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from attrs import evolve
from torch import nn

from flexcore.problems import ConfigError
from flexcore.rules import problem
from shell.contracts import Contract, Outputs
from shell.optim_wrappers import AnyOptim, OptimWrapper


def stepper(
    model: nn.Module, contract: Contract, wrapper: AnyOptim, *, accumulates: bool = True
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
    assert isinstance(wrapper, OptimWrapper)  # several are for models that step themselves
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


def _self_stepping(model: nn.Module, wrapper: AnyOptim) -> Callable[[Any], Outputs]:
    """The model's own step. As a window closes, no gradient is left over: a checkpoint may follow."""
    train_step: Callable[..., Outputs] = model.train_step  # type: ignore[assignment]
    for _, one in wrapper.each:
        one.once = True

    def step(batch: Any) -> Outputs:
        for _, one in wrapper.each:
            one.calls = 0
        outputs = train_step(batch, optim_wrapper=wrapper) or {}
        if wrapper.closing:
            _closed(wrapper)
        return {
            name: value.detach() if isinstance(value, torch.Tensor) else value
            for name, value in outputs.items()
        }

    return step


def _closed(wrapper: AnyOptim) -> None:
    """Refuse gradients without a step; of several optimizers, clear what one's loss left in another's parameters."""
    for name, one in wrapper.each:
        if one.open:
            text = f"left gradients of {name or 'its optimizer'} without a step at the end of an accumulation window."
            remedy = "Step in the same iteration, or accumulate by accumulative_counts."
            raise ConfigError([problem("FO008", ("model",), text, remedy)])
        if name is not None:
            one.zero_grad()
