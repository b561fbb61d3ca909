"""JSON, TOML and YAML: what each value means, where it stands, and what is said of a mistake."""

import math

import pytest

YAML_SCALARS = {
    "no": "no", "on": "on", "yes": "yes", "y": "y", "true": True, "FALSE": False, "null": None, "~": None,
    "1": 1, "-3": -3, "0o17": 15, "0x1F": 31, "017": 17, "1_000": "1_000", "0b1": "0b1", "1:30": "1:30",
    "1e-3": 0.001, "1.5": 1.5, ".5": 0.5, "1.": 1.0, "-.inf": -math.inf, "2024-01-01": "2024-01-01",
    "!!str 1": "1", "!!float 1": 1.0, "'1'": "1", "!!int '3'": 3, "": None, "=": "=",
}  # fmt: skip


@pytest.mark.parametrize("text", YAML_SCALARS)
def test_yaml_scalars_follow_the_core_schema_of_yaml_1_2(folder, text):
    value = folder.data(f"a: {text}", "c.yaml")["a"]
    assert value == YAML_SCALARS[text]
    assert type(value) is type(YAML_SCALARS[text])


def test_yaml_anchors_are_copies(folder):
    data = folder.data("a: &x {k: [1]}\nb: *x\n1: int key", "c.yml")
    assert data == {"a": {"k": [1]}, "b": {"k": [1]}, 1: "int key"}
    assert data["a"] is not data["b"]


def test_empty_files_are_empty_configs(folder):
    assert folder.data("", "c.yaml") == folder.data("# nothing", "c.toml") == folder.data("", "c.py") == {}


def test_json_numbers_and_constants(folder):
    data = folder.data(
        '{"a": [NaN, Infinity, -Infinity, -0.5e1, 10, true, null, "\\u00e9"], "b": {}}', "c.json"
    )
    assert math.isnan(data["a"][0])
    assert data["a"][1:] == [math.inf, -math.inf, -5.0, 10, True, None, "é"]


def test_a_byte_order_mark_and_windows_line_ends(folder):
    assert folder.data("\ufeff{\r\n}", "c.json") == {}
    assert folder.data("\ufeffa = 1\r\nb = 2\r\n") == {"a": 1, "b": 2}


CHILD = {
    "c.json": '{\n"_base_": "base.yaml",\n"m": {"a": 5, "n": {{_base_.m.b}}},\n"f": "{{fileBasename}}-{{$FLEXCORE_UNSET:v}}",\n"e": {{$FLEXCORE_UNSET:3}}}',
    "c.toml": '_base_ = ["base.yaml"]\nf = "{{fileBasename}}-{{$FLEXCORE_UNSET:v}}"\ne = 3\n[m]\na = 5\nn = "{{_base_.m.b}}"',
    "c.yaml": "_base_: base.yaml\nm: {a: 5, n: {{ _base_.m.b }}}\nf: '{{fileBasename}}-{{$FLEXCORE_UNSET:v}}'\ne: {{$FLEXCORE_UNSET:3}}",
    "c.py": "_base_ = 'base.yaml'\nm = dict(a=5, n=_base_.m.b)\nf = '{{fileBasename}}-{{$FLEXCORE_UNSET:v}}'\ne = {{$FLEXCORE_UNSET:3}}",
}  # fmt: skip


@pytest.mark.parametrize("name", CHILD)
def test_bases_and_templates_work_across_formats(folder, name):
    folder.put("base.yaml", "m:\n  a: 1\n  b: [x, y]\n")
    expected = {"m": {"a": 5, "b": ["x", "y"], "n": ["x", "y"]}, "f": f"{name}-v", "e": 3}
    assert folder.data(CHILD[name], name) == expected


