"""One read: a file and its bases, each parsed once, laid over each other. Formats are chosen here, not parsed."""

import os
from collections.abc import Callable
from typing import Any

from flexcore.problems import did_you_mean, shown
from shell.reading.faults import Broken, Fault, Position
from shell.reading.limits import MAX_BASES, MAX_FILES, MAX_PROBLEMS, Budget
from shell.reading.marked import Map, Seq, Tup, check_whole
from shell.reading.merging import merged, united
from shell.reading.names import Namespace
from shell.reading.templates import Templates, filled, filled_at
from shell.reading.text import file_text

Parser = Callable[[str, str, list[Fault]], Any]
EXTENSIONS = (".py", ".json", ".toml", ".yaml", ".yml")


def _parser(extension: str) -> Parser:
    if extension == ".json":
        from shell.reading.from_json import read_json

        return read_json
    if extension == ".toml":
        from shell.reading.from_toml import read_toml

        return read_toml
    from shell.reading.from_yaml import read_yaml

    return read_yaml


class Loader:
    """What one read has seen so far. Problems are collected; a file that has any is never used."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.budget = Budget()
        self.done: dict[str, Namespace | None] = {}  # None: read, and found broken
        self.open: list[str] = []

    def config(self, path: str) -> Map:
        """The whole config. Raises Broken; `faults` says why."""
        values = self.file(path, os.path.normpath(path), Position(os.path.normpath(path), 1, 0)).values
        public = Map()
        for key, value in values.items():
            if not str(key).startswith("_"):
                public.put(key, value, values.marks.get(key))
        return public

    def file(self, path: str, name: str, at: Position) -> Namespace:
        real = _real(path)
        if real in self.open:
            raise self.broken(_cycle(name, at))
        if real not in self.done:
            self.open.append(real)
            self.done[real] = self._attempt(path, name)
            self.open.pop()
        found = self.done[real]
        if found is None:
            raise Broken
        return found

    def broken(self, fault: Fault) -> Broken:
        self.faults.append(fault)
        return Broken()

    def _attempt(self, path: str, name: str) -> Namespace | None:
        before = len(self.faults)
        try:
            found = self._read(path, name)
            check_whole(found.values)
        except Broken:
            return None
        except Fault as fault:
            fault.at = fault.at or Position(name, 1, 0)
            self.faults.append(fault)
            if fault.fatal:
                raise
            return None
        return found if len(self.faults) == before else None

    def _read(self, path: str, name: str) -> Namespace:
        extension = os.path.splitext(path)[1].lower()
        if extension not in EXTENSIONS:
            raise _unknown_format(name, extension)
        if len(self.open) > MAX_BASES or len(self.done) >= MAX_FILES:
            message = f"Bases go beyond {MAX_BASES} levels or {MAX_FILES} files."
            raise Fault("FK005", message, "Flatten the inheritance.", at=Position(name, 1, 0))
        text = file_text(path, name)
        if extension == ".py":
            return self._python(text, path, name)
        return Namespace(self._data(_parser(extension)(text, name, self.faults), path, name), {})

    def _python(self, text: str, path: str, name: str) -> Namespace:
        from shell.reading.from_python import read_python

        own, base = read_python(text, path, name, self)
        check_whole(own.values)
        if base is None:
            return own
        return Namespace(merged(base, own.values, self.faults), own.aliases)

    def _data(self, value: Any, path: str, name: str) -> Map:
        if not isinstance(value, Map):
            message = f'"{name}" holds {shown(value)} where a config needs a mapping at the top.'
            raise Fault("FK002", message, "Write keys and values.", at=Position(name, 1, 0))
        check_whole(value)
        base, broken = self._data_base(value, path, name)
        own = value.duplicate()
        own.pop("_base_", None)
        templates = Templates(path=path, budget=self.budget, base=base, broken=broken)
        made: Map = filled(own, templates, self.faults)
        if broken:
            raise Broken
        return made if base is None else merged(base, made, self.faults)

    def _data_base(self, value: Map, path: str, name: str) -> tuple[Map | None, bool]:
        """What the `_base_` key of a data file stands for, and whether it is broken."""
        names, at = value.get("_base_"), value.marks.get("_base_") or Position(name, 1, 0)
        if names is None:
            return None, False
        before = len(self.faults)
        names = filled_at(names, at, Templates(path=path, budget=self.budget), self.faults)
        try:
            return (None, True) if len(self.faults) > before else (self.inherited(names, path, at), False)
        except Broken:
            return None, True

    def inherited(self, names: Any, owner: str, at: Position) -> Map:
        """The merged `_base_` files of `owner`."""
        listed = [names] if isinstance(names, str) else names
        if not isinstance(listed, Seq | Tup | list) or not all(isinstance(name, str) for name in listed):
            message = f"_base_ is {shown(names)}, not a file name or a list of them."
            raise self.broken(Fault("FK005", message, "Write _base_ = 'file.py'.", at=at, path=("_base_",)))
        found = [self._base(name, owner, at) for name in listed]
        usable = [base.values for base in found if base is not None]
        before = len(self.faults)
        base = united(usable, self.faults)
        if len(usable) < len(found) or len(self.faults) > before:
            raise Broken
        return base

    def _base(self, name: str, owner: str, at: Position) -> Namespace | None:
        path = os.path.join(os.path.dirname(owner), name)
        if not os.path.lexists(path):
            self.faults.append(_no_base(name, path, at))
            return None
        try:
            return self.file(path, _tidy(path), at)
        except Broken:
            return None

    def module(self, level: int, name: str, owner: str, at: Position) -> Namespace:
        """The config that `from ..name import` names, as seen from `owner`."""
        up = [os.pardir] * (level - 1)
        path = os.path.join(os.path.dirname(owner), *up, *name.split(".")) + ".py"
        if not os.path.lexists(path):
            raise self.broken(_no_base("." * level + name, path, at))
        return self.file(path, _tidy(path), at)

    def problems(self) -> list[Fault]:
        return self.faults[:MAX_PROBLEMS]


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # a null byte; opening the file says so
        return path


def _tidy(path: str) -> str:
    """The shortest spelling of a path that means the same file."""
    tidy = os.path.normpath(path)
    return tidy if _real(tidy) == _real(path) else path


def _cycle(name: str, at: Position) -> Fault:
    message = f'The base "{name}" inherits from itself, through the file that names it here.'
    return Fault("FK005", message, "Remove one of the _base_ entries of the circle.", at=at, path=("_base_",))


def _no_base(name: str, path: str, at: Position) -> Fault:
    folder = os.path.dirname(path) or "."
    near = ""
    if os.path.isdir(folder):
        near = did_you_mean(os.path.basename(path), sorted(os.listdir(folder))[:10_000])
    message = f'The base "{name}" does not exist: there is no file "{os.path.normpath(path)}".{near}'
    remedy = "Bases are named relative to the file that inherits them."
    return Fault("FK005", message, remedy, at=at, path=("_base_",))


def _unknown_format(name: str, extension: str) -> Fault:
    near = did_you_mean(extension, EXTENSIONS)
    message = f'"{name}" has the extension "{extension}", which is no config format.{near}'
    remedy = "Use " + ", ".join(EXTENSIONS[:-1]) + f" or {EXTENSIONS[-1]}."
    return Fault("FK001", message, remedy, at=Position(name, 1, 0))
