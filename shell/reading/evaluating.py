"""The evaluator of the Python dialect: names, places and what is left to spend. Meanings come in as a table."""

import ast
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flexcore.problems import did_you_mean, shown
from shell.reading.faults import Fault, Position
from shell.reading.limits import MAX_BITS, MAX_NESTING, Budget, too_much
from shell.reading.marked import Map, Seq, Tup
from shell.reading.names import needs_execution, settled
from shell.reading.templates import Templates

UNKNOWN: Any = object()  # bound to names whose value is part of a reported problem
NO_FIX = "Correct the expression, or write the value out."
FAILURES = (
    TypeError,
    ValueError,
    ZeroDivisionError,
    LookupError,
    OverflowError,
    RecursionError,
    MemoryError,
    AttributeError,
)


LONG_LINE = 1_000

Meaning = Callable[["Evaluator", Any], Any]


class Evaluator:
    """One file's names and what is left to spend. `eval` is the only way into an expression."""

    def __init__(  # built in one place
        self,
        meanings: Mapping[type[ast.AST], Meaning],
        refused: Mapping[type[ast.AST], str],
        lines: list[str],
        name: str,
        budget: Budget,
        templates: Templates,
    ) -> None:
        self.meanings = meanings
        self.refused = refused
        self.lines = lines
        self.name = name
        self.budget = budget
        self.templates = templates
        self.scope = Map()
        self.complete = True  # False after a failed star import: any name may be missing for that reason
        self.depth = 0

    def at(self, node: ast.AST) -> Position:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        if not text.isascii() and len(text) < LONG_LINE:  # ast counts bytes
            column = len(text.encode("utf-8", "replace")[:column].decode("utf-8", "replace"))
        return Position(self.name, line, column + 1)

    def quoted(self, node: ast.AST) -> str:
        """The source of a node, for a message."""
        line = self.lines[node.lineno - 1] if hasattr(node, "lineno") else ""
        end = getattr(node, "end_col_offset", None)
        same = getattr(node, "end_lineno", 0) == getattr(node, "lineno", -1)
        piece = line.encode("utf-8", "replace")[getattr(node, "col_offset", 0) : end if same else None]
        return _short(piece.decode("utf-8", "replace").strip())

    def eval(self, node: ast.expr) -> Any:
        return settled(self.resolve(node))

    def resolve(self, node: ast.expr) -> Any:
        """The value, or the Alias of an imported name."""
        self.budget.step()
        self.depth += 1
        try:
            if self.depth > MAX_NESTING:
                raise too_much("The expression is nested too deeply", MAX_NESTING)
            return self._meant(node)
        except Fault as fault:
            fault.at = fault.at or self.at(node)
            raise
        except FAILURES as error:
            raise self.failure(node, error) from None
        finally:
            self.depth -= 1

    def _meant(self, node: ast.expr) -> Any:
        meaning = self.meanings.get(type(node))
        if meaning is None:
            raise needs_execution(self.refused.get(type(node), f"The construct {type(node).__name__}"))
        value = meaning(self, node)
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise too_much("The integer has too many bits", MAX_BITS)
        return value

    def failure(self, node: ast.AST, error: Exception) -> Fault:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else shown_reason(error)
        return Fault("FK007", f"{self.quoted(node)} fails: {reason}.", NO_FIX, at=self.at(node))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def shown_reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no key {shown(error.args[0])}"
    reason = str(error.args[0]) if error.args else type(error).__name__
    return reason.encode("ascii", "backslashreplace").decode()[:120].rstrip(".")


def missing(what: str, name: str, known: Iterable[Any], remedy: str) -> Fault:
    near = did_you_mean(name, (key for key in known if isinstance(key, str)))
    return Fault("FK007", f"{what}.{near}", remedy)


def entered(owner: Map, key: Any, name: str) -> Any:
    if key in owner:
        return owner[key]
    raise missing(f"{name} has no key {shown(key)}", str(key), iter(owner), "Name a key that is there.")


def kind(value: Any) -> str:
    names: dict[type, str] = {Map: "mapping", Seq: "list", Tup: "tuple", str: "string", type(None): "None"}
    return names.get(type(value), type(value).__name__)


def item_index(ev: Evaluator, node: ast.expr) -> Any:
    if isinstance(node, ast.Slice):
        return slice(*(part and ev.eval(part) for part in (node.lower, node.upper, node.step)))
    key = ev.eval(node)
    ev.budget.deep(key)
    return key


def spread(ev: Evaluator, made: Map, other: Any) -> None:
    if not isinstance(other, Map):
        raise TypeError(f"** needs a mapping, not a {kind(other)}")
    ev.budget.spend(len(other))
    made.absorb(other)
