"""The facade: reading a path, where a value stands, what an unreadable file says, what importing costs."""

import subprocess
import sys

import pytest

from flexcore.problems import ConfigError
from shell.files import Position, Source, apply_overrides, read

CHECK = """
import sys
import shell.files
heavy = {"torch", "numpy", "yaml", "tomllib", "ast", "json", "shell.reading.loading"}
before = set(sys.argv[1].split(","))
print(sorted((heavy & sys.modules.keys()) - before))
"""


def problem_of(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    return str(caught.value)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_read_gives_plain_data_and_places(here):
    (here / "c.py").write_text("a = dict(b=[1])\n")
    source = read("c.py", ["a.b.0=2"])
    assert source.data == {"a": {"b": [2]}}
    assert type(source.data["a"]) is dict
    assert type(source.data["a"]["b"]) is list
    assert source.positions["a", "b"] == Position("c.py", 1, 10)
    assert source.where(("a", "b", 0)) == "<override>:1:1"
    assert source.where(("a", "b", 7, "x")) == "c.py:1:10"
    assert source.where(("nowhere",)) == "c.py:1"
    assert source.where(()) == "c.py:1"


def test_where_is_unknown_without_a_file():
    assert Source(data={}, positions={}, filename="").where(("a",)) is None


def test_apply_overrides_leaves_the_source_alone():
    source = Source(data={"a": {"b": 1}, "l": [1]}, positions={("a",): Position("f", 3, 1)}, filename="f")
    changed = apply_overrides(source, ["a.b=2", "~l"])
    assert source.data == {"a": {"b": 1}, "l": [1]}
    assert changed.data == {"a": {"b": 2}}
    assert changed.where(("a",)) == "f:3:1"
    assert changed.where(("a", "b")) == "<override>:1:1"


UNREADABLE = {
    "gone.py": 'config (gone.py:1): There is no file "gone.py". Give the path of a readable config file. [FK001]',
    "folder.py": 'config (folder.py:1): "folder.py" is a directory, not a config file. Give the path of a readable config file. [FK001]',
    "latin.json": 'config (latin.json:2): "latin.json" is not UTF-8: byte 0xe9 at offset 2 cannot be decoded. Save the file as UTF-8. [FK001]',
    "c.ymal": 'config (c.ymal:1): "c.ymal" has the extension ".ymal", which is no config format. Did you mean ".yml"? Use .py, .json, .toml, .yaml or .yml. [FK001]',
    "plain": 'config (plain:1): "plain" has the extension "", which is no config format. Use .py, .json, .toml, .yaml or .yml. [FK001]',
    "nul\0.py": "config (nul\0.py:1): \"nul\0.py\" cannot be read: 'embedded null byte'. Give the path of a readable config file. [FK001]",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_said(here, name):
    (here / "folder.py").mkdir()
    (here / "latin.json").write_bytes(b"{\n\xe9}")
    assert problem_of(name) == UNREADABLE[name]


def python(*arguments: str) -> str:
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def test_importing_the_facade_is_cheap():
    """No reader, no parser, no numeric library before a file asks for one."""
    before = python("import sys, attrs, flexcore.problems; print(','.join(sys.modules))")
    assert python(CHECK, before) == "[]"


@pytest.mark.parametrize(("name", "text"), [("c.py", "a = 1"), ("c.json", "{}")])
def test_a_format_loads_only_its_own_parser(here, name, text):
    (here / name).write_text(text)
    code = f"import sys; from shell.files import read; read({str(here / name)!r})\n"
    assert python(code + "print(sorted({'torch', 'numpy', 'yaml', 'tomllib'} & sys.modules.keys()))") == "[]"