PLACES = {
    "c.json": ('{\n  "a": {"b": 1,\n    "c": [2,\n 3]}\n}', {("a",): "2:3", ("a", "b"): "2:9", ("a", "c"): "3:5", ("a", "c", 0): "3:11", ("a", "c", 1): "4:2"}),
    "c.yaml": ("a:\n  b: 1\n  c: [2,\n    3]\n", {("a",): "1:1", ("a", "b"): "2:3", ("a", "c"): "3:3", ("a", "c", 0): "3:7", ("a", "c", 1): "4:5"}),
    "c.toml": ("# x\n[a]\nb = '''\nq = 1\n'''\nc = [ # [\n 2,\n 3]\n'd e'.f = {x = 1}\n[[g]]\n[[g]]\nh.i = \"#\"\n", {("a",): "2:1", ("a", "b"): "3:1", ("a", "c"): "6:1", ("a", "d e"): "9:1", ("a", "d e", "f"): "9:1", ("g",): "10:1", ("g", 0): "10:1", ("g", 1): "11:1", ("g", 1, "h"): "12:1", ("g", 1, "h", "i"): "12:1"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_every_key_remembers_its_place(folder, name):
    text, expected = PLACES[name]
    source = folder.source(text, name)
    assert {path: f"{at.line}:{at.column}" for path, at in source.positions.items()} == expected


MISTAKES = {
    "c.json": ('{"a": 1,\n "b": }', "config (c.json:2:7): JSON syntax error: expected a value, found '}'. Correct the JSON there. [FK002]"),
    "d.json": ('{"a": 1,\n "a": 2}', "config (d.json:2:2): The key 'a' is already set at d.json:1:2; the first value would be lost. Keep one of the two. [FK004]"),
    "e.json": ("[1]", "config (e.json:1): \"e.json\" holds [1] where a config needs a mapping at the top. Write keys and values. [FK002]"),
    "f.json": ('{"a": 1} x', "config (f.json:1:10): JSON syntax error: expected the end of the file, found 'x'. Correct the JSON there. [FK002]"),
    "g.json": ('{"a": "x', "config (g.json:1:7): JSON syntax error: Unterminated string starting at. Correct the JSON there. [FK002]"),
    "h.json": ('{"a": tru}', "config (h.json:1:7): JSON syntax error: expected a value, found 'tru}'. Correct the JSON there. [FK002]"),
    "i.json": ('{a: 1}', "config (i.json:1:2): JSON syntax error: expected a key in double quotes, found 'a: 1}'. Correct the JSON there. [FK002]"),
    "c.toml": ("a = 1\nb = no", "config (c.toml:2:5): TOML syntax error: Invalid value. Correct the TOML there. [FK002]"),
    "d.toml": ("a = 1\na = 2", "config (d.toml:2): TOML sets the same key twice: Cannot overwrite a value. Keep one of the two. [FK004]"),
    "e.toml": ("[x]\na = 2024-01-01", "x.a (e.toml:2:1): '2024-01-01' is a TOML date, which a config cannot hold. Write it as a string, in quotes. [FK002]"),
    "c.yaml": ("a: 1\nb: [1", "config (c.yaml:2:6): YAML syntax error: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'. Correct the YAML there. [FK002]"),
    "d.yaml": ("a: 1\na: 2", "config (d.yaml:2:1): The key 'a' is already set at d.yaml:1:1; the first value would be lost. Keep one of the two. [FK004]"),
    "e.yaml": ("a: &x {k: 1}\nb:\n  <<: *x", "config (e.yaml:3:3): The merge key << is not part of YAML 1.2. Copy the entries, or put them in a file of their own and name it in _base_. [FK002]"),
    "f.yaml": ("a: 1\n---\nb: 1", "config (f.yaml:2:1): A second YAML document starts here. Keep one config in a file. [FK002]"),
    "g.yaml": ("a: !!int x", "config (g.yaml:1:4): 'x' is not a YAML int. Correct the YAML there. [FK002]"),
    "h.yaml": ("? [1]\n: 2", "config (h.yaml:1:3): A list is used as a key. Use a string as the key. [FK002]"),
    "i.yaml": ("a: \x01", "config (i.yaml:1): YAML syntax error: the character 0x0001 is not allowed. Remove it, or write it as an escape in double quotes. [FK002]"),
    "j.yaml": ("_base_: {a: 1}", "_base_ (j.yaml:1:1): _base_ is {'a': 1}, not a file name or a list of them. Write _base_ = 'file.py'. [FK005]"),
    "l.yaml": ("_base_: gone.py\na: '{{_base_.x}}'\nb: '{{$FLEXCORE_UNSET:}}'", "_base_ (l.yaml:1:1): The base \"gone.py\" does not exist: there is no file \"gone.py\". Bases are named relative to the file that inherits them. [FK005]\nconfig (l.yaml:3:1): The environment variable FLEXCORE_UNSET is not set and '{{$FLEXCORE_UNSET:}}' gives no default. Set FLEXCORE_UNSET, or write a default: {{$FLEXCORE_UNSET:value}}. [FK007]"),
    "m.yaml": ("_base_: '{{_base_.x}}'", "config (m.yaml:1:1): _base_.x does not exist: the base has no 'x' there. Name a key that a file in _base_ defines. [FK007]"),
    "k.yaml": ("a: x{{_base_.b}}", "config (k.yaml:1:1): _base_.b does not exist: the base has no 'b' there. Name a key that a file in _base_ defines. [FK007]"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place_and_remedy(folder, name):
    text, expected = MISTAKES[name]
    assert folder.message(text, name) == expected
