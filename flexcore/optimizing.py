"""The optimizer of a plan: base values of its groups after LR scaling, clipping and precision. Nothing is built."""

from collections.abc import Mapping
from typing import Any

from flexcore.components import Component, Supplied
from flexcore.config import AmpOptim, Config, PlainOptim
from flexcore.facts import Facts, GroupFact
from flexcore.run_plan import Batching, Group, Optimizer, Precision

# Default LR of torch.optim classes (torch 2.10 to 2.13), for optimizers whose config names none.
DEFAULT_LR: Mapping[str, float] = {
    "SGD": 1e-3, "Adam": 1e-3, "AdamW": 1e-3, "NAdam": 2e-3, "RAdam": 1e-3, "Adamax": 2e-3, "Adadelta": 1.0,
    "Adagrad": 1e-2, "ASGD": 1e-2, "RMSprop": 1e-2, "Rprop": 1e-2, "SparseAdam": 1e-3, "Adafactor": 1e-2,
    "LBFGS": 1.0, "Muon": 1e-3,
}  # fmt: skip


def optimizer(config: Config, batching: Batching | None, facts: Facts) -> Optimizer | None:
    wrapper = config.optim_wrapper
    if wrapper is None:
        return None
    scale = lr_scale(config, batching)
    params = tuple(dict.fromkeys(["lr", *(schedule.param for schedule in config.param_scheduler or ())]))
    seen: tuple[GroupFact | None, ...] = facts.parameter_groups or (None,)
    return Optimizer(
        component=wrapper.optimizer, groups=tuple(_group(wrapper.optimizer, params, fact, scale) for fact in seen),
        lr_scale=scale, clip_grad=wrapper.clip_grad, precision=precision(wrapper, facts),
    )  # fmt: skip


def _group(
    optimizer: Component | Supplied, params: tuple[str, ...], fact: GroupFact | None, scale: float | None
) -> Group:
    """The base value of each scheduled key, the LR scaled; a built optimizer's values win over the config's."""
    built = dict(fact.values) if fact is not None else None
    values = _asked(optimizer, params) if built is None else {param: built.get(param) for param in params}
    lr = values["lr"]
    values["lr"] = lr if lr is None or scale is None else lr * scale
    return Group(values=tuple(values.items()))


def _asked(optimizer: Component | Supplied, params: tuple[str, ...]) -> dict[str, float | None]:
    if isinstance(optimizer, Supplied):
        return dict.fromkeys(params)
    defaults = {"lr": DEFAULT_LR.get(optimizer.name)}
    return {param: _number(optimizer.kwargs.get(param, defaults.get(param))) for param in params}


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None


def lr_scale(config: Config, batching: Batching | None) -> float | None:
    """global_batch_size / base_batch_size when asked for; None while the batch is unknown."""
    scale = config.auto_scale_lr
    if scale is None or not scale.enable or scale.base_batch_size is None:
        return 1.0
    if batching is None or batching.global_batch_size is None:
        return None
    return batching.global_batch_size / scale.base_batch_size


def precision(wrapper: PlainOptim | AmpOptim, facts: Facts) -> Precision:
    """Autocast and loss scaling; torch.autocast's default type where none is given."""
    if not isinstance(wrapper, AmpOptim):
        return Precision()
    dtype = wrapper.dtype or ("float16" if facts.device_type == "cuda" else "bfloat16")
    if dtype != "float16":
        return Precision(dtype=dtype)
    if isinstance(wrapper.loss_scale, str | float):
        return Precision(dtype=dtype, loss_scale=wrapper.loss_scale)
    settings: dict[str, Any] = {str(key): value for key, value in wrapper.loss_scale.entries}
    return Precision(dtype=dtype, loss_scale="dynamic", **settings)
