"""How a line of an explanation, and single values in it, are written."""

import pytest

from flexcore.components import Component, Data, Items, Members, Supplied
from flexcore.explaining_rows import number, or_unknown, row, thing


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("lr", "", None, 0, "x"), "lr           0 x"),
        (("", "indented"), "             indented"),
        (("a label too long", "x"), "a label too long x"),
        (("bare", None, ""), "bare"),
    ],
)
def test_a_row_has_a_label_and_what_there_is(parts, expected):
    assert row(*parts) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "? (needs ranks)"), (0, "0"), (1234567, "1,234,567"), (0.5, "0.5"), ("x", "x"), ("", "")],
)
def test_an_unknown_names_what_it_needs(value, expected):
    assert or_unknown(value, "ranks") == expected


LONG = "x" * 37  # 39 with its quotes
ARGUMENTS = (
    ("a", 1), ("b", "t"), ("c", Data((("k", 1),))), ("d", Items((1,))), ("e", (1, 2)), ("f", LONG), ("g", LONG + "y"),
    ("h", Members((1,))),
)  # fmt: skip


def test_a_thing_has_its_type_and_settings_in_brief():
    made = thing(Component(type="pkg:Net", kwargs=Data(ARGUMENTS)))
    told = f"a=1, b='t', c=..., d=..., e=(1, 2), f='{LONG}', g='{LONG[:36]}..., h=..."
    assert made == f"pkg:Net({told})"
    assert thing(Component(type="BN")) == "BN()"
    assert thing(Supplied()) == "supplied at run time"


def test_a_number_has_four_digits_that_count():
    assert [number(value) for value in (None, 0, 0.1, 1 / 3000, 12345.6, 2)] == [
        "?", "0", "0.1", "0.0003333", "1.235e+04", "2",
    ]  # fmt: skip
