"""The optimizers of a plan: base values of their groups after LR scaling, clipping and precision. Nothing is built."""

from collections.abc import Mapping
from typing import Any

from flexcore import backends
from flexcore.components import Component, Supplied
from flexcore.config import AmpOptim, Config, OptimWrapper, Paramwise
from flexcore.facts import Facts, GroupFact
from flexcore.optimizers import base
from flexcore.paramwise import groups
from flexcore.plan_training import Batching, Group, Optimizer, Precision
from flexcore.problems import Path
from flexcore.schedules import Schedule
from flexcore.strategies import DeepSpeed
from flexcore.wrappers import Asked, asked, owned


def optimizers(
    config: Config,
    batching: Batching | None,
    facts: Facts,
    schedules: Mapping[Path, tuple[Schedule, ...] | None],
) -> tuple[Optimizer, ...]:
    """Every optimizer asked for. schedules: resolved, by their place."""
    scale = lr_scale(config, batching)
    return tuple(
        _optimizer(one, scale, facts, schedules.get(one.schedules_place, ()), backends.of(config))
        for one in asked(config)
    )


def _optimizer(
    one: Asked,
    scale: float | None,
    facts: Facts,
    schedules: tuple[Schedule, ...] | None,
    engine: DeepSpeed | None,
) -> Optimizer:
    wrapper = one.wrapper
    params = tuple(dict.fromkeys(["lr", *(schedule.param for schedule in one.schedules)]))
    return Optimizer(
        name=one.name, component=one.optimizer, groups=_groups(one, params, facts, scale), lr_scale=scale,
        clip_grad=wrapper.clip_grad if engine is None else backends.clipping(engine, wrapper),
        precision=precision(wrapper, facts) if engine is None else backends.precision(engine, wrapper, facts),
        schedules=schedules,
        sharded=one.sharded,
    )  # fmt: skip


def _groups(one: Asked, params: tuple[str, ...], facts: Facts, scale: float | None) -> tuple[Group, ...]:
    """The groups seen or to be built; one whose values are unknown stands for those that wait for the model."""
    optimizer, settings = one.optimizer, one.wrapper.paramwise_cfg
    if isinstance(optimizer, Component) and settings not in (None, Paramwise()):
        assert settings is not None
        found = (
            ()
            if facts.parameters is None
            else groups(settings, optimizer, owned(one.name, facts.parameters), params, scale or 1.0)
        )
        return found or (Group(values=tuple((param, None) for param in params)),)
    seen: tuple[GroupFact | None, ...] = facts.parameter_groups or (None,)
    return tuple(_group(optimizer, params, fact, scale) for fact in seen)


def waits_for_parameters(wrapper: OptimWrapper, facts: Facts) -> bool:
    """Whether the groups are those of paramwise_cfg and the model has not been looked at."""
    return wrapper.paramwise_cfg not in (None, Paramwise()) and facts.parameters is None


def any_waits(config: Config, facts: Facts) -> bool:
    return any(waits_for_parameters(one.wrapper, facts) for one in asked(config))


def _group(
    optimizer: Component | Supplied, params: tuple[str, ...], fact: GroupFact | None, scale: float | None
) -> Group:
    """The base value of each scheduled key, the LR scaled; a built optimizer's values win over the config's."""
    if fact is not None:
        values = {param: dict(fact.values).get(param) for param in params}
    elif isinstance(optimizer, Component):
        values = {param: base(optimizer, param) for param in params}
    else:
        values = dict.fromkeys(params)
    lr = values["lr"]
    values["lr"] = lr if lr is None or scale is None else lr * scale
    return Group(values=tuple(values.items()))


def lr_scale(config: Config, batching: Batching | None) -> float | None:
    """global_batch_size / base_batch_size when asked for; None while the batch is unknown."""
    scale = config.auto_scale_lr
    if scale is None or not scale.enable or scale.base_batch_size is None:
        return 1.0
    if batching is None or batching.global_batch_size is None:
        return None
    return batching.global_batch_size / scale.base_batch_size


def precision(wrapper: OptimWrapper, facts: Facts) -> Precision:
    """Autocast and loss scaling; torch.autocast's default type where none is given."""
    if not isinstance(wrapper, AmpOptim):
        return Precision()
    dtype = backends.amp_dtype(wrapper, facts)
    if dtype != "float16":
        return Precision(dtype=dtype)
    if isinstance(wrapper.loss_scale, str | float):
        return Precision(dtype=dtype, loss_scale=wrapper.loss_scale)
    settings: dict[str, Any] = {
        str(key): value if key == "growth_interval" else float(value)
        for key, value in wrapper.loss_scale.entries
    }
    return Precision(dtype=dtype, loss_scale="dynamic", **settings)
