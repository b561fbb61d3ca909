"""The functions a Python config may call: a closed table, each call bounded."""

from collections.abc import Callable
from typing import Any

from attrs import frozen

from shell.reading.faults import Position
from shell.reading.formatting import text
from shell.reading.limits import MAX_INT, Budget, check_size, too_much
from shell.reading.marked import Map, Seq, Tup, clone
from shell.reading.operating import add, element_marks, elements, power, wrapped

ABSENT: Any = object()
MAX_DIGITS = 100


@frozen
class Call:
    """Evaluated arguments, with the places they are written at."""

    args: Seq
    kwargs: Map
    budget: Budget
    at: Position


Builtin = Callable[[Call], Any]


def plain(function: Callable[..., Any]) -> Builtin:
    """A function of the budget and plain arguments; TypeErrors of a wrong signature speak for themselves."""

    def called(call: Call) -> Any:
        return wrapped(function(call.budget, *call.args, **call.kwargs))

    return called


def _scalar(function: Callable[..., Any]) -> Builtin:
    def paid(budget: Budget, *args: Any) -> Any:
        _pay(budget, args)
        return function(*args)

    return plain(paid)


def _pay(budget: Budget, args: tuple[Any, ...]) -> None:
    for arg in args:
        budget.deep(arg)


def _dict(call: Call) -> Map:
    made = Map()
    update(made, call)
    return made


def update(made: Map, call: Call) -> None:
    if len(call.args) > 1:
        raise TypeError(f"expected at most 1 argument, got {len(call.args)}")
    for arg in call.args:
        if isinstance(arg, Map):
            call.budget.spend(len(arg))
            made.absorb(arg)
        else:
            _update_pairs(made, arg, call)
    made.absorb(call.kwargs)


def _update_pairs(made: Map, pairs: Any, call: Call) -> None:
    for pair in elements(pairs, call.budget):
        key, value = elements(pair, call.budget)
        call.budget.deep(key)
        made.put(key, value, call.at)


def _list(budget: Budget, value: Any = ()) -> Seq:
    items = elements(value, budget)
    return Seq(items, element_marks(value) if isinstance(value, Seq | Tup) else None)


def _tuple(budget: Budget, value: Any = ()) -> Tup:
    items = elements(value, budget)
    return Tup(items, element_marks(value) if isinstance(value, Seq | Tup) else None)


def _set(budget: Budget, value: Any = ()) -> set[Any]:
    budget.deep(value)
    return set(elements(value, budget))


def _range(budget: Budget, *args: int) -> list[int]:
    made = range(*args)
    check_size(max(made.stop - made.start, made.start - made.stop) // abs(made.step), "The range")
    budget.spend(len(made))
    return list(made)


def _round(_: Budget, number: Any, ndigits: int | None = None) -> Any:
    if ndigits is not None and abs(ndigits) > MAX_DIGITS:
        raise ValueError(f"ndigits is beyond {MAX_DIGITS}")
    return round(number, ndigits)


def _int(_: Budget, value: Any = 0, base: int | None = None) -> int:
    return int(value) if base is None else int(value, base)


def _pow(budget: Budget, base: Any, exponent: Any, modulus: int | None = None) -> Any:
    if modulus is None:
        return power(base, exponent, budget)
    if max(map(abs, (base, exponent, modulus))) > MAX_INT:
        raise too_much("An argument of pow() is an integer beyond 64 bits", MAX_INT)
    return pow(base, exponent, modulus)


def _sum(budget: Budget, values: Any, start: Any = 0) -> Any:
    for value in elements(values, budget):
        start = add(start, value, budget)
    return start


def _sorted(budget: Budget, values: Any, reverse: Any = False) -> list[Any]:
    budget.deep(values)
    budget.deep(values)
    return sorted(elements(values, budget), reverse=bool(reverse))


def _extreme(pick: Callable[..., Any]) -> Builtin:
    def picked(budget: Budget, *args: Any, default: Any = ABSENT) -> Any:
        _pay(budget, args)
        values = elements(args[0], budget) if len(args) == 1 else args
        return pick(values) if default is ABSENT else pick(values, default=default)

    return plain(picked)


def _zip(budget: Budget, *args: Any, strict: Any = False) -> list[Any]:
    rows = zip(*[elements(arg, budget) for arg in args], strict=bool(strict))
    return [Tup(row) for row in rows]


def _enumerate(budget: Budget, values: Any, start: int = 0) -> list[Any]:
    return [Tup(pair) for pair in enumerate(elements(values, budget), start)]


def _over(function: Callable[..., Any]) -> Builtin:
    return plain(lambda budget, values: function(elements(values, budget)))


def deep_copy(budget: Budget, value: Any) -> Any:
    budget.deep(value)
    return clone(value)


def shallow_copy(budget: Budget, value: Any) -> Any:
    budget.spend(len(value) if isinstance(value, dict | list) else 1)
    if isinstance(value, Map):
        return value.duplicate()
    if isinstance(value, Seq):
        return Seq(value, value.marks)
    return set(value) if isinstance(value, set) else value


BUILTINS: dict[str, Builtin] = {
    "dict": _dict,
    "list": plain(_list),
    "tuple": plain(_tuple),
    "set": plain(_set),
    "round": plain(_round),
    "int": plain(_int),
    "float": _scalar(float),
    "str": plain(lambda budget, value="": text(value, budget)),
    "bool": plain(lambda _, value=False: bool(value)),
    "len": plain(lambda _, value: len(value)),
    "range": plain(_range),
    "min": _extreme(min),
    "max": _extreme(max),
    "abs": _scalar(abs),
    "sum": plain(_sum),
    "sorted": plain(_sorted),
    "zip": plain(_zip),
    "enumerate": plain(_enumerate),
    "reversed": _over(lambda items: items[::-1]),
    "any": _over(any),
    "all": _over(all),
    "divmod": plain(lambda _, left, right: divmod(left, right)),
    "pow": plain(_pow),
}

IMPORTED: dict[str, Builtin] = {"copy.deepcopy": plain(deep_copy), "copy.copy": plain(shallow_copy)}
