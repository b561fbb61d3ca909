"""What each statement of mmengine's Python dialect does to a file's names: a closed table, followed one by one."""

import ast
from collections.abc import Callable
from typing import Any, Protocol

from flexcore.problems import shown
from shell.reading.binding import bind
from shell.reading.evaluating import FAILURES, UNKNOWN, Evaluator, item_index, spread
from shell.reading.faults import Broken, Fault, Position
from shell.reading.limits import MAX_PROBLEMS, Budget
from shell.reading.marked import Map, Seq, clone
from shell.reading.methods import extend
from shell.reading.names import Alias, Namespace, needs_execution
from shell.reading.operating import BINARY, elements

MOVE_IMPORT = "Put it inside `with read_base():`, which is how a config takes names from another config."


class Bases(Protocol):
    """What a config may ask of the files around it."""

    faults: list[Fault]
    budget: Budget

    def inherited(self, names: Any, owner: str, at: Position) -> Map:
        """The merged `_base_` files. Raises Broken once their problems are reported."""
        ...

    def module(self, level: int, name: str, owner: str, at: Position) -> Namespace:
        """The config a relative import names. Raises Broken once its problems are reported."""
        ...


class _Break(Exception):  # noqa: N818  # control flow, as in Python itself
    pass


class _Continue(Exception):  # noqa: N818
    pass


