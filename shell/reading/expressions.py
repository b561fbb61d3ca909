"""What each expression of the Python dialect means: a closed table from AST node to function."""

import ast
import builtins
from collections.abc import Callable
from typing import Any

from shell.reading.binding import bind
from shell.reading.evaluating import UNKNOWN, Evaluator, Meaning, entered, item_index, kind, missing, spread
from shell.reading.faults import Broken
from shell.reading.formatting import CONVERSIONS, formatted, text
from shell.reading.invoking import call, items
from shell.reading.limits import CONTAINERS, check_size, weight
from shell.reading.marked import Map, Seq, Tup, clone
from shell.reading.names import Alias, is_dunder, needs_execution
from shell.reading.operating import BINARY, UNARY, compared, elements, wrapped


def _constant(ev: Evaluator, node: ast.Constant) -> Any:
    value = node.value
    if isinstance(value, str):
        ev.budget.spend(len(value))
        return _own(ev, ev.templates.fill(value))
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"a {type(value).__name__} is not config data")  # FAILURES words it


def _name(ev: Evaluator, node: ast.Name) -> Any:
    name = node.id
    if name == "_base_":
        if ev.templates.broken:
            raise Broken
        if ev.templates.base is not None:
            return ev.templates.base
    value = ev.scope.get(name, UNKNOWN)
    if value is not UNKNOWN:
        return value
    if name in ev.scope or not ev.complete:
        raise Broken
    if is_dunder(name) or hasattr(builtins, name):
        raise needs_execution(f'The Python name "{name}"')
    remedy = "Define it above this line, or put it in quotes if it is a string."
    raise missing(f'The name "{name}" is not defined', name, ev.scope, remedy)


def _attribute(ev: Evaluator, node: ast.Attribute) -> Any:
    if is_dunder(node.attr):
        raise needs_execution(f'The Python attribute ".{node.attr}"')
    owner = ev.resolve(node.value)
    if isinstance(owner, Alias):
        return owner.entered(node.attr)
    if not isinstance(owner, Map):
        raise needs_execution(f'The attribute ".{node.attr}" of a {kind(owner)}')
    return entered(owner, node.attr, ev.quoted(node.value))


def _subscript(ev: Evaluator, node: ast.Subscript) -> Any:
    owner = ev.eval(node.value)
    index = item_index(ev, node.slice)
    if isinstance(owner, Map):
        return entered(owner, index, ev.quoted(node.value))
    if not isinstance(index, slice):
        return owner[index]
    ev.budget.spend(len(owner))
    if isinstance(owner, Seq | Tup):
        return type(owner)(list(owner)[index], list(owner.marks)[index])
    return owner[index]


def _tuple(ev: Evaluator, node: ast.Tuple) -> Tup:
    made = items(ev, node.elts)
    return Tup(made, made.marks)


def _set(ev: Evaluator, node: ast.Set) -> Any:
    inner = node.elts[0]
    if len(node.elts) == 1 and isinstance(inner, ast.Set) and len(inner.elts) == 1:
        return _template(ev, inner.elts[0])
    made = items(ev, node.elts)
    ev.budget.deep(made)
    return set(made)


def _template(ev: Evaluator, node: ast.expr) -> Any:
    """`{{ _base_.x }}` without quotes parses as a set in a set, which Python itself never accepts."""
    dotted = _dotted(node)
    if not dotted:
        raise TypeError("a set cannot hold a set")
    if dotted in VARIABLES:
        return ev.templates.file_part(dotted)
    if not dotted.startswith("_base_."):
        return ev.eval(node)
    return _own(ev, ev.templates.fill(f"{{{{{dotted}}}}}"))


def _own(ev: Evaluator, value: Any) -> Any:
    """A copy of a base's value: statements may change it in place. Copying costs more than looking."""
    if isinstance(value, CONTAINERS):
        ev.budget.spend(10 * weight(value))
    return clone(value)


VARIABLES = ("fileDirname", "fileBasename", "fileBasenameNoExtension", "fileExtname")


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    owner = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{owner}.{node.attr}" if owner and isinstance(node, ast.Attribute) else ""


def _dict(ev: Evaluator, node: ast.Dict) -> Map:
    made = Map()
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            spread(ev, made, ev.eval(value))
        else:
            name = ev.eval(key)
            ev.budget.deep(name)
            made.put(name, ev.eval(value), ev.at(key))
    return made


