"""Which parameter trains with which settings: paramwise_cfg over the parameters seen, one group each. Pure.

mmengine 0.10's DefaultOptimWrapperConstructor: the longest custom key in a parameter's name decides alone; otherwise
the rules for biases, norms, depthwise convolutions and flat parameters do. A name shared by two modules counts once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flexcore import optimizers
from flexcore.components import Component, Data
from flexcore.config import Paramwise
from flexcore.facts import ParameterFact
from flexcore.plan_training import Group

MULTIPLIERS = ("lr_mult", "decay_mult")


def groups(
    settings: Paramwise, optimizer: Component, parameters: Sequence[ParameterFact], scheduled: Sequence[str],
    scale: float,
) -> tuple[Group, ...]:  # fmt: skip
    """A group for each of the parameters, which train, in the model's order. scale: of every LR."""
    lr, decay = optimizers.base(optimizer, "lr"), optimizers.number(optimizer.kwargs.get("weight_decay"))
    start = {key: optimizers.base(optimizer, key) for key in scheduled}
    made = []
    for fact in parameters:
        lr_mult, decay_mult, options = _chosen(settings, fact)
        values = {**start, "lr": _times(lr, lr_mult)}
        if decay is not None:
            values["weight_decay"] = decay * decay_mult
        made.append(_group(fact.name, values, options, scale))
    return tuple(made)


def _group(name: str, values: Mapping[str, float | None], options: Data, scale: float) -> Group:
    own: dict[str, Any] = {str(key): value for key, value in options.entries}
    beta = optimizers.first(own.get("betas"))
    found = {
        **values,
        **{key: n for key, value in own.items() if (n := optimizers.number(value)) is not None},
    }
    if "momentum" in found and "momentum" not in own and beta is not None:
        found["momentum"] = beta
    found["lr"] = _times(found["lr"], scale)
    rest = Data(tuple((key, value) for key, value in own.items() if key not in ("lr", "weight_decay")))
    return Group(values=tuple(found.items()), params=(name,), options=rest or None)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _chosen(settings: Paramwise, fact: ParameterFact) -> tuple[float, float, Data]:
    """(LR multiplier, decay multiplier, other settings) of one parameter."""
    key = matching(settings, fact.name)
    if key is None:
        return _lr_by_rule(settings, fact), _decay_by_rule(settings, fact), Data()
    assert settings.custom_keys is not None
    own: Data = settings.custom_keys[key]
    rest = Data(tuple((name, value) for name, value in own.entries if name not in MULTIPLIERS))
    return own.get("lr_mult", 1.0), own.get("decay_mult", 1.0), rest


def matching(settings: Paramwise, name: str) -> str | None:
    """The custom key for a parameter: the longest one in its name, of equals the first by alphabet."""
    whole = name if "." in name else f".{name}"
    keys = [str(key) for key in settings.custom_keys or () if str(key) in whole]
    return min(keys, key=lambda key: (-len(key), key), default=None)


def _lr_by_rule(settings: Paramwise, fact: ParameterFact) -> float:
    module, _, own = fact.name.rpartition(".")
    multiplier = 1.0
    if own == "bias" and fact.kind != "norm" and not fact.deformable and settings.bias_lr_mult is not None:
        multiplier = settings.bias_lr_mult
    if "conv_offset" in module and fact.deformable and fact.kind in ("conv", "depthwise"):
        multiplier = multiplier if settings.dcn_offset_lr_mult is None else settings.dcn_offset_lr_mult
    return multiplier


def _decay_by_rule(settings: Paramwise, fact: ParameterFact) -> float:
    """The first rule that fits and is set."""
    bias = fact.name.rpartition(".")[2] == "bias" and not fact.deformable
    rules = (
        (fact.kind == "norm", settings.norm_decay_mult),
        (bias, settings.bias_decay_mult),
        (fact.kind == "depthwise", settings.dwconv_decay_mult),
        (len(fact.shape) == 1 and not fact.deformable, settings.flat_decay_mult),
    )
    return next((multiplier for fits, multiplier in rules if fits and multiplier is not None), 1.0)
