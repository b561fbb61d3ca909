"""A pickle is read by following its instructions through a table of ours: what is not in it is refused, nothing is executed."""

import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from shell.inert import Made, Named, NotInert, Storage, called, key_of


class Readable(Protocol):
    """What a pickle is read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


MAX_OPS: Final = 20_000_000
"""More instructions than the pickle of any checkpoint has; a pass of so many takes half a minute."""
_MARK: Final = object()

Stack: TypeAlias = list[Any]


def read(file: Readable, storages: dict[str, Storage] | None = None) -> Any:
    """One pickle from where `file` stands, which is left behind it. storages: to be filled with those it refers to, by key.

    Raises:
        NotInert: no pickle, a damaged one, or one with instructions that data has no use for.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for count, (op, argument, _) in enumerate(pickletools.genops(file)):
            if count > MAX_OPS:
                raise NotInert(f"has more than {MAX_OPS:,} instructions")
            if op.name == "STOP":
                return machine.pop()
            machine.step(op.name, argument)
    except NotInert:
        raise
    except (ValueError, LookupError, TypeError, OverflowError, EOFError, MemoryError, struct.error) as error:
        raise NotInert(f"is no whole pickle: {_brief(error)}") from error
    raise NotInert("ends before it is done")


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


class _Machine:
    """The stack, the memo and what each instruction does to them."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
        self.stack: Stack = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise NotInert(f"uses {name}, which data has no use for")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark where a value should be")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        place = next((i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK), None)
        if place is None:
            raise ValueError("no mark where one should be")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found


def _appended(machine: _Machine, items: list[Any]) -> None:
    owner = machine.top()
    if isinstance(owner, list):
        owner.extend(items)
    elif isinstance(owner, Made):
        owner.state.extend(items)
    else:
        raise NotInert(f"appends to a {type(owner).__name__}")


def _set(machine: _Machine, items: list[Any]) -> None:
    owner, pairs = machine.top(), list(zip(items[::2], items[1::2], strict=True))
    if isinstance(owner, Made):
        owner.state.extend(pairs)
    elif isinstance(owner, dict):
        owner.update((key_of(key), value) for key, value in pairs)
    else:
        raise NotInert(f"sets items of a {type(owner).__name__}")


def _added(machine: _Machine, items: list[Any]) -> None:
    owner = machine.top()
    if not isinstance(owner, set):
        raise NotInert(f"adds to a {type(owner).__name__}")
    owner.update(key_of(item) for item in items)


def _built(machine: _Machine, _: Any) -> None:
    """State of an object: kept if the object is a stand-in; a dict's attributes and a tensor's hooks mean nothing here."""
    state, owner = machine.pop(), machine.top()
    if isinstance(owner, Made):
        owner.state.append(state)


def _reduced(machine: _Machine, _: Any) -> None:
    arguments = machine.pop()
    machine.stack.append(called(machine.pop(), arguments))


def _reduced_with_keywords(machine: _Machine, _: Any) -> None:
    keywords, arguments, of = machine.pop(), machine.pop(), machine.pop()
    machine.stack.append(Made(of, (arguments, keywords)))


def _instance(machine: _Machine, path: str) -> None:
    machine.stack.append(called(_named(path), tuple(machine.since_mark())))


def _object(machine: _Machine, _: Any) -> None:
    of, *arguments = machine.since_mark()
    machine.stack.append(called(of, tuple(arguments)))


def _named(path: str) -> Named:
    return Named(".".join(path.split(" ", 1)))


def _stack_named(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise NotInert("names something by what is no text")
    machine.stack.append(Named(f"{module}.{name}"))


def _persistent(machine: _Machine, _: Any) -> None:
    """What torch stores beside the pickle: ("storage", kind, key, location, count), and a view of it in old files."""
    match machine.pop():
        case ("storage", Named(path=kind), str() as key, _, int() as count, *view) if not any(view):
            if count >= 0:
                found = Storage(kind.rpartition(".")[2], key, count)
                if machine.storages.setdefault(key, found) != found:
                    raise NotInert(f"tells two things of storage {key!r}")
                machine.stack.append(found)
                return
    raise NotInert("refers to what is no storage")


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {key_of(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _last(count: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        found = tuple(machine.pop() for _ in range(count))
        machine.stack.append(found[::-1])

    return step


def _collected(kind: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(kind(machine.since_mark()))


def _popped(machine: _Machine, _: Any) -> None:
    machine.stack.pop()


def _remembered(machine: _Machine, place: Any) -> None:
    machine.memo[len(machine.memo) if place is None else place] = machine.top()


def _one(machine: _Machine, _: Any) -> None:
    item = machine.pop()
    _appended(machine, [item])


def _pair(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _set(machine, [key, value])


_IGNORED: Final = frozenset(("PROTO", "FRAME"))
_VALUES: Final = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "FLOAT",
        "BINFLOAT",
    ]
)
_CONSTANTS: Final[Mapping[str, Callable[[], Any]]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_DICT": dict, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple, "EMPTY_SET": set, "MARK": lambda: _MARK,
}  # fmt: skip
_STEPS: Final[Mapping[str, Callable[[_Machine, Any], None]]] = {
    "APPEND": _one,
    "APPENDS": lambda machine, _: _appended(machine, machine.since_mark()),
    "SETITEM": _pair,
    "SETITEMS": lambda machine, _: _set(machine, machine.since_mark()),
    "ADDITEMS": lambda machine, _: _added(machine, machine.since_mark()),
    "LIST": _collected(list),
    "TUPLE": _collected(tuple),
    "DICT": _collected(_pairs),
    "FROZENSET": _collected(lambda items: frozenset(map(key_of, items))),
    "TUPLE1": _last(1),
    "TUPLE2": _last(2),
    "TUPLE3": _last(3),
    "POP": _popped,
    "POP_MARK": lambda machine, _: machine.since_mark() and None,
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "PUT": _remembered,
    "BINPUT": _remembered,
    "LONG_BINPUT": _remembered,
    "MEMOIZE": _remembered,
    "GET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "GLOBAL": lambda machine, path: machine.stack.append(_named(path)),
    "STACK_GLOBAL": _stack_named,
    "REDUCE": _reduced,
    "NEWOBJ": _reduced,
    "NEWOBJ_EX": _reduced_with_keywords,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": _built,
    "BINPERSID": _persistent,
}
