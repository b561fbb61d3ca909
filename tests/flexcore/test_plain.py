"""What a config may hold and what becomes of it: every kind of value, and every refusal whole."""

import enum
import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import PurePosixPath
from types import MappingProxyType

import pytest

from flexcore.components import Supplied
from flexcore.plain import MAX_DEPTH, MAX_VALUES, plain

SUPPLIED = Supplied()
SELF: list = []
SELF.append(SELF)


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Level(enum.IntEnum):
    LOW = 3


class Own(dict):
    pass


def function():
    pass


def nested(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(("value", "expected"), [
    (None, None), (True, True), (0.5, 0.5), ("x", "x"), (7, 7), (2**63 - 1, 2**63 - 1), (1 - 2**63, 1 - 2**63),
    (Text("x"), "x"), (Number(5), 5), (Real(0.5), 0.5), (Level.LOW, 3), (math.inf, math.inf),
    ([1, [2]], [1, [2]]), ((1, (2,)), (1, (2,))), ({1, "a", None}, {1, "a", None}), (frozenset({1}), {1}),
    ({"a": {1: 2}}, {"a": {1: 2}}), (OrderedDict(a=1), {"a": 1}), (MappingProxyType({"a": 1}), {"a": 1}),
    (Own(a=1), {"a": 1}), ({Text("k"): 1, Number(4): 2}, {"k": 1, 4: 2}), (SUPPLIED, SUPPLIED), ([SUPPLIED], [SUPPLIED]),
    (OrderedDict, "collections:OrderedDict"), (function, f"{__name__}:function"), (math.sqrt, "math:sqrt"),
    (nested(MAX_DEPTH - 1), nested(MAX_DEPTH - 1)),
])  # fmt: skip
def test_what_is_plain_or_can_be(value, expected):
    problems = []
    found = plain(value, problems)
    assert (found, problems) == (expected, [])
    assert type(found) is type(expected)


def test_the_kinds_inside_are_plain_too():
    made = plain({Text("k"): [Text("v")], Number(4): (Number(1),)}, [])
    assert [type(key) for key in made] == [str, int]
    assert type(made["k"][0]) is str
    assert type(made[4][0]) is int


def test_what_is_given_twice_is_no_value_inside_itself():
    twice = [1]
    problems = []
    assert plain([twice, twice, {"a": twice}], problems) == [[1], [1], {"a": [1]}]
    assert problems == []


BEYOND = "is an integer beyond 64 bits. Use a smaller number. [FK015]"
LIVE = "Put flexcore.Supplied() here and pass the object to shell.execute(plan, ...). [FK016]"


@pytest.mark.parametrize(("value", "expected", "told"), [
    ({"a": 2**63}, {"a": None}, [f"a: {BEYOND}"]), ({"a": [-(2**63)]}, {"a": [None]}, [f"a.0: {BEYOND}"]),
    ({"a": b"x"}, {"a": None}, ["a: is bytes, which no config file can hold. Write text or numbers. [FK015]"]),
    ({"a": bytearray()}, {"a": None}, ["a: is bytearray, which no config file can hold. Write text or numbers. [FK015]"]),
    ((1j,), (None,), ["0: is complex, which no config file can hold. Write text or numbers. [FK015]"]),
    ({"a": object()}, {"a": None}, [f"a: is a live object (builtins.object), and a config holds plain data. {LIVE}"]),
    ({"a": PurePosixPath("x")}, {"a": None},
     ["a: is a live object (pathlib.PurePosixPath), and a config holds plain data. Write the path as text: str(path). [FK016]"]),
    ({"a": lambda: 0}, {"a": None},
     [f"a: is {__name__}:<lambda>, which no other process can import. Define it at module level. [FK015]"]),
    ({"a": [].append}, {"a": None},
     ["a: is None:list.append, which no other process can import. Define it at module level. [FK015]"]),
    ({"a": str.upper}, {"a": None},
     ["a: is None:str.upper, which no other process can import. Define it at module level. [FK015]"]),
    ({"a": SELF}, {"a": [None]}, ["a.0: holds itself, so it never ends. Write the values out. [FK015]"]),
    ({"a": {(1, 2)}}, {"a": set()}, ["a: is a set holding more than scalars: {(1, 2)}. Use a list. [FK015]"]),
    ({"a": {True: 1, 2.5: 2, None: 3, "b": 4, 2**63: 5, -(2**63): 6}}, {"a": {"b": 4}}, [
        "a: has the key True; keys are text or integers. Rename the key. [FK015]",
        "a: has the key 2.5; keys are text or integers. Rename the key. [FK015]",
        "a: has the key None; keys are text or integers. Rename the key. [FK015]",
        "a: has the key 9223372036854775808; keys are text or integers. Rename the key. [FK015]",
        "a: has the key -9223372036854775808; keys are text or integers. Rename the key. [FK015]",
    ]),
    ({"a": {2**63 - 1: 1}}, {"a": {2**63 - 1: 1}}, []),
    ({"a": (n for n in ())}, {"a": None}, [f"a: is a live object (builtins.generator), and a config holds plain data. {LIVE}"]),
    ({"a": partial(print)}, {"a": None}, [f"a: is a live object (functools.partial), and a config holds plain data. {LIVE}"]),
])  # fmt: skip
def test_what_is_not_is_told_and_replaced(value, expected, told):
    problems = []
    assert plain(value, problems) == expected
    assert [str(problem) for problem in problems] == told


def test_a_value_may_be_nested_so_deep():
    problems = []
    assert plain({"a": nested(MAX_DEPTH - 1)}, problems) == {"a": nested(MAX_DEPTH - 1)}
    assert problems == []
    plain({"a": nested(MAX_DEPTH)}, problems)
    (problem,) = problems
    assert problem.path == ("a", *(0,) * MAX_DEPTH)
    assert (problem.message, problem.remedy) == ("is nested deeper than 64 levels.", "Flatten the value.")


class Endless(Mapping):
    """A mapping that holds another of its kind, however far one looks."""

    def __getitem__(self, key):
        return Endless()

    def __iter__(self):
        return iter("ab")

    def __len__(self):
        return 2


def test_a_config_may_hold_so_many_values():
    """Every container counts itself and what it holds."""
    problems = []
    most = [0] * (MAX_VALUES - 1)
    assert plain(most, problems) == most
    assert problems == []
    assert plain([*most, 0], problems) is None
    assert [str(problem) for problem in problems] == [
        "config: holds more than 250,000 values, counted from the top of the config. Keep data in files of its own. [FK015]"
    ]
    problems = []
    part = [0] * (MAX_VALUES // 3)
    assert plain({"x": {"a": {"b": part, "c": part, "d": [part]}, "z": object()}}, problems) is None
    assert [problem.path for problem in problems] == [("x", "a")]


def test_too_many_values_are_told_alone():
    problems = []
    assert plain({"x": object(), "y": [0] * MAX_VALUES}, problems) is None
    assert [problem.path for problem in problems] == [("y",)]
    problems = []
    assert plain({"x": Endless()}, problems) is None
    assert len(problems) == 1
