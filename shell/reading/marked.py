"""Plain data that remembers where each entry was written, and how to turn it into data plus positions."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

from flexcore.problems import Path
from shell.reading.faults import Position
from shell.reading.limits import MAX_NODES, too_much, weight

Mark = Position | None
DELETE = "_delete_"


class Map(dict[Any, Any]):
    """A mapping; `marks` holds the position of each key that was written somewhere."""

    __slots__ = ("marks",)

    def __init__(self) -> None:
        super().__init__()
        self.marks: dict[Any, Position] = {}

    def put(self, key: Any, value: Any, at: Mark) -> None:
        self[key] = value
        self.marks.pop(key, None)
        if at is not None:
            self.marks[key] = at

    def take(self, key: Any) -> Any:
        self.marks.pop(key, None)
        return self.pop(key)

    def absorb(self, other: "Map") -> None:
        for key, value in other.items():
            self.put(key, value, other.marks.get(key))

    def duplicate(self) -> "Map":
        twin = Map()
        twin.absorb(self)
        return twin


class Seq(list[Any]):
    """A list; `marks` runs parallel to it."""

    __slots__ = ("marks",)

    def __init__(self, items: Iterable[Any] = (), marks: Sequence[Mark] | None = None) -> None:
        super().__init__(items)
        self.marks: list[Mark] = [None] * len(self) if marks is None else list(marks)

    def add(self, value: Any, at: Mark) -> None:
        self.append(value)
        self.marks.append(at)

    def absorb(self, items: Sequence[Any]) -> None:
        self.marks.extend(marks_of(items))
        self.extend(items)

    def put(self, index: int, value: Any, at: Mark) -> None:
        self[index] = value
        self.marks[index] = at

    def insert_at(self, index: int, value: Any, at: Mark) -> None:
        self.insert(index, value)
        self.marks.insert(index, at)

    def take(self, index: int) -> Any:
        value = self.pop(index)
        self.marks.pop(index)
        return value


class Tup(tuple[Any, ...]):  # noqa: SLOT001  # a tuple with an attribute has a __dict__
    """A tuple; `marks` runs parallel to it."""

    marks: Sequence[Mark]

    def __new__(cls, items: Iterable[Any] = (), marks: Sequence[Mark] | None = None) -> Self:
        made = super().__new__(cls, items)
        made.marks = [None] * len(made) if marks is None else list(marks)
        return made


def marks_of(items: Sequence[Any]) -> Sequence[Mark]:
    return items.marks if isinstance(items, Seq | Tup) else [None] * len(items)


def clone(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """A deep copy that keeps marks and sharing; the caller has bounded the depth."""
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, Map):
        twin = memo[id(value)] = Map()
        for key, item in value.items():
            twin.put(key, clone(item, memo), value.marks.get(key))
        return twin
    if isinstance(value, Seq):
        copied = memo[id(value)] = Seq()
        for item, mark in zip(value, value.marks, strict=True):
            copied.add(clone(item, memo), mark)
        return copied
    if isinstance(value, Tup):
        return memo.setdefault(id(value), Tup([clone(item, memo) for item in value], value.marks))
    return set(value) if isinstance(value, set) else value


def check_whole(value: Any) -> None:
    """Refuse data that is too deep or, with shared parts written out, too large."""
    if weight(value, characters=False) > MAX_NODES:
        raise too_much("The finished config has too many values", MAX_NODES)


def unmarked(value: Any, path: Path, positions: dict[Path, Position]) -> Any:
    """The value as builtin containers, nothing shared; what is known of its parts goes into `positions`."""
    if isinstance(value, dict):
        return _unmarked_map(value, path, positions)
    if isinstance(value, list | tuple):
        marks = marks_of(value)
        items = []
        for index, item in enumerate(value):
            _note(positions, (*path, index), marks[index])
            items.append(unmarked(item, (*path, index), positions))
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, set):
        return {unmarked(item, path, {}) for item in value}
    return value


def _unmarked_map(value: dict[Any, Any], path: Path, positions: dict[Path, Position]) -> dict[Any, Any]:
    marks = value.marks if isinstance(value, Map) else {}
    made: dict[Any, Any] = {}
    for key, item in value.items():
        if key == DELETE:
            continue
        below = (*path, key if isinstance(key, str | int) else str(key))
        _note(positions, below, marks.get(key))
        made[unmarked(key, path, {})] = unmarked(item, below, positions)
    return made


def _note(positions: dict[Path, Position], path: Path, mark: Mark) -> None:
    if mark is not None:
        positions[path] = mark
