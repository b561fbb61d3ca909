"""Facts nobody can have observed: another kind or a count below zero. Every other rule rests on what passes here."""

import types
from collections.abc import Callable, Iterator
from functools import cache
from operator import attrgetter
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from flexcore.facts import Facts
from flexcore.problems import Problem, shown
from flexcore.rules import problem

LIMIT = 2**64  # entropy has 64 bits, and no count has more
FROM_ONE = frozenset({"world_size", "local_world_size", "train_batch_size"})
SIMPLE = frozenset({str, bool, types.NoneType})
Fits = Callable[[Any], bool]


def observed(facts: object) -> Iterator[Problem]:
    """A finding for each field that holds what no machine could show."""
    if not isinstance(facts, Facts):
        yield problem("FK024", ("facts",), f"must be flexcore.Facts, got {shown(facts)}.", "Pass Facts(...).")
        return
    for name, kind, fits in _fields(Facts):
        value = getattr(facts, name)
        if value is not None and not (fits(value) and (value != 0 or name not in FROM_ONE)):
            words = str(kind).replace("flexcore.facts.", "")
            least = " of at least 1" if name in FROM_ONE else ""
            text = f"must be {words}{least}, got {shown(value)}."
            yield problem("FK024", ("facts", name), text, "Leave out what is unknown.")


@cache
def _fields(cls: type) -> tuple[tuple[str, Any, Fits], ...]:
    return tuple((field.name, field.type, _fits(field.type)) for field in attrs.fields(cls))


@cache
def _fits(kind: Any) -> Fits:
    """Whether a value is of the annotated kind, all the way down; integers are counts."""
    if kind is int:
        return lambda value: type(value) is int and 0 <= value < LIMIT
    if kind is float:
        return lambda value: type(value) in (int, float)
    if get_origin(kind) in (Union, types.UnionType):
        return _any_of(get_args(kind))
    if get_origin(kind) is Literal:
        return get_args(kind).__contains__
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind))
    if attrs.has(kind):
        values, each = attrgetter(*(name for name, *_ in _fields(kind))), tuple(f for *_, f in _fields(kind))
        if len(each) == 1:
            return lambda value: type(value) is kind and each[0](values(value))
        return lambda value: type(value) is kind and all(map(_call, each, values(value)))
    return lambda value: type(value) is kind


def _call(fits: Fits, value: Any) -> bool:
    return fits(value)


def _any_of(kinds: tuple[Any, ...]) -> Fits:
    if SIMPLE.issuperset(kinds):
        return lambda value: type(value) in kinds
    each = tuple(_fits(kind) for kind in kinds)
    if kinds[1:] == (types.NoneType,):
        return lambda value: value is None or each[0](value)
    return lambda value: any(fits(value) for fits in each)


def _tuple(kinds: tuple[Any, ...]) -> Fits:
    if kinds[1:] == (...,):
        every = _fits(kinds[0])
        return lambda value: type(value) is tuple and all(every(item) for item in value)
    each = tuple(_fits(kind) for kind in kinds)
    return lambda value: type(value) is tuple and len(value) == len(each) and all(map(_call, each, value))
