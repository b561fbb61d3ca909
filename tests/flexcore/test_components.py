"""Frozen values of plain data: what they hold, how they are asked, and that they thaw into what they came from."""

import math

import pytest
from hypothesis import given

from flexcore.components import (
    NAN,
    Component,
    Data,
    Items,
    Members,
    Supplied,
    freeze,
    holds_supplied,
    is_import_path,
    last_segment,
    thaw,
)
from tests.strategies import data

MAPPING = Data((("a", 1), (2, None), ("c", Items((1, 2)))))


def test_a_mapping_is_asked_like_a_dict():
    assert (MAPPING["a"], MAPPING[2], MAPPING["c"]) == (1, None, Items((1, 2)))
    assert (MAPPING.get("a"), MAPPING.get(2, 5), MAPPING.get("x"), MAPPING.get("x", 7)) == (1, None, None, 7)
    assert ("a" in MAPPING, 2 in MAPPING, "x" in MAPPING, 1 in MAPPING) == (True, True, False, False)
    assert (list(MAPPING), len(MAPPING), len(Data()), list(Data())) == (["a", 2, "c"], 3, 0, [])
    with pytest.raises(KeyError) as caught:
        MAPPING["x"]
    assert caught.value.args == ("x",)


@pytest.mark.parametrize(("type_name", "last", "path"), [
    ("SGD", "SGD", False), ("torch.optim:SGD", "SGD", True), ("torch.optim.SGD", "SGD", True), ("a:b:c", "c", False),
    ("a.b c", "b c", False), ("", "", False), (".a", "a", False), ("a.", "", False), ("a.1b", "1b", False), (":a", "a", False), ("a:", "", False), ("a:b", "b", True),
])  # fmt: skip
def test_a_type_is_a_name_or_a_path(type_name, last, path):
    assert last_segment(type_name) == last
    assert is_import_path(type_name) is path
    assert (Component(type=type_name).name, Component(type=type_name).is_import_path) == (last, path)


@pytest.mark.parametrize(("plain", "frozen"), [
    ({"a": [1, (2,)], 3: {}}, Data((("a", Items((1, (2,)))), (3, Data())))),
    ({3, 1, 2}, Members((1, 2, 3))), (frozenset({"b", "a"}), Members(("a", "b"))), ({10, 9}, Members((10, 9))),
    ([], Items()), ((), ()), (1.5, 1.5), (None, None), ("x", "x"), (True, True),
])  # fmt: skip
def test_plain_data_is_frozen_all_the_way_down(plain, frozen):
    assert freeze(plain) == frozen
    assert type(freeze(plain)) is type(frozen)
    hash(freeze(plain))


def test_every_nan_is_one():
    assert freeze(-math.nan) is NAN
    assert freeze([float("nan")]) == freeze([float("nan")])
    assert freeze(math.inf) == math.inf


@given(data)
def test_what_is_frozen_thaws_into_what_it_was(value):
    again = thaw(freeze(value))
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(("value", "held"), [
    (Supplied(), True), ([Supplied()], True), (([1, Supplied()],), True), ({"a": {"b": Supplied()}}, True),
    ({"a": 1, "b": [2]}, False), ([], False), ("Supplied", False), ({Supplied(): 1}, False),
])  # fmt: skip
def test_a_slot_to_be_supplied_is_found_anywhere_among_values(value, held):
    assert holds_supplied(value) is held
