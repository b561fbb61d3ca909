"""What a disk may hold once the power is cut: built from what strace saw asked of it, whatever the cache held lost.

The model is the weakest that POSIX allows, as ALICE's (Pillai et al., OSDI 2014): a file's bytes are sure after an
fsync of the file, a name after an fsync of its directory. All else may be there or not, each on its own, in any
order; a write in any of its blocks, with the file's length grown or not. A rename is atomic and nothing more.
"""

import ast
import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Final

from attrs import field, frozen, mutable

from tests.shell.tracing import Call

RECORDED: Final = "trace=%file,%desc"
MARK: Final = "/mark/"

_TEXT: Final = r'"((?:[^"\\]|\\.)*)"'
_OPENED: Final = re.compile(rf"AT_FDCWD<[^>]*>, {_TEXT}, (O_[A-Z_|]+).*", re.DOTALL)
_TWO_PATHS: Final = re.compile(rf"(?:AT_FDCWD<[^>]*>, )?{_TEXT}, (?:AT_FDCWD<[^>]*>, )?{_TEXT}.*", re.DOTALL)
_BELOW: Final = re.compile(rf"\d+<([^>]*)>, {_TEXT}.*", re.DOTALL)
_PATH: Final = re.compile(rf"(?:AT_FDCWD<[^>]*>, )?{_TEXT}.*", re.DOTALL)
_DATA: Final = re.compile(rf"(\d+)<[^>]*>, {_TEXT}(?:\.\.\.)?, \d+(?:, (\d+))?", re.DOTALL)
_NUMBERS: Final = re.compile(r"(\d+)<[^>]*>(?:, (\d+))?.*", re.DOTALL)

Tree = tuple[tuple[str, bytes | None], ...]
"""(path below the top, bytes; None for a directory), sorted."""


@frozen
class Name:
    """`name` in directory `where` becomes `node`, or nothing; `was`: the place it is moved from, in the same moment."""

    where: int
    name: str
    node: int | None
    was: tuple[int, str] | None = None


@frozen
class Bytes:
    """`data` at `offset` of a file; None: it ends there."""

    node: int
    offset: int
    data: bytes | None


@frozen
class Sync:
    node: int


@frozen
class Mark:
    """Something was done and said to be so."""

    number: int


Effect = Name | Bytes | Sync | Mark


