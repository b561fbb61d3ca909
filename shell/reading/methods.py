"""The methods a Python config may call on its values: a closed table by type, each call bounded."""

from collections.abc import Callable
from typing import Any

from shell.reading.calling import ABSENT, Call, shallow_copy, update
from shell.reading.formatting import braces
from shell.reading.limits import Budget, check_size
from shell.reading.marked import Map, Seq, Tup
from shell.reading.operating import element_marks, elements, wrapped


def _map_get(budget: Budget, owner: Map, key: Any, default: Any = None) -> Any:
    budget.deep(key)
    return owner.get(key, default)


def _map_pop(budget: Budget, owner: Map, key: Any, default: Any = ABSENT) -> Any:
    budget.deep(key)
    return owner.take(key) if key in owner or default is ABSENT else default


def _map_setdefault(call: Call, owner: Map) -> Any:
    key, *rest = call.args
    call.budget.deep(key)
    if key not in owner:
        owner.put(key, rest[0] if rest else None, call.at)
    return owner[key]


def _append(call: Call, owner: Seq) -> None:
    (value,) = call.args
    owner.add(value, call.args.marks[0])


def _insert(call: Call, owner: Seq) -> None:
    index, value = call.args
    call.budget.spend(len(owner))
    owner.insert_at(index, value, call.args.marks[1])


def _extend(call: Call, owner: Seq) -> None:
    (values,) = call.args
    extend(owner, values, call.budget)


def extend(owner: Seq, values: Any, budget: Budget) -> None:
    items = elements(values, budget)
    check_size(len(owner) + len(items), "The list")
    owner.absorb(Seq(items, element_marks(values)))


def _list_pop(budget: Budget, owner: Seq, index: int = -1) -> Any:
    budget.spend(len(owner))
    return owner.take(index)


def _values(budget: Budget, owner: Map) -> Seq:
    budget.spend(len(owner))
    return Seq(owner.values(), [owner.marks.get(key) for key in owner])


def _pairs(budget: Budget, owner: Map) -> list[Any]:
    budget.spend(len(owner))
    return [Tup(pair, (None, owner.marks.get(pair[0]))) for pair in owner.items()]


def _join(budget: Budget, owner: str, values: Any) -> str:
    items = elements(values, budget)
    size = sum(len(item) + len(owner) for item in items if isinstance(item, str))
    check_size(size, "The text")
    budget.spend(size)
    return owner.join(items)


def _replace(budget: Budget, owner: str, old: str, new: str, count: int = -1) -> str:
    size = len(owner) + (owner.count(old) + 1) * len(new)
    check_size(size, "The text")
    budget.spend(size)
    return owner.replace(old, new, count)


def _method(function: Callable[..., Any]) -> Callable[[Call, Any], Any]:
    return lambda call, owner: wrapped(function(call.budget, owner, *call.args, **call.kwargs))


def _text_method(name: str) -> Callable[[Call, Any], Any]:
    function = getattr(str, name)

    def called(budget: Budget, owner: str, *args: Any, **kwargs: Any) -> Any:
        budget.spend(len(owner) + 1)
        args = tuple(tuple(arg) if isinstance(arg, tuple) else arg for arg in args)
        return function(owner, *args, **kwargs)

    return _method(called)


TEXT_METHODS = ("split", "strip", "lower", "upper", "startswith", "endswith", "lstrip", "rstrip")
METHODS: dict[type, dict[str, Callable[[Call, Any], Any]]] = {
    Map: {
        "update": lambda call, owner: update(owner, call),
        "copy": _method(shallow_copy),
        "pop": _method(_map_pop),
        "keys": _method(lambda budget, owner: elements(owner, budget)),
        "values": _method(_values),
        "items": _method(_pairs),
        "get": _method(_map_get),
        "setdefault": _map_setdefault,
    },
    Seq: {
        "append": _append,
        "extend": _extend,
        "insert": _insert,
        "pop": _method(_list_pop),
        "copy": _method(shallow_copy),
    },
    set: {"copy": _method(shallow_copy)},
    str: {
        **{name: _text_method(name) for name in TEXT_METHODS},
        "join": _method(_join),
        "replace": _method(_replace),
        "format": lambda call, owner: braces(owner, call.budget, call.args, call.kwargs),
    },
}
