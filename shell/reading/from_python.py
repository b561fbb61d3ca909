"""A file in mmengine's Python dialect: its syntax tree, its `_base_`, its names; nothing is compiled or run."""

import ast
import re
import warnings
from typing import Any

from shell.reading.evaluating import UNKNOWN, Evaluator
from shell.reading.expressions import EXPRESSIONS, REFUSED
from shell.reading.faults import Broken, Fault, Position
from shell.reading.marked import Map, clone
from shell.reading.names import Namespace
from shell.reading.statements import Bases, File, is_base
from shell.reading.templates import Templates
from shell.reading.values import bare_value

UNQUOTED = re.compile(r"\{\{\s*\$\w+\s*:\s*[^\s{}]*\s*\}\}")


def read_python(text: str, path: str, name: str, files: Bases) -> tuple[Namespace, Map | None]:
    """The file's own names, and its `_base_` if it has one."""
    unquoted: list[str] = []
    tree = _parsed(text, name, unquoted)
    lines = text.split("\n")
    base, broken = _base(tree, lines, path, name, files)
    templates = Templates(
        path=path, budget=files.budget, base=clone(base), broken=broken, hidden=tuple(unquoted)
    )
    file = File(Evaluator(EXPRESSIONS, REFUSED, lines, name, files.budget, templates), path, files)
    for index, template in enumerate(unquoted):
        file.ev.scope.put(f"__e{index}", _environment(template, templates), None)
    file.block(tree.body, top=True)
    if broken:
        raise Broken
    return file.namespace(), base


def _parsed(text: str, name: str, unquoted: list[str]) -> ast.Module:
    try:
        return _syntax_tree(text)
    except SyntaxError:
        hidden = UNQUOTED.sub(lambda match: _hidden(match, unquoted), text)
        try:
            return _syntax_tree(hidden if unquoted else text)
        except SyntaxError as error:
            at = Position(name, error.lineno or 1, max(error.offset or 0, 0))
            message = f"Python syntax error: {error.msg}."
            raise Fault("FK002", message, "Correct the Python there.", at=at) from None
    except (ValueError, MemoryError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, MemoryError | RecursionError) else str(error)
        at = Position(name, 1, 0)
        raise Fault("FK002", f"Python syntax error: {reason}.", "Correct the file.", at=at) from None


def _syntax_tree(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (MemoryError, RecursionError):
            raise ValueError("it is nested too deeply") from None


def _hidden(match: re.Match[str], unquoted: list[str]) -> str:
    """`{{$VAR:1}}` is no Python; a name in its place is. `{{ name }}` means name, see expressions."""
    unquoted.append(match[0])
    return "{{" + f"__e{len(unquoted) - 1}".ljust(len(match[0]) - 4) + "}}"


def _environment(template: str, templates: Templates) -> Any:
    try:
        return bare_value(str(templates.fill(template)))
    except (Fault, ValueError):
        return UNKNOWN


def _base(tree: ast.Module, lines: list[str], path: str, name: str, files: Bases) -> tuple[Map | None, bool]:
    """The merged bases named by the file's `_base_ = ...`, and whether they are broken."""
    node = next((node for node in tree.body if is_base(node)), None)
    if not isinstance(node, ast.Assign):
        return None, False
    ev = Evaluator(EXPRESSIONS, REFUSED, lines, name, files.budget, Templates(path=path, budget=files.budget))
    try:
        return files.inherited(ev.eval(node.value), path, ev.at(node)), False
    except Broken:
        return None, True
    except Fault as fault:
        files.faults.append(fault)
        return None, True
