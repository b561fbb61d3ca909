"""What strategies have in common whose ranks hold shares of parameters (DTensors): clipping, steps, whole tensors and back."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from flexcore.config import ClipGrad
from flexcore.tensor_parallel import STYLES, TensorLayout
from shell import sharded
from shell.fitting import Shapes, shapes
from shell.optimizer_states import optimizer_state, restore_optimizer
from shell.pieces import AnyTensor
from shell.strategies.base import trainable
from shell.strategies.cutting import Parts
from shell.strategies.whole_layers import WholeLayers

Parameters = Sequence[nn.Parameter]


class InShares:
    """The verbs of the protocol that do not ask how shares came about. Subclasses set `model`, `device` and, at last,
    call `shared_out`.
    """

    shards = True
    model: nn.Module
    device: torch.device
    parts: Parts | None = None

    def __init__(self, cut: TensorLayout | None) -> None:
        self.cut = cut
        self.parts = None if cut is None else Parts(cut)
        self.reduces = any(
            STYLES[layer.style].sums for layer in (cut.layers or () if cut is not None else ())
        )
        self.whole_layers: WholeLayers | None = None
        self._names: dict[int, str] = {}

    def shared_out(self, group: dist.ProcessGroup | None) -> None:
        """The model is laid out: from here on its parameters are known by their objects too. group: of its tensor dimension."""
        of = {} if self.parts is None else self.parts.of
        self._names = {id(p): name for name, p in self.model.named_parameters() if name in of}
        if self.cut is not None and group is not None:
            self.whole_layers = WholeLayers(self.model, self.cut, group)

    def equalise(self) -> None:
        """Every rank starts from rank 0's weights and buffers."""
        self._as_on_rank_0(self.model.state_dict().values())

    def _as_on_rank_0(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            there = tensor.to(self.device)
            dist.broadcast(there, src=0)
            tensor.copy_(there)

    @torch.no_grad()
    def deal(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Rank 0's `weights` by name, sent one at a time, of which each rank keeps its share; and its buffers, whole."""
        for name, parameter in self.model.named_parameters():
            full = torch.empty(parameter.shape, dtype=parameter.dtype, device=self.device)
            if dist.get_rank() == 0:
                full.copy_(weights[name])
            dist.broadcast(full, src=0)
            parameter.copy_(sharded.placed(self._laid(name, full), parameter))
        self._as_on_rank_0(self.model.buffers())

    def joined(self, called: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:  # noqa: ARG002 - nothing to join
        return called

    def backward(self, loss: torch.Tensor, *, closing: bool) -> None:  # noqa: ARG002 - accumulating() and reduce() know
        loss.backward()

    def reduce(self, parameters: Parameters) -> None:  # noqa: ARG002 - of a lone optimizer's, all there are
        """What backward has not: gradients of layers that work on shares."""
        if self.whole_layers is not None:
            self.whole_layers.add()

    def clip_gradients(self, clip: ClipGrad, parameters: Parameters) -> torch.Tensor | None:
        return clipped(clip, parameters)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.whole_layers is None:
            optimizer.step()
        else:
            self.whole_layers.look()
            with one_by_one(optimizer):
                optimizer.step()
        optimizer.zero_grad()

    def share_buffers(self) -> None:
        for buffer in self.model.buffers():
            dist.broadcast(buffer, src=0)

    def save_state(self) -> Mapping[str, AnyTensor]:
        state: Mapping[str, AnyTensor] = self.in_pieces(dict(self.model.state_dict()))
        return state

    def whole_shapes(self) -> Shapes:
        return shapes(self.model.state_dict(keep_vars=True))

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        here = self.model.state_dict()
        own = {name: sharded.placed(self._laid(name, value), here[name]) for name, value in state.items()}
        self.model.load_state_dict(own, strict=False)

    def _laid(self, name: str | None, value: torch.Tensor) -> torch.Tensor:
        return value if self.parts is None or name is None else self.parts.laid(name, value)

    def save_optimizer(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        tree: dict[str, Any] = self.in_pieces(optimizer_state(optimizer, trainable(self.model)))
        return tree

    def load_optimizer(self, optimizer: torch.optim.Optimizer, tree: Mapping[str, Any]) -> None:
        restore_optimizer(optimizer, trainable(self.model), tree, self.placed)

    def in_pieces(self, tree: Any) -> Any:
        return sharded.in_pieces(tree, None if self.parts is None else self.parts.written)

    def placed(self, value: Any, like: torch.Tensor) -> Any:
        name = self._names.get(id(like))
        if name is not None and isinstance(value, torch.Tensor) and value.shape == like.shape:
            value = self._laid(name, value)
        return sharded.placed(value, like)


@contextmanager
def one_by_one(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Where nothing is said of foreach, torch takes all parameters at once on a GPU, which parameters on several meshes refuse."""
    unsaid = [group for group in optimizer.param_groups if group.get("foreach", False) is None]
    for group in unsaid:
        group["foreach"] = False
    try:
        yield
    finally:
        for group in unsaid:
            group["foreach"] = None


def clipped(clip: ClipGrad, parameters: Parameters) -> torch.Tensor | None:
    """Clipping of gradients on any number of meshes, by the norm of all of them; that norm, whole, before it.

    Gradients on one mesh go together; the norms of these groups are combined as those of single tensors are.
    """
    groups = _by_mesh(parameters)
    if clip.type == "value":
        for group in groups:
            nn.utils.clip_grad_value_(group, clip.clip_value or 0.0)
        return None
    norms = [
        sharded.whole(nn.utils.get_total_norm([p.grad for p in group if p.grad is not None], clip.norm_type))
        for group in groups
    ]
    norm = (
        norms[0]
        if len(norms) == 1
        else torch.linalg.vector_norm(torch.stack(norms), clip.norm_type)
        if norms
        else torch.zeros(())
    )
    if clip.error_if_nonfinite and not bool(norm.isfinite()):
        text = f"the total norm of order {clip.norm_type} of the gradients is {float(norm)}, so it cannot be clipped."
        raise RuntimeError(text)
    for group in groups:
        nn.utils.clip_grads_with_norm_(group, clip.max_norm or 0.0, norm)
    return norm


def _by_mesh(parameters: Parameters) -> list[list[nn.Parameter]]:
    """Parameters with gradients, those on one mesh together; plain ones are on none."""
    groups: dict[Any, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            groups[parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None].append(
                parameter
            )
    return list(groups.values())