def is_base(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return len(targets) == 1 and isinstance(targets[0], ast.Name) and targets[0].id == "_base_"


class File:
    """The statements of one file, in order, each problem reported and stepped over."""

    def __init__(self, ev: Evaluator, path: str, files: Bases) -> None:
        self.ev = ev
        self.path = path
        self.files = files

    def namespace(self) -> Namespace:
        values, aliases = Map(), {}
        for name, value in self.ev.scope.items():
            if isinstance(value, Alias):
                aliases[name] = value
            elif not name.startswith("__"):
                values.put(name, value, self.ev.scope.marks.get(name))
        return Namespace(values, aliases)

    def block(self, nodes: list[ast.stmt], *, top: bool = False) -> None:
        for node in nodes:
            if top and is_base(node):
                continue
            try:
                self.statement(node)
            except Broken:
                self.poison(node)
            except Fault as fault:
                self.report(fault, node, top=top)
            except FAILURES as error:
                self.report(self.ev.failure(node, error), node, top=top)

    def report(self, fault: Fault, node: ast.stmt, *, top: bool) -> None:
        fault.at = fault.at or self.ev.at(node)
        if fault.fatal or len(self.files.faults) + 1 >= MAX_PROBLEMS:
            fault.fatal = True
            raise fault
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if top and isinstance(target, ast.Name) and not fault.path:
            fault.path = (target.id,)
        self.files.faults.append(fault)
        self.poison(node)

    def poison(self, node: ast.stmt) -> None:
        """Names this statement would have changed are unknown now; using them is not reported again."""
        for part in ast.walk(node):
            stored = isinstance(getattr(part, "ctx", None), ast.Store | ast.Del)
            if isinstance(part, ast.Name) and stored:
                self.ev.scope.put(part.id, UNKNOWN, None)
            elif stored or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Call)):
                self._poison_root(part)
            elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.ev.scope.put(part.name, UNKNOWN, None)

    def _poison_root(self, part: Any) -> None:
        while isinstance(part, ast.Attribute | ast.Subscript | ast.Call | ast.Expr | ast.Starred):
            part = part.func if isinstance(part, ast.Call) else part.value
        if isinstance(part, ast.Name) and part.id in self.ev.scope:
            self.ev.scope.put(part.id, UNKNOWN, None)

    def statement(self, node: ast.stmt) -> None:
        self.ev.budget.step()
        handler = STATEMENTS.get(type(node))
        if handler is None:
            raise needs_execution(REFUSED_STATEMENTS.get(type(node), f"A {type(node).__name__} statement"))
        handler(self, node)

    def assign(self, node: ast.Assign) -> None:
        value = self.ev.eval(node.value)
        for target in node.targets:
            bind(self.ev, target, value)

    def annotated(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            bind(self.ev, node.target, self.ev.eval(node.value))

    def augmented(self, node: ast.AugAssign) -> None:
        operation = BINARY.get(type(node.op))
        if operation is None:
            raise needs_execution("The operator @")
        old, new = self.ev.eval(node.target), self.ev.eval(node.value)
        if isinstance(node.op, ast.Add) and isinstance(old, Seq):
            extend(old, new, self.ev.budget)
        elif isinstance(node.op, ast.BitOr) and isinstance(old, Map):
            spread(self.ev, old, new)
        else:
            bind(self.ev, node.target, operation(old, new, self.ev.budget))

    def expression(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.ev.eval(node.value)

    def branch(self, node: ast.If) -> None:
        self.block(node.body if self.ev.eval(node.test) else node.orelse)

    def loop(self, node: ast.For) -> None:
        before = len(self.files.faults)
        for item in elements(self.ev.eval(node.iter), self.ev.budget):
            self.ev.budget.step()
            bind(self.ev, node.target, item)
            try:
                self.block(node.body)
            except _Break:
                return
            except _Continue:
                continue
            if len(self.files.faults) > before:
                raise Broken  # one report is enough; what the loop changes is unknown
        self.block(node.orelse)

    def remove(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.ev.eval(target)
                self.ev.scope.take(target.id)
            elif isinstance(target, ast.Subscript | ast.Attribute):
                self._remove_item(target)
            else:
                raise needs_execution(f"del {self.ev.quoted(target)}")

    def _remove_item(self, target: ast.Subscript | ast.Attribute) -> None:
        owner = self.ev.eval(target.value)
        key: Any = target.attr if isinstance(target, ast.Attribute) else item_index(self.ev, target.slice)
        if isinstance(owner, Map) or (isinstance(owner, Seq) and isinstance(key, int)):
            self.ev.budget.spend(len(owner))
            owner.take(key)
        else:
            raise TypeError("only an item of a mapping or a list can be deleted")

    def imported(self, node: ast.Import) -> None:
        for alias in node.names:
            module = alias.name if alias.asname else alias.name.split(".")[0]
            self.ev.scope.put(alias.asname or module, Alias(module), self.ev.at(node))

    def imported_from(self, node: ast.ImportFrom) -> None:
        if node.level:
            raise Fault("FK005", "A relative import outside `with read_base():`.", MOVE_IMPORT)
        for alias in node.names:
            if alias.name == "*":
                raise needs_execution(f"from {node.module} import *", "Import the names one by one.")
            if node.module != "__future__":
                bound = Alias(node.module or "", (alias.name,))
                self.ev.scope.put(alias.asname or alias.name, bound, self.ev.at(node))

    def read_base(self, node: ast.With) -> None:
        if len(node.items) != 1 or not _is_read_base(node.items[0]):
            raise needs_execution("A with statement")
        for inner in node.body:
            if isinstance(inner, ast.ImportFrom) and inner.level and inner.module:
                self._take_names(inner)
            elif not isinstance(inner, ast.Pass):
                message = f"{self.ev.quoted(inner)} cannot stand inside read_base()."
                remedy = "Use relative imports there: from .file import *."
                self.files.faults.append(Fault("FK005", message, remedy, at=self.ev.at(inner)))
                self.ev.complete = False

    def _take_names(self, node: ast.ImportFrom) -> None:
        try:
            found = self.files.module(node.level, node.module or "", self.path, self.ev.at(node))
        except Broken:
            self.ev.complete = False
            return
        values = clone(found.values)
        for alias in node.names:
            if alias.name == "*":
                self._take_all(values, found.aliases)
            elif alias.name in values or alias.name in found.aliases:
                value = values.get(alias.name, found.aliases.get(alias.name))
                self.ev.scope.put(alias.asname or alias.name, value, values.marks.get(alias.name))
            else:
                self._no_such_name(alias.name, node)

    def _take_all(self, values: Map, aliases: dict[str, Alias]) -> None:
        self.ev.scope.update(aliases)
        for name, value in values.items():
            if not str(name).startswith("_"):
                self.ev.scope.put(name, value, values.marks.get(name))

    def _no_such_name(self, name: str, node: ast.ImportFrom) -> None:
        message = f'"{"." * node.level}{node.module}" defines no {shown(name)}.'
        remedy = "Import a name that the base config sets."
        self.files.faults.append(Fault("FK005", message, remedy, at=self.ev.at(node)))
        self.ev.scope.put(name, UNKNOWN, None)

    def stop(self, _: ast.Break) -> None:
        raise _Break

    def skip(self, _: ast.Continue) -> None:
        raise _Continue

    def nothing(self, _: ast.Pass) -> None:
        pass


def _is_read_base(item: ast.withitem) -> bool:
    call = item.context_expr
    if not isinstance(call, ast.Call) or call.args or call.keywords or item.optional_vars:
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return bool(name == "read_base")


STATEMENTS: dict[type[ast.stmt], Callable[[File, Any], None]] = {
    ast.Assign: File.assign,
    ast.AnnAssign: File.annotated,
    ast.AugAssign: File.augmented,
    ast.Expr: File.expression,
    ast.If: File.branch,
    ast.For: File.loop,
    ast.Delete: File.remove,
    ast.Import: File.imported,
    ast.ImportFrom: File.imported_from,
    ast.With: File.read_base,
    ast.Break: File.stop,
    ast.Continue: File.skip,
    ast.Pass: File.nothing,
}

REFUSED_STATEMENTS: dict[type[ast.stmt], str] = {
    ast.FunctionDef: "A function definition",
    ast.AsyncFunctionDef: "A function definition",
    ast.ClassDef: "A class definition",
    ast.While: "A while loop",
    ast.AsyncFor: "An async loop",
    ast.AsyncWith: "An async with statement",
    ast.Try: "A try statement",
    ast.TryStar: "A try statement",
    ast.Raise: "A raise statement",
    ast.Assert: "An assert statement",
    ast.Match: "A match statement",
    ast.Global: "A global statement",
    ast.Nonlocal: "A nonlocal statement",
    ast.Return: "A return statement",
}