@mutable
class Record:
    """The effects of a process on what is below `top`, in order, and what was there before, which is sure.

    block: bytes that reach the disk together; less than any disk's, so that small files tear as large ones do.
    """

    top: pathlib.Path
    block: int = 256
    names: dict[int, dict[str, int]] = field(factory=lambda: {0: {}})
    contents: dict[int, bytes] = field(factory=dict)
    effects: list[Effect] = field(factory=list)
    _open: dict[int, list[int]] = field(factory=dict)
    _live: dict[int, dict[str, int]] = field(factory=dict)
    _next: itertools.count = field(factory=lambda: itertools.count(1))

    def __attrs_post_init__(self) -> None:
        self._read(self.top, 0)

    def _read(self, path: pathlib.Path, node: int) -> None:
        for entry in sorted(path.iterdir()):
            inner = self.names[node][entry.name] = next(self._next)
            if entry.is_dir():
                self.names[inner] = {}
                self._read(entry, inner)
            else:
                self.contents[inner] = entry.read_bytes()

    def take(self, calls: tuple[Call, ...]) -> "Record":
        self._live = {node: dict(entries) for node, entries in self.names.items()}
        for call in calls:
            if call.name in ("access", "faccessat", "faccessat2") and MARK in call.arguments:
                self.effects.append(Mark(int(_text(_PATH, call)[0].removeprefix(MARK))))
            elif not call.answer.startswith("-1 "):
                self._take(call)
        return self

    def _take(self, call: Call) -> None:
        match call.name:
            case "openat":
                self._opened(call)
            case "close":
                self._open.pop(_number(call), None)
            case "write" | "pwrite64" if _number(call) in self._open:
                self._written(call)
            case "lseek" if _number(call) in self._open:
                self._open[_number(call)][1] = int(call.answer)
            case "ftruncate" if _number(call) in self._open:
                end = int(_NUMBERS.fullmatch(call.arguments)[2])
                self.effects.append(Bytes(self._open[_number(call)][0], end, None))
            case "fsync" | "fdatasync" if _number(call) in self._open:
                self.effects.append(Sync(self._open[_number(call)][0]))
            case "rename" | "renameat" | "renameat2":
                (where, name), (target, new) = map(self._place, _text(_TWO_PATHS, call))
                self._name(Name(target, new, self._live[where][name], (where, name)))
            case "mkdir" | "mkdirat" if (place := self._place(_text(_PATH, call)[0])) is not None:
                self._name(Name(*place, self._made({})))
            case "unlink" | "rmdir" if (place := self._place(_text(_PATH, call)[0])) is not None:
                self._name(Name(*place, None))
            case "unlinkat":
                below = _BELOW.fullmatch(call.arguments)
                path = f"{below[1]}/{below[2]}" if below else _text(_PATH, call)[0]
                if (place := self._place(path)) is not None:
                    self._name(Name(*place, None))
            case _ if call.changes and str(self.top) in call.arguments:
                raise AssertionError(f"the model knows no {call.name}")

    def _opened(self, call: Call) -> None:
        path, flags = _text(_OPENED, call)
        place = self._place(path)
        if place is None:
            return
        where, name = place
        if name and name not in self._live[where]:
            self._name(Name(where, name, self._made(b"")))
        node = self._live[where][name] if name else 0
        if "O_TRUNC" in flags:
            self.effects.append(Bytes(node, 0, None))
        self._open[int(call.answer.partition("<")[0])] = [node, 0]

    def _written(self, call: Call) -> None:
        number, text, at = _DATA.fullmatch(call.arguments).groups()
        opened = self._open[int(number)]
        data = _unescaped(text)[: int(call.answer)]
        self.effects.append(Bytes(opened[0], opened[1] if at is None else int(at), data))
        if at is None:
            opened[1] += len(data)

    def _made(self, what: dict[str, int] | bytes) -> int:
        node = next(self._next)
        if isinstance(what, dict):
            self.names[node], self._live[node] = {}, {}
        else:
            self.contents[node] = what
        return node

    def _name(self, effect: Name) -> None:
        self.effects.append(effect)
        _named(self._live, effect)

    def _place(self, path: str) -> tuple[int, str] | None:
        """(directory, name) of a path below the top, ("", of the top itself); None for any other."""
        if path == str(self.top):
            return 0, ""
        if not path.startswith(f"{self.top}/"):
            return None
        node, parts = 0, pathlib.PurePath(path).relative_to(self.top).parts
        for part in parts[:-1]:
            node = self._live[node][part]
        return node, parts[-1]

    def trees(self) -> Iterator[tuple[int, Tree]]:
        """(the last mark passed, what the disk holds) for every state in which a cut may leave it, each once."""
        seen: set[tuple[int, Tree]] = set()
        done = 0
        for end, effect in enumerate([*self.effects, Mark(-1)]):
            if isinstance(
                effect, Sync | Mark
            ):  # what may be so before one is so at any moment since the last
                for tree in self._left(end):
                    if (done, tree) not in seen:
                        seen.add((done, tree))
                        yield done, tree
            if isinstance(effect, Mark):
                done = effect.number

    def _left(self, end: int) -> Iterator[Tree]:
        """Every tree that the first `end` effects may leave."""
        sure = self._sure(end)
        options = [
            [effect] if index in sure else [None, *_partly(effect, self.block)]
            for index, effect in enumerate(self.effects[:end])
            if isinstance(effect, Name | Bytes)
        ]
        for chosen in itertools.product(*options):
            yield self._applied([effect for effect in chosen if effect is not None])

    def _sure(self, end: int) -> set[int]:
        """The effects that some fsync among the first `end` has made durable."""
        sure: set[int] = set()
        for at, barrier in enumerate(self.effects[:end]):
            if isinstance(barrier, Sync):
                sure |= {
                    index
                    for index, effect in enumerate(self.effects[:at])
                    if (isinstance(effect, Bytes) and effect.node == barrier.node)
                    or (isinstance(effect, Name) and _directory(effect) == {barrier.node})
                }
        return sure

    def _applied(self, effects: list[Name | Bytes]) -> Tree:
        names = {node: dict(entries) for node, entries in self.names.items()}
        contents = dict(self.contents)
        for effect in effects:
            if isinstance(effect, Name):
                _named(names, effect)
            else:
                contents[effect.node] = _put(contents[effect.node], effect)
        return tuple(_listed(names, contents, 0, ""))


