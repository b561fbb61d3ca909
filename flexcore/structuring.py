"""Plain data to values: the one cattrs converter and its strict hooks. Shape only, no meaning, no wording of paths."""

import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from flexcore import unions
from flexcore.components import Component, Data, Supplied
from flexcore.config import (
    Config,
    NamedLoader,
    NamedMetric,
    NamedOptim,
    NamedSchedules,
    OptimDict,
    OptimWrapper,
)
from flexcore.hooks import Hook, HookSlot
from flexcore.problems import did_you_mean, shown
from flexcore.schedules import Schedule

_HOOK_OR_NONE: Any = Hook | None
NONE_IS_ABSENT = ("default_hooks", "custom_hooks", "env_cfg", "log_processor", "randomness")
"""Sections FlexibleRunner takes None for; ours have a value when absent."""
_SCHEDULES_OR_NONE: Any = tuple[Schedule, ...] | None
_SCHEDULES = (tuple[Schedule, ...], tuple[NamedSchedules, ...])
PRIMITIVES: Mapping[type, str] = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


class Misfit(Exception):  # noqa: N818
    """A value that does not fit its slot; becomes a Problem once its path is known."""

    def __init__(self, code: str, message: str, remedy: str, step: str | int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy, self.step = code, message, remedy, step


class Misfits(Exception):  # noqa: N818
    """Several misfits below one value, each with its step."""

    def __init__(self, found: list[tuple[str | int, Exception]]) -> None:
        super().__init__("misfits")
        self.found = found


STRUCTURING_ERRORS = (Misfit, Misfits, ClassValidationError)


def _build() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _class_hook(cls, converter))
    converter.register_structure_hook_factory(_is_union, lambda cls: _union_hook(cls, converter))
    converter.register_structure_hook_factory(_is_tuple, lambda cls: _tuple_hook(cls, converter))
    converter.register_structure_hook_func(_is_literal, _literal)
    for kind, hook in (
        *((primitive, _primitive) for primitive in PRIMITIVES),
        (Data, _data),
        (Component, lambda value, _: unions.component(value, Misfit)),
        (OptimDict, lambda value, _: _optims(value, converter)),
    ):
        converter.register_structure_hook(kind, hook)
    for kind, several in (
        (HookSlot, _slots),
        (NamedLoader, _named("loader")),
        (NamedMetric, _named("metric")),
        (NamedSchedules, _schedules_by_name),
    ):
        converter.register_structure_hook_func(_is_tuple_of(kind), _with(several, converter))
    return converter


def _with(hook: Callable[[Any, Any, Converter], Any], converter: Converter) -> Callable[[Any, Any], Any]:
    return lambda value, cls: hook(value, cls, converter)


def _is_literal(cls: Any) -> bool:
    return bool(get_origin(cls) is Literal)


def _is_tuple_of(kind: type) -> Callable[[Any], bool]:
    return lambda cls: bool(cls == tuple[kind, ...])  # type: ignore[valid-type]


def _is_union(cls: Any) -> bool:
    return get_origin(cls) in (Union, types.UnionType)


def _is_tuple(cls: Any) -> bool:
    return get_origin(cls) is tuple


def _class_hook(cls: type, converter: Converter) -> Callable[[Any, Any], Any]:
    keys = unions.KEY_OF_FIELD
    renamed: dict[str, Any] = {
        f.name: override(rename=keys[f.name]) for f in attrs.fields(cls) if f.name in keys
    }
    inner: Any = make_dict_structure_fn(cls, converter, **renamed)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise Misfit(
                "FK011",
                f"must be a mapping, got {shown(value)}.",
                f"Write dict(...) with the settings of {unions.label(cls)}.",
            )
        value = unions.without_type(value, cls, Misfit)
        if cls is Config:
            value = {
                key: item for key, item in value.items() if item is not None or key not in NONE_IS_ABSENT
            }
        return inner(value)

    return hook


def _tuple_hook(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    args = get_args(cls)
    endless = len(args) == 2 and args[1] is Ellipsis

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple) or not (endless or len(value) == len(args)):
            what = "a list" if endless else f"a list of {len(args)}"
            raise Misfit("FK011", f"must be {what}, got {shown(value)}.", "Write it in brackets.")
        slots = ((i, item, args[0] if endless else args[i]) for i, item in enumerate(value))
        return tuple(_each(slots, converter).values())

    return hook


def _each(slots: Iterable[tuple[Any, Any, Any]], converter: Converter) -> dict[Any, Any]:
    """Of each (step, item, kind) the item as that kind, by its step."""
    done: dict[Any, Any] = {}
    wrong: list[tuple[str | int, Exception]] = []
    for step, item, kind in slots:
        try:
            done[step] = converter.structure(item, kind)
        except STRUCTURING_ERRORS as error:
            wrong.append((step, error))
    if wrong:
        raise Misfits(wrong)
    return done


