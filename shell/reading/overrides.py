"""Overrides from a command line: `a.b.0=value`, `+new=value`, `~gone`, applied to plain data and positions."""

from collections.abc import Sequence
from typing import Any, Literal

from attrs import frozen

from flexcore.problems import Path, did_you_mean, dotted, shown
from shell.reading.faults import Fault, Position
from shell.reading.marked import DELETE
from shell.reading.values import bare_value

FILE = "<override>"
FORMS = "Write key.subkey=value, +key=value to add, or ~key to remove."
Verb = Literal["set", "add", "remove"]


@frozen
class Override:
    """One override, taken apart."""

    verb: Verb
    steps: tuple[str, ...]
    value: Any
    at: Position


def parsed(text: str, index: int) -> Override:
    at = Position(FILE, index + 1, 1)
    key, equals, raw = text.partition("=")
    verb: Verb = "remove" if key.startswith("~") else "add" if key.startswith("+") else "set"
    steps = tuple(key[0 if verb == "set" else 1 :].strip().split("."))
    if bool(equals) == (verb == "remove") or not all(steps) or len(steps) > 100:
        raise Fault("FK006", f"The override {shown(text)} cannot be read.", FORMS, at=at)
    try:
        value = None if verb == "remove" else bare_value(raw)
    except ValueError as error:
        message = f"The value of the override {shown(text)} cannot be read: {error}."
        raise Fault("FK006", message, "Close it, or quote it to keep it as text.", at=at) from None
    return Override(verb, steps, value, at)


class Overriding:
    """Data and positions, with overrides applied one after another; what is given is never changed."""

    def __init__(self, data: dict[str, Any], positions: dict[Path, Position]) -> None:
        self.data = data
        self.positions = dict(positions)
        self.faults: list[Fault] = []

    def apply(self, texts: Sequence[str]) -> None:
        for index, text in enumerate(texts):
            try:
                self._one(parsed(text, index))
            except Fault as fault:
                self.faults.append(fault)

    def _one(self, override: Override) -> None:
        removed: list[Path] = []
        self.data = self._placed(self.data, override, (), removed)
        if not removed:
            return
        path = removed[0]
        if override.verb == "remove":
            self._forget(path)
        else:
            self._mark(path, override)

    def _placed(self, node: Any, override: Override, path: Path, touched: list[Path]) -> Any:
        """A copy of `node` with the override made in it; siblings are shared, not copied."""
        step = override.steps[len(path)]
        last = len(path) + 1 == len(override.steps)
        if isinstance(node, dict):
            return self._in_mapping(node, step, override, path, touched, last=last)
        if isinstance(node, list | tuple):
            return self._in_list(node, step, override, path, touched, last=last)
        message = f"{dotted(path)} is {shown(node)}, so it has no {shown(step)} to override."
        remedy = f"Override {dotted(path)} as a whole."
        raise Fault("FK006", message, remedy, at=override.at, path=path)

    def _in_mapping(
        self,
        node: dict[Any, Any],
        step: str,
        override: Override,
        path: Path,
        touched: list[Path],
        *,
        last: bool,
    ) -> Any:
        key: Any = int(step) if step not in node and _number(step) and int(step) in node else step
        below = (*path, key)
        made = dict(node)
        if override.verb == "remove" and key not in node:
            near = did_you_mean(step, (name for name in node if isinstance(name, str)))
            message = f"~{dotted((*path, *override.steps[len(path) :]))} removes nothing: there is no {shown(step)}.{near}"
            raise Fault("FK006", message, "Name a key that is set.", at=override.at, path=below)
        if not last:
            made[key] = self._placed(node.get(key, {}), override, below, touched)
        elif override.verb == "remove":
            made.pop(key)
            touched.append(below)
        else:
            if override.verb == "add" and key in node:
                raise _exists(below, node[key], override)
            made[key] = _merged(node.get(key), override.value)
            touched.append(below)
        return made

    def _in_list(
        self,
        node: list[Any] | tuple[Any, ...],
        step: str,
        override: Override,
        path: Path,
        touched: list[Path],
        *,
        last: bool,
    ) -> Any:
        index = _index(node, step, override, path, adding=last and override.verb == "add")
        below, items = (*path, index), list(node)
        if not last:
            items[index] = self._placed(items[index], override, below, touched)
        elif override.verb == "remove":
            items.pop(index)
            touched.append(below)
        else:
            items[index : index + 1] = [_merged(items[index] if index < len(items) else None, override.value)]
            touched.append(below)
        return items if isinstance(node, list) else tuple(items)

    def _mark(self, path: Path, override: Override) -> None:
        """The place and every parent it created are now the override's."""
        if not isinstance(override.value, dict) or override.value.get(DELETE):
            self._drop(path)
        self.positions.update({(*path, *below): override.at for below in _paths(override.value)})
        for end in range(1, len(path)):
            self.positions.setdefault(path[:end], override.at)

    def _drop(self, path: Path) -> None:
        self.positions = {key: at for key, at in self.positions.items() if key[: len(path)] != path}

    def _forget(self, path: Path) -> None:
        """What came after a removed list item has moved up by one."""
        self._drop(path)
        *parent, step = path
        if isinstance(step, int) and isinstance(_at(self.data, parent), list | tuple):
            self.positions = {_moved(key, tuple(parent), step): at for key, at in self.positions.items()}


def _at(data: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        data = data[step]
    return data


def _moved(key: Path, parent: Path, removed: int) -> Path:
    depth = len(parent)
    if key[:depth] != parent or len(key) == depth:
        return key
    index = key[depth]
    return (*parent, index - 1, *key[depth + 1 :]) if isinstance(index, int) and index > removed else key


def _number(step: str) -> bool:
    return step.isascii() and step.isdecimal() and len(step) < 10


def _index(node: Sequence[Any], step: str, override: Override, path: Path, *, adding: bool) -> int:
    most = len(node) if adding else len(node) - 1
    if _number(step) and int(step) <= most:
        return (
            len(node)
            if adding and int(step) == len(node)
            else _existing(int(step), node, override, path, adding)
        )
    what = f"index {step} is past its end" if _number(step) else f"{shown(step)} is no index"
    message = f"{dotted(path)} is a {type(node).__name__} of {len(node)}: {what}."
    remedy = f"Use 0 to {len(node) - 1}." if node else f"Override {dotted(path)} as a whole."
    raise Fault("FK006", message, remedy, at=override.at, path=path)


def _existing(index: int, node: Sequence[Any], override: Override, path: Path, adding: bool) -> int:
    if adding:
        raise _exists((*path, index), node[index], override)
    return index


def _exists(path: Path, value: Any, override: Override) -> Fault:
    message = f"+{dotted(path)} adds a key that is already set to {shown(value)}."
    return Fault("FK006", message, "Leave out the + to change it.", at=override.at, path=path)


def _merged(old: Any, new: Any) -> Any:
    """A mapping is laid over a mapping, as by a child config; anything else replaces."""
    if not isinstance(new, dict):
        return new
    kept = dict(old) if isinstance(old, dict) and not new.get(DELETE) else {}
    return {**kept, **{key: _merged(kept.get(key), value) for key, value in new.items() if key != DELETE}}


def _paths(value: Any) -> list[Path]:
    """Every place inside a value, itself included."""
    items: Any = ()
    if isinstance(value, dict):
        items = ((key if isinstance(key, str | int) else str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    return [(), *((step, *below) for step, item in items if step != DELETE for below in _paths(item))]
