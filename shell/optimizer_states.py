"""An optimizer's state by parameter name and the random streams, told and put back so that training goes on to the bit."""

import copy
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import torch

from shell.state_tensors import StateMismatch, Unsavable

_HOST_KEYS: Final = ("step",)  # torch.optim keeps these on the CPU unless its group is capturable or fused

Named = Iterable[tuple[str, torch.Tensor]]
Tree = Mapping[str, Any]
Placed = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def optimizer_state(optimizer: torch.optim.Optimizer, named_parameters: Named) -> dict[str, Any]:
    """The optimizer's state by parameter name: {"state", "shapes", "param_groups"}; its tensors are not copies."""
    names = _names(named_parameters)
    parameters = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    return {
        "state": {_name(names, key): dict(value) for key, value in optimizer.state.items()},
        "shapes": {_name(names, tensor): list(tensor.shape) for tensor in parameters},
        "param_groups": [_group(names, group) for group in optimizer.param_groups],
    }


def _names(named_parameters: Named) -> dict[int, str]:
    names: dict[int, str] = {}
    for name, tensor in named_parameters:
        names.setdefault(id(tensor), name)
    return names


def _name(names: Mapping[int, str], owner: object) -> str:
    if id(owner) not in names:
        rule = "everything it trains or keeps state for must be among named_parameters"
        raise Unsavable("A parameter of the optimizer", f"an unnamed {type(owner).__name__}", rule)
    return names[id(owner)]


def _group(names: Mapping[int, str], group: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters, and the names of "params" ("param_names" says the same, in torch's words)."""
    hyper = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    return {**hyper, "params": [_name(names, tensor) for tensor in group["params"]]}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, named_parameters: Named, tree: Tree, placed: Placed | None = None
) -> None:
    """Put back what `optimizer_state` told, each value copied in its own dtype, so that training goes on to the bit.

    placed: a copy of what this rank holds of a whole value of a parameter's; None: all of it, on the parameter's device.

    torch's load_state_dict casts state to the parameter's dtype, which changes NAdam and ASGD in float64.

    Raises:
        StateMismatch: other groups, names or shapes; the optimizer is as it was.

    """
    current = optimizer_state(optimizer, named_parameters := list(named_parameters))
    check_groups(current["param_groups"], tree["param_groups"])
    check_shapes(current["shapes"], tree["shapes"])
    names, states = _names(named_parameters), tree["state"]
    groups = copy.deepcopy(tree["param_groups"])  # at once: a shared lr stays shared
    optimizer.state.clear()
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        group.update({key: value for key, value in saved.items() if key != "params"})
        host_keys = () if saved.get("capturable") or saved.get("fused") else _HOST_KEYS
        for tensor in group["params"]:
            for key, value in states.get(names[id(tensor)], {}).items():
                optimizer.state[tensor][key] = _own(value, None if key in host_keys else tensor, placed)


def check_groups(current: Sequence[Mapping[str, Any]], saved: Sequence[Mapping[str, Any]]) -> None:
    """Raise StateMismatch for groups of other parameters."""
    if len(current) != len(saved):
        rule = f"the checkpoint has {len(saved)}: build the optimizer as it was"
        raise StateMismatch("The number of parameter groups", str(len(current)), rule)
    for index, (here, there) in enumerate(zip(current, saved, strict=True)):
        odd = sorted(set(here["params"]) ^ set(there["params"]))
        if odd:
            rule = "only one of checkpoint and optimizer has them: build the model and groups as they were"
            raise StateMismatch(f"Parameters of group {index}", f"different in {', '.join(odd[:5])}", rule)


def check_shapes(current: Mapping[str, list[int]], saved: Mapping[str, list[int]]) -> None:
    """Raise StateMismatch for parameters of other shapes."""
    for name, shape in current.items():
        if shape != list(saved[name]):
            rule = f"the checkpoint's is {list(saved[name])}"
            raise StateMismatch(f"Parameter {name!r}", f"of shape {shape}", rule)


def _own(value: Any, owner: torch.Tensor | None, placed: Placed | None) -> Any:
    """A copy, a tensor at a time: with the parameter it belongs to, or on the host without one."""
    if isinstance(value, torch.Tensor):
        if owner is None or placed is None:
            return value.to("cpu" if owner is None else owner.device, copy=True)
        return placed(value, owner)
    return [_own(item, owner, placed) for item in value] if isinstance(value, list) else copy.deepcopy(value)


def rng_state() -> dict[str, Any]:
    """Where every global random stream stands: torch on the CPU and each initialised CUDA device, numpy, Python."""
    tree: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        tree["cuda"] = torch.cuda.get_rng_state_all()
    if "numpy" in sys.modules:
        import numpy as np

        tree["numpy"] = np.random.get_state(legacy=False)  # noqa: NPY002 - the global stream is what user code draws from
    return tree


def restore_rng(tree: Mapping[str, Any]) -> tuple[str, ...]:
    """Set every stream in `tree`; returns those that this machine lacks (CUDA devices), to be told to the user."""
    torch.set_rng_state(tree["torch"].cpu())
    random.setstate(tree["python"])
    if "numpy" in tree:
        import numpy as np

        np.random.set_state(tree["numpy"])  # noqa: NPY002
    devices = torch.cuda.device_count()
    for index, state in enumerate(tree.get("cuda", ())):
        if index < devices:
            torch.cuda.set_rng_state(state.cpu(), index)
    return tuple(f"cuda:{index}" for index in range(devices, len(tree.get("cuda", ()))))
