"""Values to plain data in the vocabulary parse reads, and JSON marks that keep kinds; the inverse of structuring."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from flexcore import unions
from flexcore.components import Component, Data, Items, Members, Supplied, thaw
from flexcore.config import NamedLoader, NamedMetric, NamedSchedules, OptimDict
from flexcore.hooks import HookSlot, UserHook
from flexcore.loops import OwnEvalLoop, OwnTrainLoop


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
    if isinstance(value, UserHook):
        own = {} if value.priority is None else {"priority": value.priority}
        return {**dump(value.component, data), **own}
    if isinstance(value, OwnTrainLoop | OwnEvalLoop):
        return dump(value.component, data)
    if isinstance(value, OptimDict):
        named = ((entry.name, dump(entry.wrapper, data)) for entry in value.wrappers)
        first = [] if value.constructor is None else [("constructor", value.constructor)]
        return _by_name([("type", value.NAME), *first, *named], data)
    if attrs.has(type(value)):
        return _dump_attrs(value, data)
    return value if data is thaw else marked(value)


def _dump_attrs(value: Any, data: Callable[[Any], Any]) -> dict[str, Any]:
    tag = unions.tag_of(value)
    result: dict[str, Any] = {} if tag is None else {"type": tag}
    for field in attrs.fields(type(value)):
        item = getattr(value, field.name)
        implied = field.name == "param" and tag is not None and not tag.endswith("ParamScheduler")
        if not implied and (item != field.default or type(item) is not type(field.default)):
            result[unions.KEY_OF_FIELD.get(field.name, field.name)] = dump(item, data)
    return result


def _dump_tuple(value: tuple[Any, ...], data: Callable[[Any], Any]) -> Any:
    first = value[0] if value else None
    if isinstance(first, HookSlot):
        return _by_name(((slot.key, dump(slot.hook, data)) for slot in value), data)
    if isinstance(first, NamedSchedules):
        return _by_name(((entry.name, dump(entry.schedules, data)) for entry in value), data)
    if isinstance(first, NamedLoader | NamedMetric):
        inner = "loader" if isinstance(first, NamedLoader) else "metric"
        named = [(item.name, dump(getattr(item, inner), data)) for item in value]
        if first.name is not None:
            return _by_name(named, data)
        items = [item for _, item in named]
        return items[0] if len(items) == 1 else items
    return [dump(item, data) for item in value]


def _by_name(pairs: Iterable[tuple[str, Any]], data: Callable[[Any], Any]) -> dict[str, Any]:
    """A mapping by the user's own names, kept apart from marks in JSON."""
    named = dict(pairs)
    if data is not thaw and any(name.startswith("$") for name in named):
        return {"$entries": [list(pair) for pair in named.items()]}
    return named


def marked(value: Any) -> Any:
    """Frozen plain data as JSON that keeps kinds: tuples, sets, int keys, nan and inf carry a "$" mark."""
    match value:
        case float() if not math.isfinite(value):
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
    match value if len(value) == 1 else None:
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
