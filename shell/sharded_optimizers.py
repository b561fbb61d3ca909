"""ZeroRedundancyOptimizer: built over what the plan says, told in pieces, put back a share on each rank."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from attrs import frozen

from shell.optimizer_states import Named, optimizer_state, restore_optimizer
from shell.pieces import Piece


def sharding(inner: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """What builds the optimizer with its state spread over the ranks of the default process group."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return lambda given, **settings: ZeroRedundancyOptimizer(given, optimizer_class=inner, **settings)


def is_sharded(optimizer: torch.optim.Optimizer) -> bool:
    module = sys.modules.get("torch.distributed.optim")  # importing it takes a second
    return module is not None and isinstance(optimizer, module.ZeroRedundancyOptimizer)


def state_in_pieces(optimizer: Any, named: Named) -> dict[str, Any]:
    """`optimizer_state`'s tree as the optimizer inside would tell it alone; every rank must call this.

    A tensor is one piece, held by the rank that updates its parameter; ranks tell each other of what kind they are.
    """
    named = list(named)
    tree = optimizer_state(optimizer, named)
    names = {id(tensor): name for name, tensor in named}
    own = {names[id(tensor)]: dict(state) for tensor, state in optimizer.optim.state.items()}
    kinds: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(kinds, {name: _kinds(state) for name, state in own.items()})
    told = {name: state for rank in kinds for name, state in rank.items()}
    return {**tree, "state": {n: _in_pieces(told[n], own.get(n, {})) for n in tree["shapes"] if n in told}}


@frozen
class _Kind:
    shape: tuple[int, ...]
    dtype: torch.dtype


def _kinds(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _Kind(tuple(value.shape), value.dtype)
        if isinstance(value, torch.Tensor) and value.dim()
        else value
        for key, value in state.items()
    }


def _in_pieces(kinds: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: Piece(torch.Size(kind.shape), kind.dtype, kind.shape, own.get(key), (0,) * len(kind.shape))
        if isinstance(kind, _Kind)
        else kind
        for key, kind in kinds.items()
    }


def restore_share(optimizer: Any, named: Named, tree: Mapping[str, Any]) -> None:
    """Put such a tree back; each rank keeps what it updates.

    Raises:
        StateMismatch: other groups, names or shapes; the optimizer is as it was.
    """
    named = list(named)
    mine = {id(tensor) for group in optimizer.optim.param_groups for tensor in group["params"]}
    updated = {name for name, tensor in named if id(tensor) in mine}
    state = {name: values for name, values in tree["state"].items() if name in updated}
    restore_optimizer(optimizer, named, {**tree, "state": state})
    for group in optimizer.optim.param_groups:
        for tensor in group["params"]:
            if tensor in optimizer.state:
                optimizer.optim.state[tensor] = optimizer.state[tensor]
    optimizer.state.clear()