def _binary(ev: Evaluator, node: ast.BinOp) -> Any:
    operation = BINARY.get(type(node.op))
    if operation is None:
        raise needs_execution("The operator @")
    return wrapped(operation(ev.eval(node.left), ev.eval(node.right), ev.budget))


def _unary(ev: Evaluator, node: ast.UnaryOp) -> Any:
    return UNARY[type(node.op)](ev.eval(node.operand))


def _boolean(ev: Evaluator, node: ast.BoolOp) -> Any:
    wanted = isinstance(node.op, ast.Or)
    value: Any = None
    for part in node.values:
        value = ev.eval(part)
        if bool(value) is wanted:
            return value
    return value


def _compare(ev: Evaluator, node: ast.Compare) -> bool:
    left = ev.eval(node.left)
    for operation, right_node in zip(node.ops, node.comparators, strict=True):
        right = ev.eval(right_node)
        if not compared(type(operation), left, right, ev.budget):
            return False
        left = right
    return True


def _conditional(ev: Evaluator, node: ast.IfExp) -> Any:
    return ev.resolve(node.body if ev.eval(node.test) else node.orelse)


def _joined(ev: Evaluator, node: ast.JoinedStr) -> str:
    pieces = [str(ev.eval(part)) for part in node.values]
    check_size(sum(map(len, pieces)), "The text")
    ev.budget.spend(sum(map(len, pieces)))
    return "".join(pieces)


def _interpolated(ev: Evaluator, node: ast.FormattedValue) -> str:
    value = ev.eval(node.value)
    if node.conversion != -1:
        value = text(value, ev.budget, CONVERSIONS[chr(node.conversion)])
    spec = str(ev.eval(node.format_spec)) if node.format_spec else ""
    return formatted(value, spec, ev.budget)


def _comprehension(ev: Evaluator, generators: list[ast.comprehension], emit: Callable[[], None]) -> None:
    """Runs `emit` for each combination; the loop names are as before afterwards."""
    names = {part.id for loop in generators for part in ast.walk(loop.target) if isinstance(part, ast.Name)}
    before = {name: ev.scope[name] for name in names & ev.scope.keys()}
    marks = {name: ev.scope.marks.get(name) for name in before}
    try:
        _loop(ev, generators, emit)
    finally:
        for name in names & ev.scope.keys():
            ev.scope.take(name)
        for name, value in before.items():
            ev.scope.put(name, value, marks[name])


def _loop(ev: Evaluator, generators: list[ast.comprehension], emit: Callable[[], None]) -> None:
    if not generators:
        emit()
        return
    loop = generators[0]
    if loop.is_async:
        raise needs_execution("An async comprehension")
    for item in elements(ev.eval(loop.iter), ev.budget):
        ev.budget.step()
        bind(ev, loop.target, item)
        if all(ev.eval(test) for test in loop.ifs):
            _loop(ev, generators[1:], emit)


def _list_comprehension(ev: Evaluator, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> Seq:
    made = Seq()
    _comprehension(ev, node.generators, lambda: made.add(ev.eval(node.elt), ev.at(node.elt)))
    return made


def _set_comprehension(ev: Evaluator, node: ast.SetComp) -> set[Any]:
    items = _list_comprehension(ev, node)
    ev.budget.deep(items)
    return set(items)


def _dict_comprehension(ev: Evaluator, node: ast.DictComp) -> Map:
    made = Map()

    def emit() -> None:
        key = ev.eval(node.key)
        ev.budget.deep(key)
        made.put(key, ev.eval(node.value), ev.at(node.key))

    _comprehension(ev, node.generators, emit)
    return made


EXPRESSIONS: dict[type[ast.AST], Meaning] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.List: lambda ev, node: items(ev, node.elts),
    ast.Tuple: _tuple,
    ast.Set: _set,
    ast.Dict: _dict,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.BoolOp: _boolean,
    ast.Compare: _compare,
    ast.IfExp: _conditional,
    ast.JoinedStr: _joined,
    ast.FormattedValue: _interpolated,
    ast.Call: call,
    ast.ListComp: _list_comprehension,
    ast.GeneratorExp: _list_comprehension,
    ast.SetComp: _set_comprehension,
    ast.DictComp: _dict_comprehension,
}

REFUSED: dict[type[ast.AST], str] = {
    ast.Lambda: "A lambda",
    ast.NamedExpr: "An assignment expression (:=)",
    ast.Await: "await",
    ast.Yield: "yield",
    ast.YieldFrom: "yield from",
    ast.Starred: "A * outside a call or a list",
}
