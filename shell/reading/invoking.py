"""Calls in the Python dialect: which of the allowed functions or methods one names, and its arguments."""

import ast
from typing import Any

from shell.reading.calling import BUILTINS, IMPORTED, Call
from shell.reading.evaluating import UNKNOWN, Evaluator, kind, spread
from shell.reading.faults import Broken
from shell.reading.limits import check_size
from shell.reading.marked import Map, Seq
from shell.reading.methods import METHODS
from shell.reading.names import WRITE_PLAIN, Alias, is_dunder, needs_execution
from shell.reading.operating import element_marks, elements


def items(ev: Evaluator, nodes: list[ast.expr]) -> Seq:
    made = Seq()
    for node in nodes:
        if isinstance(node, ast.Starred):
            values = ev.eval(node.value)
            made.absorb(Seq(elements(values, ev.budget), element_marks(values)))
            check_size(len(made), "The list")
        else:
            made.add(ev.eval(node), ev.at(node))
    return made


def call(ev: Evaluator, node: ast.Call) -> Any:
    function = node.func
    if isinstance(function, ast.Attribute):
        return _method(ev, node, function)
    if isinstance(function, ast.Name):
        bound = ev.scope.get(function.id)
        if bound is UNKNOWN:
            raise Broken
        if isinstance(bound, Alias):
            return _imported(ev, node, bound)
        if function.id in BUILTINS and function.id not in ev.scope:
            return BUILTINS[function.id](_arguments(ev, node))
    raise needs_execution(f"The call {ev.quoted(node)}")


def _method(ev: Evaluator, node: ast.Call, function: ast.Attribute) -> Any:
    if is_dunder(function.attr):
        raise needs_execution(f'The Python attribute ".{function.attr}"')
    owner = ev.resolve(function.value)
    if isinstance(owner, Alias):
        return _imported(ev, node, owner.entered(function.attr))
    method = METHODS.get(type(owner), {}).get(function.attr)
    if method is None:
        raise needs_execution(f"The call {ev.quoted(node)} (a {kind(owner)} has no such method here)")
    return method(_arguments(ev, node), owner)


def _imported(ev: Evaluator, node: ast.Call, alias: Alias) -> Any:
    if alias.dotted not in IMPORTED:
        remedy = f'Write dict(type="{alias.reference}", ...): the runner builds it when it runs.'
        a_class = alias.dotted.rpartition(".")[2][:1].isupper()
        raise needs_execution(f"The call {ev.quoted(node)}", remedy if a_class else WRITE_PLAIN)
    return IMPORTED[alias.dotted](_arguments(ev, node))


def _arguments(ev: Evaluator, node: ast.Call) -> Call:
    kwargs = Map()
    for keyword in node.keywords:
        if keyword.arg is None:
            spread(ev, kwargs, ev.eval(keyword.value))
        else:
            kwargs.put(keyword.arg, ev.eval(keyword.value), ev.at(keyword))
    if not all(isinstance(key, str) for key in kwargs):
        raise TypeError("keywords must be strings")
    return Call(items(ev, node.args), kwargs, ev.budget, ev.at(node))