def _union_hook(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    args = get_args(cls)
    tagged = unions.tagged_for(args)
    primitives = [kind for kind in args if kind in PRIMITIVES]
    literals = [value for kind in args if get_origin(kind) is Literal for value in get_args(kind)]
    others = [kind for kind in args if get_origin(kind) is tuple or attrs.has(kind)]

    def hook(value: Any, _: Any) -> Any:
        if (value is None and types.NoneType in args) or (isinstance(value, Supplied) and Supplied in args):
            return value
        if type(value) in primitives or (isinstance(value, str) and value in literals):
            return value
        if type(value) is int and float in primitives:
            return float(value)
        if tagged is not None and isinstance(value, dict | str):
            return tagged(value, converter, Misfit)
        for kind in others:
            if kind is not Supplied and isinstance(value, _accepted(kind)):
                if kind in _SCHEDULES and (kind == _SCHEDULES[1]) != unions.is_by_name(value):
                    continue
                one = isinstance(value, dict) and kind == tuple[Schedule, ...]
                return converter.structure([value] if one else value, kind)
        raise Misfit("FK011", f"must be {_wanted(args)}, got {shown(value)}.", "Correct the value.")

    return hook


def _optims(value: dict[str, Any], converter: Converter) -> OptimDict:
    """Optimizer wrappers by name; a constructor beside them."""
    constructor = value.get("constructor")
    if constructor is not None and not isinstance(constructor, str):
        raise Misfit("FK011", f"must be text, got {shown(constructor)}.", "Correct the value.", "constructor")
    named = {key: item for key, item in value.items() if key != "constructor"}
    if not named:
        raise Misfit(
            "FK012", "names no optimizer.", "Add one by its submodule: generator=dict(optimizer=...)."
        )
    pairs = _by_key(named, OptimWrapper, converter).items()
    return OptimDict(wrappers=tuple(NamedOptim(name=k, wrapper=w) for k, w in pairs), constructor=constructor)


def _schedules_by_name(value: dict[str, Any], _: Any, converter: Converter) -> tuple[NamedSchedules, ...]:
    pairs = _by_key(value, _SCHEDULES_OR_NONE, converter).items()
    return tuple(NamedSchedules(name=name, schedules=own or ()) for name, own in pairs)


def _accepted(kind: Any) -> tuple[type, ...]:
    """Python kinds a union's member may be written as; a lone loader, metric or schedule needs no list."""
    if get_origin(kind) is not tuple:
        return (dict,)
    if kind == tuple[NamedSchedules, ...]:
        return (dict,)
    if kind == tuple[NamedMetric, ...]:
        return (list, tuple, dict, Supplied, str)
    if kind == tuple[NamedLoader, ...]:
        return (list, tuple, dict, Supplied)
    return (list, tuple, dict) if kind == tuple[Schedule, ...] else (list, tuple)


def _wanted(args: tuple[Any, ...]) -> str:
    words = []
    for kind in args:
        if kind in PRIMITIVES:
            words.append(PRIMITIVES[kind])
        elif get_origin(kind) is Literal:
            words.extend(f'"{value}"' for value in get_args(kind))
        elif get_origin(kind) is tuple:
            words.extend(["a mapping", "a list"] if dict in _accepted(kind) else ["a list"])
        elif kind is types.NoneType:
            words.append("None")
        elif kind is not Supplied:
            words.append("a mapping")
    return " or ".join(dict.fromkeys(words))


def _primitive(value: Any, cls: Any) -> Any:
    if type(value) is cls:
        return value
    if cls is float and type(value) is int:
        return float(value)
    raise Misfit("FK011", f"must be {PRIMITIVES[cls]}, got {shown(value)}.", "Correct the value.")


def _literal(value: Any, cls: Any) -> Any:
    allowed = get_args(cls)
    if isinstance(value, str) and value in allowed:
        return value
    names = ", ".join(f'"{name}"' for name in allowed)
    guess = did_you_mean(value, allowed) if isinstance(value, str) else ""
    raise Misfit(
        "FK011", f"must be one of {names}, got {shown(value)}.", guess.strip() or "Pick one of them."
    )


def _data(value: Any, _: Any) -> Data:
    if not isinstance(value, dict):
        raise Misfit("FK011", f"must be a mapping, got {shown(value)}.", "Write dict(...).")
    return unions.data(value, Misfit)


def _slots(value: Any, _: Any, converter: Converter) -> tuple[HookSlot, ...]:
    if not isinstance(value, dict):
        raise Misfit(
            "FK011",
            f"must be a mapping of hooks by name, got {shown(value)}.",
            "Write dict(name=dict(type=...)).",
        )
    pairs = _by_key(value, _HOOK_OR_NONE, converter).items()
    return tuple(HookSlot(key=key, hook=hook) for key, hook in pairs)


def _by_key(value: dict[Any, Any], kind: Any, converter: Converter) -> dict[str, Any]:
    number = next((key for key in value if not isinstance(key, str)), None)
    if number is not None:
        raise Misfit("FK011", f"has the key {number}; names here are text.", "Put the name in quotes.")
    return _each(((key, item, kind) for key, item in value.items()), converter)


def _named(inner: str) -> Callable[[Any, Any, Converter], Any]:
    """One, a list or a mapping of loaders or metrics; a mapping without the one's own key is by name."""
    own_key = "dataset" if inner == "loader" else "type"

    def hook(value: Any, cls: Any, converter: Converter) -> Any:
        item = get_args(cls)[0]
        kind: Any = attrs.fields_dict(item)[inner].type
        if isinstance(value, list | tuple):
            slots = ((i, one, kind) for i, one in enumerate(value))
            return tuple(item(**{inner: one}) for one in _each(slots, converter).values())
        if (
            isinstance(value, dict)
            and own_key not in value
            and value
            and all(isinstance(v, dict | Supplied) for v in value.values())
        ):
            pairs = _by_key(value, kind, converter).items()
            return tuple(item(name=name, **{inner: one}) for name, one in pairs)
        return (item(**{inner: converter.structure(value, kind)}),)

    return hook


CONVERTER = _build()
