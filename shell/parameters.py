"""A model's parameters as facts, and the optimizer over the plan's groups of them."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from attrs import evolve
from torch import nn

from flexcore.components import Component, Data, thaw
from flexcore.facts import GroupFact, ParameterFact
from flexcore.plan_training import Optimizer
from flexcore.problems import ConfigError
from flexcore.rules import problem
from shell import building
from shell.sharded_optimizers import sharding
from shell.strategies.base import trainable

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
DEFORMABLE = ("DeformConv2d", "ModulatedDeformConv2d")
PLACE = ("optim_wrapper", "optimizer")


def observed(model: nn.Module) -> Iterator[ParameterFact]:
    """Every name of every parameter, in the model's order; of a shared one the first name is its own."""
    modules, first = dict(model.named_modules(remove_duplicate=False)), {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        place = name.rpartition(".")[0]
        owner = modules.get(place, model)
        parent = modules.get(place.rpartition(".")[0]) if place else None
        alias = first.setdefault(id(parameter), name)
        yield ParameterFact(
            name=name, shape=tuple(parameter.shape), requires_grad=parameter.requires_grad,
            alias=None if alias == name else alias, owner=type(owner).__name__, kind=_kind(owner),
            deformable=parent is not None and type(parent).__name__.startswith(DEFORMABLE),
        )  # fmt: skip


def _kind(module: nn.Module) -> Literal["norm", "conv", "depthwise", "sparse"] | None:
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
        return "sparse"
    if isinstance(module, NORMS):
        return "norm"
    if isinstance(module, nn.Conv2d):
        return "depthwise" if module.in_channels == module.groups else "conv"
    return None


def observed_groups(optimizer: torch.optim.Optimizer) -> tuple[GroupFact, ...]:
    """The numbers of a built optimizer's groups; momentum is betas[0] where there is no momentum."""
    return tuple(GroupFact(values=tuple(_numbers(group))) for group in optimizer.param_groups)


def _numbers(group: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield from ((key, float(value)) for key, value in group.items() if type(value) in (int, float))
    if "betas" in group and "momentum" not in group:
        yield "momentum", float(group["betas"][0])


def optimizer(planned: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the plan's component: one group of all that trains, or exactly the planned ones."""
    named, component = dict(trainable(model)), planned.component
    if not named:
        raise ConfigError([problem("FK021", ("model",), "has no parameter that trains.", "Unfreeze some.")])
    assert isinstance(component, Component)  # a supplied one is built already
    lr = planned.groups[0].base("lr")
    kwargs = tuple((k, v) for k, v in component.kwargs.entries if k != "lr" or lr is None)
    whole = evolve(component, kwargs=Data(kwargs))
    given = _in(planned.name, model) if planned.groups[0].params is None else list(_groups(planned, named))
    extra = {} if lr is None else {"lr": lr}
    place = PLACE if planned.name is None else ("optim_wrapper", planned.name, "optimizer")
    around = sharding if planned.sharded else None
    made: torch.optim.Optimizer = building.build(
        whole, place, given, home="torch.optim", around=around, **extra
    )
    return made


def _in(name: str | None, model: nn.Module) -> list[nn.Parameter]:
    """What trains in a submodule, or in all of the model."""
    owner = model if name is None else model.get_submodule(name)
    return [parameter for _, parameter in trainable(owner)]


def _groups(planned: Optimizer, named: Mapping[str, nn.Parameter]) -> Iterator[dict[str, Any]]:
    for group in planned.groups:
        base = {
            key: value for key, value in group.values if key in ("lr", "weight_decay") and value is not None
        }
        yield {
            "params": [named[name] for name in group.params or ()],
            **base,
            **thaw(group.options or Data()),
        }
