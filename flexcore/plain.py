"""Whatever a config mapping holds, as plain data of our own: bounded, acyclic, and nothing from outside called."""

from collections.abc import Mapping
from typing import Any

from flexcore.components import Supplied
from flexcore.problems import Path, Problem, shown
from flexcore.rules import problem

MAX_DEPTH = 64
MAX_INT = 2**63
MAX_VALUES = 250_000
CONTAINERS = (dict, list, tuple, set, frozenset, Mapping)  # the abstract one last: asking for it is slow


def plain(value: Any, problems: list[Problem]) -> Any:
    """A copy of `value` as plain data; whatever is not plain is reported and replaced by None.

    Classes and functions become their "module:qualname"; subclasses of dict, list, str and numbers become
    the plain kind. What holds too many values is reported alone, and all of it is None.
    """
    try:
        return _Walk(problems).value(value, ())
    except _TooMuch as error:
        text = f"holds more than {MAX_VALUES:,} values, counted from the top of the config."
        problems[:] = [problem("FK015", error.args[0][:2], text, "Keep data in files of its own.")]
        return None


class _TooMuch(Exception):  # noqa: N818
    """Its argument is the path that was looked at."""


class _Walk:
    """One walk over a value: what is open above (a value inside itself never ends), and how much was seen."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.open: set[int] = set()
        self.seen = 0

    def value(self, value: Any, path: Path) -> Any:
        kind = type(value)
        if kind is str or value is None or kind is bool or kind is float:
            return value
        if isinstance(value, CONTAINERS):
            return self.container(value, path)
        return self.leaf(value, path)

    def container(self, value: Any, path: Path) -> Any:
        self.seen += len(value) + 1
        if self.seen > MAX_VALUES:
            raise _TooMuch(path)
        if len(path) > MAX_DEPTH:
            return self.refuse(path, f"is nested deeper than {MAX_DEPTH} levels.", "Flatten the value.")
        if id(value) in self.open:
            return self.refuse(path, "holds itself, so it never ends.", "Write the values out.")
        self.open.add(id(value))
        try:
            if isinstance(value, list | tuple):
                items = [self.value(item, (*path, i)) for i, item in enumerate(value)]
                return items if isinstance(value, list) else tuple(items)
            return (
                self.members(value, path) if isinstance(value, set | frozenset) else self.mapping(value, path)
            )
        finally:
            self.open.discard(id(value))

    def mapping(self, value: Mapping[Any, Any], path: Path) -> dict[Any, Any]:
        result = {}
        for key, item in value.items():
            if isinstance(key, str):
                plain_key: str | int = str.__str__(key)
            elif isinstance(key, int) and not isinstance(key, bool) and abs(int.__index__(key)) < MAX_INT:
                plain_key = int.__index__(key)
            else:
                self.refuse(path, f"has the key {shown(key)}; keys are text or integers.", "Rename the key.")
                continue
            result[plain_key] = self.value(item, (*path, plain_key))
        return result

    def members(self, value: Any, path: Path) -> set[Any]:
        kept = {item for item in value if item is None or type(item) in (str, int, bool, float)}
        if len(kept) != len(value):
            self.refuse(path, f"is a set holding more than scalars: {shown(value)}.", "Use a list.")
        return {self.value(item, path) for item in kept}

    def leaf(self, value: Any, path: Path) -> Any:
        if isinstance(value, Supplied):
            return value
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            number = int.__index__(value)
            if abs(number) < MAX_INT:
                return number
            return self.refuse(path, "is an integer beyond 64 bits.", "Use a smaller number.")
        if isinstance(value, bytes | bytearray | complex):
            return self.refuse(
                path, f"is {type(value).__name__}, which no config file can hold.", "Write text or numbers."
            )
        if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
            return self.import_path(value, path)
        return self.object(value, path)

    def object(self, value: Any, path: Path) -> None:
        kind = type(value)
        text = f"is a live object ({kind.__module__}.{kind.__qualname__}), and a config holds plain data."
        remedy = "Put flexcore.Supplied() here and pass the object to shell.execute(plan, ...)."
        if hasattr(kind, "__fspath__"):
            remedy = "Write the path as text: str(path)."
        self.problems.append(problem("FK016", path, text, remedy))

    def import_path(self, value: Any, path: Path) -> Any:
        name = f"{getattr(value, '__module__', None)}:{value.__qualname__}"
        if "<" in name or name.startswith("None:"):
            return self.refuse(
                path, f"is {name}, which no other process can import.", "Define it at module level."
            )
        return name

    def refuse(self, path: Path, message: str, remedy: str) -> Any:
        self.problems.append(problem("FK015", path, message, remedy))
        return None  # what stands in for the value
