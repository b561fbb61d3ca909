"""ZeroRedundancyOptimizer: built over what the plan says, told whole on rank 0, put back a share on each rank."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from shell.optimizer_states import Named, optimizer_state, restore_optimizer


def sharding(inner: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """What builds the optimizer with its state spread over the ranks of the default process group."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return lambda given, **settings: ZeroRedundancyOptimizer(given, optimizer_class=inner, **settings)


def is_sharded(optimizer: torch.optim.Optimizer) -> bool:
    module = sys.modules.get("torch.distributed.optim")  # importing it takes a second
    return module is not None and isinstance(optimizer, module.ZeroRedundancyOptimizer)


def whole_state(optimizer: Any, named: Named) -> dict[str, Any]:
    """`optimizer_state`'s tree as the optimizer inside would tell it alone, on rank 0; every rank must call this."""
    named = list(named)
    tree = optimizer_state(optimizer, named)
    names = {id(tensor): name for name, tensor in named}
    own = {names[id(tensor)]: _on_host(state) for tensor, state in optimizer.optim.state.items()}
    shares: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(own, shares)
    told = {name: state for share in shares or () for name, state in share.items()}
    return {**tree, "state": {name: told[name] for name in tree["shapes"] if name in told}}


def _on_host(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.cpu() if isinstance(value, torch.Tensor) else value for key, value in state.items()}


def restore_share(optimizer: Any, named: Named, tree: Mapping[str, Any]) -> None:
    """Put such a tree back; each rank keeps what it updates.

    Raises:
        StateMismatch: other groups, names or shapes; the optimizer is as it was.
    """
    restore_optimizer(optimizer, named, tree)  # groups for good, state for all
    for group in optimizer.optim.param_groups:
        for tensor in group["params"]:
            if tensor in optimizer.state:
                optimizer.optim.state[tensor] = optimizer.state[tensor]
    optimizer.state.clear()
