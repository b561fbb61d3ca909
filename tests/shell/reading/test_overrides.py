"""Overrides: how a value is read, where it goes, and what is said when it cannot."""

import pytest

VALUES = {
    "1": 1, "1e-3": 0.001, "-2": -2, "None": None, "true": True, "False": False, "null": None, "x": "x",
    "1,2,3": [1, 2, 3], "1,": [1], "(1,2)": (1, 2), "[1,2]": [1, 2], "[a,b]": ["a", "b"], "(a,1)": ("a", 1),
    "[(a,b),(c,1)]": [("a", "b"), ("c", 1)], "a,b": ["a", "b"], "'a,b'": "a,b", '"1"': "1", "": "", "[]": [],
    "()": (), "{'k': [1]}": {"k": [1]}, "a=b": "a=b", "it's": "it's", "it's,x": ["it's", "x"], "1+2j": "1+2j",
    "x.y:Z": "x.y:Z", "a/b c": "a/b c", " 5 ": 5, "[true, null]": [True, None], "b'x'": "b'x'", "f(1,2)": "f(1,2)",
}  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_a_value(folder, text):
    value = folder.data("a = 0", overrides=(f"a={text}",))["a"]
    assert value == VALUES[text]
    assert type(value) is type(VALUES[text])


START = "m = dict(a=1, l=[dict(t=1), dict(t=2)], p=(0.9, 0.99))\nn = 5"
EFFECTS = {
    ("m.a=2",): {"m": {"a": 2, "l": [{"t": 1}, {"t": 2}], "p": (0.9, 0.99)}, "n": 5},
    ("m.l.1.t=7", "m.l.0=x"): {"m": {"a": 1, "l": ["x", {"t": 7}], "p": (0.9, 0.99)}, "n": 5},
    ("m.p.0=0.5",): {"m": {"a": 1, "l": [{"t": 1}, {"t": 2}], "p": (0.5, 0.99)}, "n": 5},
    ("q.r.s=1",): {"m": {"a": 1, "l": [{"t": 1}, {"t": 2}], "p": (0.9, 0.99)}, "n": 5, "q": {"r": {"s": 1}}},
    ("+m.b=1", "~n"): {"m": {"a": 1, "l": [{"t": 1}, {"t": 2}], "p": (0.9, 0.99), "b": 1}},
    ("~m.l.0", "~m.p"): {"m": {"a": 1, "l": [{"t": 2}]}, "n": 5},
    ("+m.l.2=z",): {"m": {"a": 1, "l": [{"t": 1}, {"t": 2}, "z"], "p": (0.9, 0.99)}, "n": 5},
    ("m={'a': 3, 'z': 1}", "~m.l", "~m.p"): {"m": {"a": 3, "z": 1}, "n": 5},
    ("m={'_delete_': True, 'z': 1}",): {"m": {"z": 1}, "n": 5},
    ("m=None", "n=1", "n=2"): {"m": None, "n": 2},
}


@pytest.mark.parametrize("overrides", EFFECTS)
def test_an_override(folder, overrides):
    assert folder.data(START, overrides=overrides) == EFFECTS[overrides]


def test_int_keys_are_met(folder):
    assert folder.data("1: a", "c.yaml", ("1=b",)) == {1: "b"}


def test_positions_after_overrides(folder):
    """Set places are the override's; items after a removed one keep theirs."""
    text = "m = dict(\n  a=dict(b=1),\n  l=[\n    1,\n    dict(t=2)])"
    source = folder.source(text, overrides=("m.a.b=2", "~m.l.0", "x.y=[3]", "m.a.c={'d': 1}"))
    where = {path: (source.where(path) or "").replace(f"{folder.root}/", "") for path in source.positions}
    assert where == {
        ("m",): "c.py:1:1",
        ("m", "a"): "c.py:2:3",
        ("m", "a", "b"): "<override>:1:1",
        ("m", "a", "c"): "<override>:4:1",
        ("m", "a", "c", "d"): "<override>:4:1",
        ("m", "l"): "c.py:3:3",
        ("m", "l", 0): "c.py:5:5",
        ("m", "l", 0, "t"): "c.py:5:10",
        ("x",): "<override>:3:1",
        ("x", "y"): "<override>:3:1",
        ("x", "y", 0): "<override>:3:1",
    }


MISTAKES = {
    "lr": "config (<override>:1:1): The override 'lr' cannot be read. Write key.subkey=value, +key=value to add, or ~key to remove. [FK006]",
    "~n=1": "config (<override>:1:1): The override '~n=1' cannot be read. Write key.subkey=value, +key=value to add, or ~key to remove. [FK006]",
    "=1": "config (<override>:1:1): The override '=1' cannot be read. Write key.subkey=value, +key=value to add, or ~key to remove. [FK006]",
    "m..a=1": "config (<override>:1:1): The override 'm..a=1' cannot be read. Write key.subkey=value, +key=value to add, or ~key to remove. [FK006]",
    "n=[1": "config (<override>:1:1): The value of the override 'n=[1' cannot be read: [ is never closed. Close it, or quote it to keep it as text. [FK006]",
    "m.l.2=1": "m.l (<override>:1:1): m.l is a list of 2: index 2 is past its end. Use 0 to 1. [FK006]",
    "m.l.x=1": "m.l (<override>:1:1): m.l is a list of 2: 'x' is no index. Use 0 to 1. [FK006]",
    "m.p.9.z=1": "m.p (<override>:1:1): m.p is a tuple of 2: index 9 is past its end. Use 0 to 1. [FK006]",
    "m.a.b=1": "m.a (<override>:1:1): m.a is 1, so it has no 'b' to override. Override m.a as a whole. [FK006]",
    "~m.aa": "m.aa (<override>:1:1): ~m.aa removes nothing: there is no 'aa'. Did you mean \"a\"? Name a key that is set. [FK006]",
    "~z.y": "z (<override>:1:1): ~z.y removes nothing: there is no 'z'. Name a key that is set. [FK006]",
    "+n=1": "n (<override>:1:1): +n adds a key that is already set to 5. Leave out the + to change it. [FK006]",
    "+m.l.0=1": "m.l.0 (<override>:1:1): +m.l.0 adds a key that is already set to {'t': 1}. Leave out the + to change it. [FK006]",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_an_override_that_cannot_be_applied(folder, override):
    assert folder.message(START, overrides=(override,)) == MISTAKES[override]


@pytest.mark.parametrize(
    "override",
    ["a=" + "(" * 9000, "a=" + "[" * 4000 + "]" * 4000, "a=" + "-" * 9000 + "1", "a=" + "9" * 9000, "a=" + "x" * 99999,
     "a" + ".a" * 5000 + "=1", "a=" + "[x," * 200 + "]" * 200, "a=\0", "\0=1", "a=" + "{1:" * 90 + "1" + "}" * 90],
)  # fmt: skip
def test_hostile_overrides_are_bounded(folder, override):
    try:
        folder.data("", overrides=(override,))
    except ValueError as error:
        assert {problem.code for problem in error.problems} == {"FK006"}


def test_all_bad_overrides_are_reported_with_the_files_problems(folder):
    found = folder.problems("a = nope", overrides=("x", "b=[1"))
    assert [problem.code for problem in found] == ["FK007", "FK006", "FK006"]
    found = folder.problems("a = 1", overrides=("~x", "a=3", "a.b=1"))
    assert [(problem.path, problem.where) for problem in found] == [
        (("x",), "<override>:1:1"),
        (("a",), "<override>:3:1"),
    ]
