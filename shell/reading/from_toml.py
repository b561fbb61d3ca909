"""TOML text as marked data: tomllib reads the values, a line scan finds where their keys stand."""

import re
import tomllib
from typing import Any

from flexcore.problems import Path, shown
from shell.reading.faults import Fault, Position
from shell.reading.limits import MAX_DEPTH, too_much
from shell.reading.marked import Map, Seq
from shell.reading.text import Lines

PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
DUPLICATE = re.compile(r"Cannot (overwrite|declare|mutate)")
KEY = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*(\.?)""")
SKIP = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'|#[^\n]*|.",
    re.DOTALL,
)
REMEDY = "Correct the TOML there."


def read_toml(text: str, name: str, faults: list[Fault]) -> Any:  # noqa: ARG001  # one signature for all readers
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise _refused(str(error), text, name) from None
    except RecursionError:
        raise _too_deep(Position(name, 1, 0)) from None
    return _marked(data, (), _Places(text, name).found, name)


def _refused(reason: str, text: str, name: str) -> Fault:
    place = PLACE.search(reason)
    line, column = text.count("\n") + 1, 0
    if place and place[1]:
        line, column = int(place[1]), int(place[2])
    message = PLACE.sub("", reason)
    at = Position(name, line, column)
    if DUPLICATE.match(message):
        return Fault("FK004", f"TOML sets the same key twice: {message}.", "Keep one of the two.", at=at)
    return Fault("FK002", f"TOML syntax error: {message}.", REMEDY, at=at)


def _too_deep(at: Position) -> Fault:
    fault = too_much("The value is nested too deeply", MAX_DEPTH)
    fault.at = at
    return fault


def _marked(value: Any, path: Path, places: dict[Path, Position], name: str) -> Any:
    if len(path) > MAX_DEPTH:
        raise _too_deep(places.get(path[:1], Position(name, 1, 0)))
    if isinstance(value, dict):
        made = Map()
        for key, item in value.items():
            made.put(key, _marked(item, (*path, key), places, name), places.get((*path, key)))
        return made
    if isinstance(value, list):
        items = [_marked(item, (*path, index), places, name) for index, item in enumerate(value)]
        return Seq(items, [places.get((*path, index)) for index in range(len(items))])
    if isinstance(value, str | int | float):
        return value
    at = next((places[path[:end]] for end in range(len(path), 0, -1) if path[:end] in places), None)
    message = f"{shown(str(value))} is a TOML {type(value).__name__}, which a config cannot hold."
    raise Fault("FK002", message, "Write it as a string, in quotes.", at=at, path=path)


class _Places:
    """Where each key and table header of a text that tomllib accepts is written."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.lines = Lines(text, name)
        self.found: dict[Path, Position] = {}
        self.counts: dict[Path, int] = {}
        self.table: Path = ()
        self.offset = 0
        while self._next():
            self._header() if self.text[self.offset] == "[" else self._assignment()

    def _next(self) -> bool:
        match = SKIP.match(self.text, self.offset)
        self.offset = match.end() if match else self.offset
        return self.offset < len(self.text)

    def _key(self) -> list[str]:
        parts, more = [], True
        while more and (match := KEY.match(self.text, self.offset)):
            raw = match[1]
            parts.append(tomllib.loads(f"k={raw}")["k"] if raw[0] in "\"'" else raw)
            self.offset, more = match.end(), bool(match[2])
        return parts

    def _header(self) -> None:
        at = self.lines.at(self.offset)
        array = self.text.startswith("[[", self.offset)
        self.offset += 2 if array else 1
        parts = self._key()
        self.table = self._inside(parts[:-1], at)
        last = (*self.table, *parts[-1:])
        self.found.setdefault(last, at)
        if array:
            self.counts[last] = self.counts.get(last, -1) + 1
        self.table = self._entered(last)
        self.found.setdefault(self.table, at)
        self._skip_line()

    def _entered(self, path: Path) -> Path:
        return (*path, self.counts[path]) if path in self.counts else path

    def _inside(self, parts: list[str], at: Position) -> Path:
        path: Path = ()
        for part in parts:
            path = (*path, part)
            self.found.setdefault(path, at)
            path = self._entered(path)
        return path

    def _assignment(self) -> None:
        at = self.lines.at(self.offset)
        path = self.table
        for part in self._key():
            path = (*path, part)
            self.found.setdefault(path, at)
        self._skip_line()

    def _skip_line(self) -> None:
        """To the end of the statement: past strings, comments and open brackets."""
        depth = 0
        while match := STRING.match(self.text, self.offset):
            part = match[0]
            self.offset = match.end()
            depth += (part in "[{") - (part in "]}")
            if part == "\n" and depth <= 0:
                return
