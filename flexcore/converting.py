"""The one converter between plain data and values: parse(), dump(), marked JSON. Shape only, no meaning."""

import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn

from flexcore import unions
from flexcore.components import Component, Data, Items, Members, Supplied, freeze, plain, thaw
from flexcore.config import Config, NamedLoader, NamedMetric
from flexcore.hooks import HookSlot
from flexcore.problems import ConfigError, Path, Problem, did_you_mean, shown
from flexcore.rules import problem
from flexcore.schedules import Schedule

T = TypeVar("T")
PRIMITIVES: Mapping[type, str] = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


class Misfit(Exception):
    """A value that does not fit its slot; becomes a Problem once its path is known."""

    def __init__(self, code: str, message: str, remedy: str, step: str | int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy, self.step = code, message, remedy, step


class Misfits(Exception):
    """Several misfits below one value, each with its step."""

    def __init__(self, found: list[tuple[str | int, Exception]]) -> None:
        super().__init__("misfits")
        self.found = found


STRUCTURING_ERRORS = (Misfit, Misfits, ClassValidationError)


def parse(mapping: object) -> Config:
    """Plain data in FlexibleRunner's vocabulary as a Config. Never mutates its argument.

    Raises:
        ConfigError: with every misfit at once: unknown keys, wrong types, unknown and retired names.
    """
    config, problems, _ = parse_partly(mapping)
    if problems:
        raise ConfigError(problems)
    return config


def parse_partly(mapping: object) -> tuple[Config, list[Problem], frozenset[str]]:
    """The config of whatever parses, every misfit, and the top-level keys that were left out for one.

    Lets the cross-field rules speak in the same breath as the misfits.
    """
    if not isinstance(mapping, Mapping):
        text = f"must be a mapping of settings, got {shown(mapping)}."
        return Config(), [problem("FK011", (), text, "Pass a dict.")], frozenset(f.name for f in attrs.fields(Config))
    problems: list[Problem] = []
    clean: dict[str, Any] = plain(mapping, (), problems)
    spoilt = {p.path for p in problems}
    try:
        if not problems:
            return CONVERTER.structure(clean, Config), [], frozenset()
    except STRUCTURING_ERRORS:
        pass
    sound: dict[str, Any] = {}
    for key, value in clean.items():
        try:
            CONVERTER.structure({key: value}, Config)
            sound[key] = value
        except STRUCTURING_ERRORS as error:
            problems.extend(p for p in _problems_of(error, ()) if p.path not in spoilt)
    broken = frozenset(str(p.path[0]) for p in problems if p.path)
    return CONVERTER.structure({k: v for k, v in sound.items() if k not in broken}, Config), problems, broken


def structure(data: object, kind: type[T]) -> T:
    """Unmarked plain data as a value of `kind`.

    Raises:
        ConfigError: naming every misfit by its path.
    """
    try:
        return CONVERTER.structure(data, kind)
    except STRUCTURING_ERRORS as error:
        raise ConfigError(_problems_of(error, ())) from None


def dump(value: Any, data: Callable[[Any], Any] = thaw) -> Any:
    """A value as plain data in the vocabulary `parse` reads; fields at their default are left out.

    `data` renders frozen plain data; `marked` makes it fit for JSON.
    """
    if isinstance(value, Component):
        return {"type": value.type, **{key: data(item) for key, item in value.kwargs.entries}}
    if isinstance(value, Data | Items | Members):
        return data(value)
    if isinstance(value, Supplied):
        return value if data is thaw else {"$supplied": True}
    if isinstance(value, tuple):
        return _dump_tuple(value, data)
    if isinstance(value, unions.UserHook):
        own = {} if value.priority is None else {"priority": value.priority}
        return {**dump(value.component, data), **own}
    if attrs.has(type(value)):
        return _dump_attrs(value, data)
    return value if data is thaw else marked(value)


def _dump_attrs(value: Any, data: Callable[[Any], Any]) -> dict[str, Any]:
    tag = unions.tag_of(value)
    result: dict[str, Any] = {} if tag is None else {"type": tag}
    for field in attrs.fields(type(value)):
        item = getattr(value, field.name)
        if item != field.default or type(item) is not type(field.default):
            if not (field.name == "param" and tag is not None and not tag.endswith("ParamScheduler")):
                result[unions.KEY_OF_FIELD.get(field.name, field.name)] = dump(item, data)
    return result


def _dump_tuple(value: tuple[Any, ...], data: Callable[[Any], Any]) -> Any:
    first = value[0] if value else None
    if isinstance(first, HookSlot):
        return {slot.key: dump(slot.hook, data) for slot in value}
    if isinstance(first, NamedLoader | NamedMetric):
        inner = "loader" if isinstance(first, NamedLoader) else "metric"
        items = [dump(getattr(item, inner), data) for item in value]
        if first.name is not None:
            return dict(zip((item.name for item in value), items, strict=True))
        return items[0] if len(items) == 1 else items
    return [dump(item, data) for item in value]


def marked(value: Any) -> Any:
    """Frozen plain data as JSON that keeps kinds: tuples, sets, int keys, nan and inf carry a "$" mark."""
    match value:
        case float() if value != value or value in (float("inf"), float("-inf")):
            return {"$float": repr(value)}
        case tuple():
            return {"$tuple": [marked(item) for item in value]}
        case Items(values):
            return [marked(item) for item in values]
        case Members(values):
            return {"$set": [marked(item) for item in values]}
        case Data(entries):
            if all(isinstance(key, str) and not key.startswith("$") for key, _ in entries):
                return {key: marked(item) for key, item in entries}
            return {"$entries": [[key, marked(item)] for key, item in entries]}
        case _:
            return value


def unmarked(value: Any) -> Any:
    """The plain data `marked` and `dump(..., marked)` wrote."""
    if isinstance(value, list):
        return [unmarked(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$float": text}:
            return float(text)
        case {"$tuple": items}:
            return tuple(unmarked(item) for item in items)
        case {"$set": items}:
            return {unmarked(item) for item in items}
        case {"$entries": entries}:
            return {key: unmarked(item) for key, item in entries}
        case {"$supplied": True}:
            return Supplied()
        case _:
            return {key: unmarked(item) for key, item in value.items()}


def _problems_of(error: Exception, path: Path) -> list[Problem]:
    """Every leaf of a tree of structuring errors, with its path."""
    if isinstance(error, Misfit):
        return [problem(error.code, path if error.step is None else (*path, error.step), error.message, error.remedy)]
    if isinstance(error, Misfits):
        return [p for step, inner in error.found for p in _problems_of(inner, (*path, step))]
    if isinstance(error, ForbiddenExtraKeysError):
        return [_unknown_key(key, error.cl, path) for key in sorted(error.extra_fields, key=str)]
    if isinstance(error, ClassValidationError):
        with_notes, without = error.group_exceptions()
        found = [p for inner, note in with_notes for p in _field_problems(inner, note.name, path)]
        return found + [p for inner in without for p in _problems_of(inner, path)]
    return [problem("FK011", path, f"does not fit: {shown(str(error))}.", "Check the value's type.")]


def _field_problems(error: Exception, name: str, path: Path) -> list[Problem]:
    key = unions.KEY_OF_FIELD.get(name, name)
    if isinstance(error, KeyError):
        return [problem("FK012", path, f'lacks the key "{key}".', f'Add "{key}".')]
    return _problems_of(error, (*path, key))


def _unknown_key(key: object, cls: type, path: Path) -> Problem:
    known = [unions.KEY_OF_FIELD.get(f.name, f.name) for f in attrs.fields(cls)]
    guess = did_you_mean(str(key), known)
    what = "is not a setting of the config" if cls is Config else f"is not a setting of {unions.label(cls)}"
    remedy = guess.strip() or f"Remove it; known here: {', '.join(sorted(known)) or 'none'}."
    return problem("FK010", (*path, key if isinstance(key, int) else str(key)), f"{what}.", remedy)


# --- hooks, most specific last -------------------------------------------------------------------


def _build() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _class_hook(cls, converter))
    converter.register_structure_hook_factory(_is_union, lambda cls: _union_hook(cls, converter))
    converter.register_structure_hook_factory(_is_tuple, lambda cls: _tuple_hook(cls, converter))
    for kind in PRIMITIVES:
        converter.register_structure_hook(kind, _primitive)
    converter.register_structure_hook_func(lambda cls: get_origin(cls) is Literal, _literal)
    converter.register_structure_hook(Data, _data)
    converter.register_structure_hook(Supplied, lambda value, _: _supplied(value))
    converter.register_structure_hook(Component, lambda value, _: unions.component(value, Misfit))
    named = (
        (HookSlot, _slots), (NamedLoader, _named("loader")), (NamedMetric, _named("metric")),
    )  # fmt: skip
    for kind, hook in named:
        converter.register_structure_hook_func(lambda cls, kind=kind: cls == tuple[kind, ...], _with(hook, converter))
    return converter


def _with(hook: Callable[[Any, Any, Converter], Any], converter: Converter) -> Callable[[Any, Any], Any]:
    return lambda value, cls: hook(value, cls, converter)


def _is_union(cls: Any) -> bool:
    return get_origin(cls) in (Union, types.UnionType)


def _is_tuple(cls: Any) -> bool:
    return get_origin(cls) is tuple


def _class_hook(cls: type, converter: Converter) -> Callable[[Any, Any], Any]:
    renamed = {f.name: _renamed(f.name) for f in attrs.fields(cls) if f.name in unions.KEY_OF_FIELD}
    inner = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **renamed)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise Misfit("FK011", f"must be a mapping, got {shown(value)}.", f"Write dict(...) with the settings of {unions.label(cls)}.")
        return inner(unions.without_type(value, cls, Misfit), cls)

    return hook


def _renamed(name: str) -> Any:
    from cattrs.gen import override

    return override(rename=unions.KEY_OF_FIELD[name])


def _tuple_hook(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    args = get_args(cls)
    endless = len(args) == 2 and args[1] is Ellipsis

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple) or not (endless or len(value) == len(args)):
            what = "a list" if endless else f"a list of {len(args)}"
            raise Misfit("FK011", f"must be {what}, got {shown(value)}.", "Write it in brackets.")
        kinds = [args[0]] * len(value) if endless else args
        return tuple(_each(value, kinds, converter))

    return hook


def _each(items: Any, kinds: Any, converter: Converter) -> list[Any]:
    done, wrong = [], []
    for i, (item, kind) in enumerate(zip(items, kinds, strict=True)):
        try:
            done.append(converter.structure(item, kind))
        except STRUCTURING_ERRORS as error:
            wrong.append((i, error))
    if wrong:
        raise Misfits(wrong)  # type: ignore[arg-type]
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
                one = isinstance(value, dict) and kind == tuple[Schedule, ...]
                return converter.structure([value] if one else value, kind)
        raise Misfit("FK011", f"must be {_wanted(args)}, got {shown(value)}.", "Correct the value.")

    return hook


def _accepted(kind: Any) -> tuple[type, ...]:
    """Python kinds a union's member may be written as; a lone loader, metric or schedule needs no list."""
    if get_origin(kind) is not tuple:
        return (dict,)
    lone = kind in (tuple[NamedLoader, ...], tuple[NamedMetric, ...], tuple[Schedule, ...])
    return (list, tuple, dict) if lone else (list, tuple)


def _wanted(args: tuple[Any, ...]) -> str:
    words = []
    for kind in args:
        if kind in PRIMITIVES:
            words.append(PRIMITIVES[kind])
        elif get_origin(kind) is Literal:
            words.extend(f'"{value}"' for value in get_args(kind))
        elif get_origin(kind) is tuple:
            words.append("a list")
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
    raise Misfit("FK011", f"must be one of {names}, got {shown(value)}.", guess.strip() or "Pick one of them.")


def _data(value: Any, _: Any) -> Data:
    if not isinstance(value, dict):
        raise Misfit("FK011", f"must be a mapping, got {shown(value)}.", "Write dict(...).")
    frozen_value: Data = freeze(value)
    return frozen_value


def _supplied(value: Any) -> Supplied:
    if isinstance(value, Supplied):
        return value
    raise Misfit("FK011", f"must be flexcore.Supplied(), got {shown(value)}.", "Correct the value.")


def _slots(value: Any, _: Any, converter: Converter) -> tuple[HookSlot, ...]:
    if not isinstance(value, dict):
        raise Misfit("FK011", f"must be a mapping of hooks by name, got {shown(value)}.", "Write dict(name=dict(type=...)).")
    keys = [str(key) for key in value]
    hooks = _by_key(value, unions.Hook | None, converter)
    return tuple(HookSlot(key=key, hook=hook) for key, hook in zip(keys, hooks, strict=True))


def _by_key(value: dict[Any, Any], kind: Any, converter: Converter) -> list[Any]:
    try:
        return _each(value.values(), [kind] * len(value), converter)
    except Misfits as error:
        keys = list(value)
        raise Misfits([(keys[int(i)], inner) for i, inner in error.found]) from None


def _named(inner: str) -> Callable[[Any, Any, Converter], Any]:
    """One, a list or a mapping of loaders or metrics; a mapping without the one's own key is by name."""
    own_key = "dataset" if inner == "loader" else "type"

    def hook(value: Any, cls: Any, converter: Converter) -> Any:
        item = get_args(cls)[0]
        kind = attrs.fields_dict(item)[inner].type
        if isinstance(value, list | tuple):
            return tuple(item(**{inner: one}) for one in _each(value, [kind] * len(value), converter))
        if isinstance(value, dict) and own_key not in value and value and all(isinstance(v, dict | Supplied) for v in value.values()):
            ones = _by_key(value, kind, converter)
            return tuple(item(name=str(key), **{inner: one}) for key, one in zip(value, ones, strict=True))
        return (item(**{inner: converter.structure(value, kind)}),)

    return hook


CONVERTER = _build()
