"""Values that no config should hold, or only in the right place: plain data and live objects of every odd kind."""

import enum
import math
from collections import OrderedDict
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import flexcore
from flexcore import Facts


class Colour(str, enum.Enum):  # noqa: UP042 - what older configs hold
    RED = "red"


class Level(enum.IntEnum):
    LOW = 3


class Rude(int):
    def __int__(self):
        raise RuntimeError("called from a config")

    __index__ = __str__ = __repr__ = __int__


class Deaf(str):
    __slots__ = ()

    def __str__(self):
        raise RuntimeError("called from a config")

    __repr__ = __str__


class Mute:
    def __repr__(self):
        raise RuntimeError("called from a config")


def deep(kind: type, depth: int = 10_000) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


def ring(kind: type) -> Any:
    if kind is list:
        values: Any = [1]
        values += [values, values]
        return values
    mapping: dict[str, Any] = {"type": "pkg:A"}
    mapping["a"] = mapping["b"] = mapping["dataset"] = mapping
    return mapping


def bomb() -> list[Any]:
    """2 ** 40 values in forty lists."""
    value: list[Any] = [1]
    for _ in range(40):
        value = [value, value]
    return value


# What a config file could hold.
PLAIN: dict[str, Any] = {
    "huge": 10**5000, "2**63": 2**63, "-2**63": -(2**63), "2**62": 2**62, "minus one": -1, "zero": 0, "one": 1,
    "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "1e308": 1e308, "tiny": 5e-324, "-0.0": -0.0,
    "surrogate": "\ud800", "nul": "\0", "empty text": "", "blank": " ", "long": "x" * 10_000, "dots": "..", "braces": "{}{!r:{}}",
    "newline": "a\nb", "dollar": "$float", "none": None, "true": True, "false": False,
    "empty list": [], "empty dict": {}, "empty tuple": (), "list of none": [None], "list of lists": [[]],
    "dict with int keys": {1: 2}, "dict with odd keys": {1.5: 2, (1, 2): 3, None: 4, True: 5, b"k": 6},
    "surrogate key": {"\ud800": 1}, "huge key": {10**5000: 1}, "type none": {"type": None}, "type int": {"type": 3},
    "type list": {"type": []}, "type empty": {"type": ""}, "type dots": {"type": "a..b"}, "mark": {"$tuple": [1]},
    "mark float": {"$float": "x"}, "supplied mark": {"$supplied": True},
    "deep list": deep(list), "deep dict": deep(dict), "set": {1, 2}, "set of tuples": {(1, 2)}, "set with huge": {10**5000},
}  # fmt: skip
# What only Python can put there.
LIVE: dict[str, Any] = {
    "bytes": b"bytes", "bytearray": bytearray(b"x"), "complex": 1j, "object": object(), "lambda": lambda: 1, "builtin": print,
    "class": dict, "method": [].append, "module": math, "frozenset": frozenset({"a"}),
    "set with objects": {Mute()}, "range": range(3), "generator": iter([1]), "decimal": Decimal(1),
    "path": Path("a/b"), "enum": Colour.RED, "int enum": Level.LOW, "rude int": Rude(3), "deaf text": Deaf("x"), "mute": Mute(),
    "ordered": OrderedDict(type="pkg:A"), "proxy": MappingProxyType({"type": "pkg:A"}), "supplied": flexcore.Supplied(),
    "fact": Facts(), "type object": type("Local", (), {}), "ring of lists": ring(list), "ring of dicts": ring(dict),
    "not implemented": NotImplemented, "ellipsis": ...,
}  # fmt: skip
NASTY = {**PLAIN, **LIVE}