def _directory(effect: Name) -> set[int]:
    return {effect.where} if effect.was is None else {effect.where, effect.was[0]}


def _named(names: dict[int, dict[str, int]], effect: Name) -> None:
    if effect.was is not None and names[effect.was[0]].get(effect.was[1]) == effect.node:
        del names[effect.was[0]][effect.was[1]]
    if effect.node is None:
        names[effect.where].pop(effect.name, None)
    else:
        names[effect.where][effect.name] = effect.node


def _put(content: bytes, effect: Bytes) -> bytes:
    if effect.data is None:
        return content[: effect.offset].ljust(effect.offset, b"\0")
    end = effect.offset + len(effect.data)
    return content[: effect.offset].ljust(effect.offset, b"\0") + effect.data + content[end:]


def _partly(effect: Effect, block: int) -> list[Effect]:
    """All that an effect may have come to besides nothing: of a write any block, the length as if all had, or not."""
    if not isinstance(effect, Bytes) or not effect.data:
        return [effect]
    blocks = [effect.data[start : start + block] for start in range(0, len(effect.data), block)]
    torn = set()
    for kept in _kept(len(blocks)):
        data = b"".join(part if i in kept else bytes(len(part)) for i, part in enumerate(blocks))
        short = sum(len(part) for part in blocks[: max(kept, default=-1) + 1])
        torn |= {data, data[:short]} - {b""}
    return [Bytes(effect.node, effect.offset, data) for data in sorted(torn)]


def _kept(blocks: int) -> Iterator[set[int]]:
    """Every choice of blocks for a few; of many, each number of first ones and all but each one."""
    if blocks <= 4:
        for size in range(blocks + 1):
            yield from map(set, itertools.combinations(range(blocks), size))
    else:
        yield from ({*range(size)} for size in range(blocks + 1))
        yield from ({*range(blocks)} - {one} for one in range(blocks))


def _listed(
    names: dict[int, dict[str, int]], contents: dict[int, bytes], node: int, path: str
) -> Iterator[tuple[str, bytes | None]]:
    for name, inner in sorted(names[node].items()):
        if inner in contents:
            yield path + name, contents[inner]
        else:
            yield path + name, None
            yield from _listed(names, contents, inner, f"{path}{name}/")


def mark(number: int) -> None:
    """Say that something is done: a request that strace sees and that changes nothing."""
    os.access(f"{MARK}{number}", os.F_OK)


def put_down(tree: Tree, top: pathlib.Path) -> None:
    """Make the tree real in an empty directory."""
    for path, content in tree:
        if content is None:
            (top / path).mkdir()
        else:
            (top / path).write_bytes(content)


def _number(call: Call) -> int:
    return int(_NUMBERS.fullmatch(call.arguments)[1])


def _text(pattern: re.Pattern[str], call: Call) -> tuple[str, ...]:
    match = pattern.fullmatch(call.arguments)
    assert match is not None, call
    return tuple(os.fsdecode(_unescaped(text)) for text in match.groups())


def _unescaped(text: str) -> bytes:
    return ast.literal_eval(f'b"{text}"')
