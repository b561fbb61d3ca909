"""Rules of the optimizer, of paramwise_cfg and of what schedules move."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from flexcore import optimizers as known
from flexcore.components import Component, Data, Supplied
from flexcore.config import Config, Paramwise
from flexcore.facts import Facts
from flexcore.paramwise import MULTIPLIERS
from flexcore.problems import Path, Problem, did_you_mean, dotted, shown
from flexcore.rules import problem
from flexcore.wrappers import Asked, asked, owned

DECAYS = ("bias_decay_mult", "norm_decay_mult", "flat_decay_mult", "dwconv_decay_mult")


def optimizers(config: Config, facts: Facts, _: frozenset[str]) -> Iterator[Problem]:
    for one in asked(config):
        if isinstance(one.optimizer, Component):
            yield from _buildable(one.optimizer, one.place)
            yield from _starts(one, one.optimizer)
        if one.wrapper.paramwise_cfg is not None:
            yield from _paramwise(one, one.wrapper.paramwise_cfg, facts)


def _buildable(optimizer: Component, place: Path) -> Iterator[Problem]:
    if optimizer.name in known.UNBUILT and (
        not optimizer.is_import_path or optimizer.type.startswith("torch.")
    ):
        reason, remedy = known.UNBUILT[optimizer.name]
        text = f"{shown(optimizer.type)} is known but not built: {reason}."
        yield problem("FK014", (*place, "optimizer", "type"), text, remedy)


def _starts(one: Asked, optimizer: Component) -> Iterator[Problem]:
    """Every scheduled key is one the groups have, and its start is known."""
    for i, schedule in enumerate(one.schedules):
        path: Path = (*one.schedules_place, i)
        if known.has(optimizer, schedule.param) is False:
            text = f"moves {shown(schedule.param)}, which {optimizer.name} has not."
            yield problem("FS008", path, text, "Schedule a key the optimizer has.")
        elif known.base(optimizer, schedule.param) is None:
            text = f"moves {shown(schedule.param)}, and nothing says where it starts."
            remedy = f"Give {schedule.param} in {dotted((*one.place, 'optimizer'))}, as a number."
            yield problem("FS008", path, text, remedy)


def _paramwise(one: Asked, settings: Paramwise, facts: Facts) -> Iterator[Problem]:
    optimizer, place = one.optimizer, (*one.place, "paramwise_cfg")
    if isinstance(optimizer, Supplied):
        text = "groups parameters, and the optimizer is supplied with groups of its own."
        yield problem("FK019", place, text, "Remove it, or let the optimizer be built.")
        return
    for field in attrs.fields(Paramwise):
        value = getattr(settings, field.name)
        if field.name.endswith("_mult") and value is not None:
            yield from _multiplier((*place, field.name), value)
    custom = dict(settings.custom_keys.entries) if settings.custom_keys is not None else {}
    for key, own in custom.items():
        yield from _custom((*place, "custom_keys", key), key, own, optimizer)
    yield from _multiplied(settings, custom, optimizer, one.place)
    if facts.parameters is not None:
        inside = facts.parameters if one.name is None else owned(one.name, facts.parameters)
        names = [f"{fact.name}" if "." in fact.name else f".{fact.name}" for fact in inside]
        for key in custom:
            if not any(str(key) in name for name in names):
                text = "is in no parameter's name, so it changes nothing."
                yield problem("FS010", (*place, "custom_keys", key), text, _nearest(str(key), names))


def _nearest(key: str, names: list[str]) -> str:
    parts = dict.fromkeys(
        part for name in names for part in (*name.split("."), name.rpartition(".")[0]) if part
    )
    return (
        did_you_mean(key, parts).strip()
        or f"Parameters: {shown(', '.join(n.removeprefix('.') for n in names))}."
    )


def _multiplier(path: Path, value: Any) -> Iterator[Problem]:
    if known.number(value) is None or not 0 <= value < math.inf:
        yield problem(
            "FK020", path, f"must be a finite number >= 0, got {shown(value)}.", "Correct the value."
        )


def _custom(path: Path, key: Any, own: Any, optimizer: Component) -> Iterator[Problem]:
    if not isinstance(key, str) or not key:
        yield problem("FK011", path, "must be part of parameters' names.", "Write it as text.")
    if not isinstance(own, Data):
        text = f"must be a mapping, got {shown(own)}."
        yield problem("FK011", path, text, "Write dict(lr_mult=...) or dict(decay_mult=...).")
        return
    allowed = {
        *MULTIPLIERS,
        "lr",
        "weight_decay",
        "betas",
        *optimizer.kwargs,
        *(known.defaults(optimizer) or ()),
    }
    for name, value in own.entries:
        if name not in allowed:
            text = f"is neither a multiplier nor a setting of {optimizer.name}."
            remedy = did_you_mean(str(name), [str(n) for n in allowed]).strip() or "Remove it."
            yield problem("FK010", (*path, name), text, remedy)
        elif name in (*MULTIPLIERS, "lr", "weight_decay"):
            yield from _multiplier((*path, name), value)


def _multiplied(
    settings: Paramwise, custom: Mapping[Any, Any], optimizer: Component, owner: Path
) -> Iterator[Problem]:
    """Multipliers have something to multiply: the config's own weight_decay, and an LR somebody knows."""
    place, where = (*owner, "paramwise_cfg"), dotted((*owner, "optimizer"))
    paths: list[Path] = [(*place, name) for name in DECAYS if getattr(settings, name) is not None]
    paths += [
        (*place, "custom_keys", key, "decay_mult")
        for key, own in custom.items()
        if isinstance(own, Data) and "decay_mult" in own
    ]
    if known.number(optimizer.kwargs.get("weight_decay")) is None:
        for path in paths:
            text = "multiplies weight_decay, which the optimizer's config does not give."
            yield problem("FS011", path, text, f"Give weight_decay in {where}.")
    if known.base(optimizer, "lr") is None:
        text = "multiplies the LR, which the optimizer's config does not give."
        yield problem("FS011", place, text, f"Give lr in {where}.")
