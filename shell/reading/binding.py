"""Assignment in the Python dialect: to names, items, keys by attribute, and tuples of those."""

import ast
from collections.abc import Callable
from typing import Any

from shell.reading.evaluating import Evaluator, item_index, kind
from shell.reading.faults import Fault
from shell.reading.limits import check_size
from shell.reading.marked import Map, Seq
from shell.reading.names import is_dunder, needs_execution
from shell.reading.operating import elements


def bind(ev: Evaluator, target: ast.expr, value: Any) -> None:
    """Assign to a name, an item, a mapping's attribute, or a tuple of those."""
    handler = TARGETS.get(type(target))
    if handler is None:
        raise needs_execution(f"Assigning to {ev.quoted(target)}")
    handler(ev, target, value)


def _bind_name(ev: Evaluator, target: ast.Name, value: Any) -> None:
    if target.id == "_base_":
        remedy = "Write _base_ = 'file.py' once, at the top level of the file."
        raise Fault("FK005", "_base_ is set inside another statement.", remedy, at=ev.at(target))
    ev.scope.put(target.id, value, ev.at(target))


def _bind_item(ev: Evaluator, target: ast.Subscript, value: Any) -> None:
    owner = ev.eval(target.value)
    index = item_index(ev, target.slice)
    if isinstance(owner, Seq) and isinstance(index, slice):
        items = list(owner)
        items[index] = elements(value, ev.budget)
        check_size(len(items), "The list")
        owner.clear()
        owner.marks.clear()
        owner.absorb(items)
        ev.budget.spend(len(items))
    elif isinstance(owner, Map | Seq):
        owner.put(index, value, ev.at(target))
    else:
        raise TypeError(f"a {kind(owner)} does not support item assignment")


def _bind_attribute(ev: Evaluator, target: ast.Attribute, value: Any) -> None:
    owner = ev.resolve(target.value)
    if is_dunder(target.attr) or not isinstance(owner, Map):
        raise needs_execution(f'Setting the attribute ".{target.attr}"')
    owner.put(target.attr, value, ev.at(target))


def _bind_several(ev: Evaluator, target: ast.Tuple | ast.List, value: Any) -> None:
    values = elements(value, ev.budget)
    starred = [index for index, part in enumerate(target.elts) if isinstance(part, ast.Starred)]
    if starred:
        first, after = starred[0], len(target.elts) - starred[0] - 1
        if len(values) < first + after:
            raise ValueError(f"not enough values to unpack: {len(values)}")
        end = len(values) - after
        values = [*values[:first], Seq(values[first:end]), *values[end:]]
    if len(values) != len(target.elts):
        raise ValueError(f"{len(target.elts)} names for {len(values)} values")
    for part, item in zip(target.elts, values, strict=True):
        bind(ev, part.value if isinstance(part, ast.Starred) else part, item)


TARGETS: dict[type[ast.expr], Callable[[Evaluator, Any, Any], None]] = {
    ast.Name: _bind_name,
    ast.Subscript: _bind_item,
    ast.Attribute: _bind_attribute,
    ast.Tuple: _bind_several,
    ast.List: _bind_several,
}
