"""The strategy protocol: what the loop asks of whatever shares the model among ranks."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn

from flexcore.config import ClipGrad
from shell.fitting import Shapes, shapes
from shell.optimizer_states import optimizer_state, restore_optimizer
from shell.pieces import AnyTensor

Named = Iterable[tuple[str, nn.Parameter]]


class Strategy(Protocol):
    """Its verbs. One file implements each strategy; the loop knows no other difference.

    shards: whether a rank holds only a share of parameters or optimizer state.
    reduces: gradients are shared by `reduce` before a step, and not as `backward` runs.
    """

    shards: bool
    reduces: bool

    def prepare(self, model: nn.Module, *, self_stepping: bool) -> nn.Module:
        """The model to call: moved and wrapped, equal on every rank. self_stepping: it has a train_step."""

    def joined(self, called: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
        """The model to call in training, once its optimizer is built; most need no more than `prepare` gave."""

    def backward(self, loss: torch.Tensor, *, closing: bool) -> None:
        """Gradients of a loss; unless it `reduces`, shared among ranks when `closing` an accumulation window."""

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Share the gradients of what is about to be stepped, where backward could not."""

    def accumulating(self) -> AbstractContextManager[Any]:
        """Around forward and backward of a micro-batch that does not close its window."""

    def clip_gradients(self, clip: ClipGrad, parameters: Sequence[nn.Parameter]) -> torch.Tensor | None:
        """Clip what is about to be stepped; the total norm before clipping, if the kind has one."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Apply the gradients and clear them."""

    def share_buffers(self) -> None:
        """Before an evaluation: every rank's buffers as rank 0's, whose are saved.

        So what a rank's own batch-norm statistics were never shows, in a metric or after a resume.
        """

    def save_state(self) -> Mapping[str, AnyTensor]:
        """Parameters and buffers by name; of what is sharded, this rank's pieces."""

    def whole_shapes(self) -> Shapes:
        """The names `load_state` takes, with the shapes of whole tensors."""

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy parameters and buffers in by name, of whole tensors, which fit; others stay as they are."""

    def save_optimizer(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """`optimizer_states.optimizer_state`'s tree, with pieces as above; every rank must call it if the strategy shards."""

    def load_optimizer(self, optimizer: torch.optim.Optimizer, tree: Mapping[str, Any]) -> None:
        """Put such a tree of whole tensors back.

        Raises:
            StateMismatch: it does not fit; the optimizer is as it was.
        """

    def in_pieces(self, tree: Any) -> Any:
        """A tree of further state, such as hooks', with this rank's pieces of what is sharded."""

    def placed(self, value: Any, like: torch.Tensor) -> Any:
        """What this rank holds of a whole value that belongs to the parameter `like`, in memory of its own."""


class Replicated:
    """What strategies share whose every rank holds the whole model and the whole state of its optimizer."""

    shards = False
    model: nn.Module

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        optimizer.zero_grad()

    def joined(self, called: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:  # noqa: ARG002 - nothing to join
        return called

    def clip_gradients(self, clip: ClipGrad, parameters: Sequence[nn.Parameter]) -> torch.Tensor | None:
        return clipped(clip, parameters)

    def save_state(self) -> Mapping[str, AnyTensor]:
        return self.model.state_dict()

    def whole_shapes(self) -> Shapes:
        return shapes(self.model.state_dict(keep_vars=True))

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self.model.load_state_dict(state, strict=False)

    def save_optimizer(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return optimizer_state(optimizer, trainable(self.model))

    def load_optimizer(self, optimizer: torch.optim.Optimizer, tree: Mapping[str, Any]) -> None:
        restore_optimizer(optimizer, trainable(self.model), tree)

    def in_pieces(self, tree: Any) -> Any:
        return tree

    def placed(self, value: Any, like: torch.Tensor) -> Any:
        return value.to(like.device, copy=True) if isinstance(value, torch.Tensor) else value


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of this rank, sharing its memory; torch.distributed.tensor is not loaded to ask."""
    part: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters an optimizer gets: named once each, without the frozen."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def clipped(settings: ClipGrad, parameters: Sequence[nn.Parameter]) -> torch.Tensor | None:
    """Clipping of ordinary, unsharded gradients; the norm before it."""
    parameters = [_dense(p) if p.grad is not None and p.grad.is_sparse else p for p in parameters]
    if settings.type == "value":
        nn.utils.clip_grad_value_(parameters, settings.clip_value or 0.0)
        return None
    return nn.utils.clip_grad_norm_(
        parameters,
        settings.max_norm or 0.0,
        settings.norm_type,
        error_if_nonfinite=settings.error_if_nonfinite,
    )


def _dense(parameter: nn.Parameter) -> torch.Tensor:
    """What torch's clipping takes for a sparse gradient: its values, each place once, to be changed in place."""
    assert parameter.grad is not None
    parameter.grad = parameter.grad.coalesce()
    values = parameter.grad._values()
    stand_in = values.new_empty(()).expand(values.shape)
    stand_in.grad = values
    return stand_in
