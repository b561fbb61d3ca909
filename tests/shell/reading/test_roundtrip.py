"""The same data written as JSON, YAML and Python reads back the same."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shell.files import read


class Quoting(yaml.SafeDumper):
    """PyYAML writes for YAML 1.1, where 1e3 is text; strings in quotes mean the same in both."""


Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)
Quoting.ignore_aliases = lambda *_: True

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda text: "{{" not in text)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
names = st.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True).filter(
    lambda name: not __import__("keyword").iskeyword(name)
)


def python_text(value: Any) -> str:
    return repr(value).replace("inf", "float('inf')")


def renderings(data: dict[str, Any]) -> dict[str, str]:
    python = "\n".join(f"{key} = {literal(value)}" for key, value in data.items())
    return {
        "c.json": json.dumps(data),
        "d.json": json.dumps(data, ensure_ascii=False, indent=1),
        "c.yaml": yaml.dump(data, Dumper=Quoting, sort_keys=False, allow_unicode=False),
        "d.yaml": yaml.dump(data, Dumper=Quoting, sort_keys=False, default_flow_style=True, width=40),
        "c.py": python,
    }


def literal(value: Any) -> str:
    """repr, with infinities as Python can read them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return f"float({str(value)!r})" if isinstance(value, float) else repr(value)


def without_delete(value: Any) -> bool:
    return "_delete_" not in json.dumps(value)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, values, max_size=4).filter(without_delete))
def test_json_yaml_and_python_read_back_equal(data):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in renderings(data).items():
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8", newline="\n")
            source = read(str(path))
            assert source.data == data, name
            assert repr(source.data) == repr(data), name
            assert all((key,) in source.positions for key in data)
