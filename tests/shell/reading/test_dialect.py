"""mmengine's Python dialect, feature by feature: what is written and what it means."""

import pytest

FEATURES = {
    "literals": ("a, b, c = 1, 2.5, 'x'\nd = [None, True]\ne = {1, 2}", {"a": 1, "b": 2.5, "c": "x", "d": [None, True], "e": {1, 2}}),
    "tuple": ("a = (1, 'b')", {"a": (1, "b")}),
    "dict call": ("a = dict(type='X', n=dict(k=1))", {"a": {"type": "X", "n": {"k": 1}}}),
    "dict spread": ("p = dict(x=1)\na = dict(p, y=2)\nb = dict(**p, z=3)\nc = {**p, 'w': 4}", {"p": {"x": 1}, "a": {"x": 1, "y": 2}, "b": {"x": 1, "z": 3}, "c": {"x": 1, "w": 4}}),
    "dict of pairs": ("a = dict([('x', 1)])\nb = dict(zip('ab', (1, 2)))", {"a": {"x": 1}, "b": {"a": 1, "b": 2}}),
    "list spread": ("p = [1, 2]\na = [*p, 3]\nb = (*p,)\nc = max(*p)", {"p": [1, 2], "a": [1, 2, 3], "b": (1, 2), "c": 2}),
    "empty calls": ("a, b, c, d = dict(), list(), tuple(), set()", {"a": {}, "b": [], "c": (), "d": set()}),
    "item and slice": ("p = [1, 2, 3]\na = p[0]\nb = p[1:]\nc = p[::-1]\nd = 'abc'[-1]\ne = (1, 2)[:1]", {"p": [1, 2, 3], "a": 1, "b": [2, 3], "c": [3, 2, 1], "d": "c", "e": (1,)}),
    "key by attribute": ("m = dict(a=dict(b=1))\nx = m.a.b\nm.a.b = 2", {"m": {"a": {"b": 2}}, "x": 1}),
    "arithmetic": ("a = 2 ** 3 + 7 // 2 - 1 % 2\nb = 1 / 4\nc = -a\nd = 1 << 4 | 1\ne = not a\nf = ~1 & 7 ^ 2", {"a": 10, "b": 0.25, "c": -10, "d": 17, "e": False, "f": 4}),
    "sequence arithmetic": ("a = [1] * 2 + [2]\nb = 'ab' * 2\nc = (1,) + (2,)\nd = 2 * [0]", {"a": [1, 1, 2], "b": "abab", "c": (1, 2), "d": [0, 0]}),
    "sets and mappings joined": ("a = {1} | {2}\nb = {1, 2} - {2}\nc = dict(x=1) | dict(y=2)", {"a": {1, 2}, "b": {1}, "c": {"x": 1, "y": 2}}),
    "comparison": ("a = 1 < 2 <= 2\nb = 'x' in ['x']\nc = None is None\nd = 1 not in (2,)\ne = 'k' in dict(k=1)", {"a": True, "b": True, "c": True, "d": True, "e": True}),
    "boolean": ("a = 0 or 'x'\nb = 1 and []\nc = 'y' if a else 'n'", {"a": "x", "b": [], "c": "y"}),
    "short circuit": ("a = 1 or missing\nb = 0 and missing\nc = 1 if True else missing", {"a": 1, "b": 0, "c": 1}),
    "f-string": ("n = 3\na = f'{n}-{n:03d}-{\"q\"!r}-{1/3:.2f}'\nw = 5\nb = f'{n:{w}}'", {"n": 3, "a": "3-003-'q'-0.33", "w": 5, "b": "    3"}),
    "format": ("a = '{}-{}'.format(1, 'b')\nb = '{0}{0}{k:>3}'.format(1, k=2)\nc = '{:{}}'.format(1, 4)\nd = '{{}}'.format()", {"a": "1-b", "b": "11  2", "c": "   1", "d": "{}"}),
    "percent": ("a = '%d of %s' % (1, 'x')\nb = '%(k).1f%%' % dict(k=2)\nc = '%s' % [1]", {"a": "1 of x", "b": "2.0%", "c": "[1]"}),
    "comprehensions": ("a = [i * j for i in range(3) for j in (1, 2) if i]\nb = {k: v for k, v in dict(x=1).items()}\nc = {i % 2 for i in range(9)}\nd = sum(i for i in range(4))", {"a": [1, 2, 2, 4], "b": {"x": 1}, "c": {0, 1}, "d": 6}),
    "comprehension names end with it": ("i = 9\na = [i for i in range(2)]", {"i": 9, "a": [0, 1]}),
    "for": ("a = []\nfor i, n in enumerate('xy'):\n    if n == 'z':\n        continue\n    a.append((i, n))\nelse:\n    b = 1\ndel i, n", {"a": [(0, "x"), (1, "y")], "b": 1}),
    "break": ("for i in range(9):\n    if i == 2:\n        break\nelse:\n    x = 1", {"i": 2}),
    "if": ("a = 1\nif a > 1:\n    b = 'big'\nelif a == 1:\n    b = 'one'\nelse:\n    b = 'small'", {"a": 1, "b": "one"}),
    "augmented": ("a = 1\na += 2\na *= 3\nb = [1]\nb += (2,)\nc = dict(x=1)\nc |= dict(y=2)\nd = dict(n=1)\nd['n'] -= 1", {"a": 9, "b": [1, 2], "c": {"x": 1, "y": 2}, "d": {"n": 0}}),
    "aliases share until copied": ("import copy\na = dict(x=[1])\nb = a\nc = a.copy()\nd = copy.deepcopy(a)\nb['x'].append(2)\nb['y'] = 1", {"a": {"x": [1, 2], "y": 1}, "b": {"x": [1, 2], "y": 1}, "c": {"x": [1, 2]}, "d": {"x": [1]}}),
    "deepcopy by name": ("from copy import deepcopy\na = [1]\nb = deepcopy(a)\nb[0] = 2", {"a": [1], "b": [2]}),
    "mapping methods": ("m = dict(a=1)\nm.update(b=2)\nm.update({'c': 3}, d=4)\nx = m.pop('a')\ny = m.get('z', 7)\nz = m.setdefault('e', 5)\nk = list(m.keys())\nv = m.values()\nq = m.pop('no', 0)", {"m": {"b": 2, "c": 3, "d": 4, "e": 5}, "x": 1, "y": 7, "z": 5, "k": ["b", "c", "d", "e"], "v": [2, 3, 4, 5], "q": 0}),
    "list methods": ("a = [1]\na.append(2)\na.extend([3])\na.insert(0, 0)\nb = a.pop()\nc = a.pop(0)", {"a": [1, 2], "b": 3, "c": 0}),
    "text methods": ("a = '-'.join(['x', 'y'])\nb = ' Q '.strip().lower().upper()\nc = 'a,b'.split(',')\nd = 'aa'.replace('a', 'b')\ne = 'ab'.startswith(('a', 'z'))\nf = 'ab'.endswith('b')", {"a": "x-y", "b": "Q", "c": ["a", "b"], "d": "bb", "e": True, "f": True}),
    "functions": ("a = [round(2.567, 1), int('3'), float('1e3'), str(1), bool(0), len('ab')]\nb = [min(2, 1), max([1, 5]), abs(-1), sum([1, 2]), sorted([2, 1]), any([0, 1]), all([0, 1]), divmod(7, 2), pow(2, 3), pow(2, 3, 5)]\nc = list(reversed(range(1, 6, 2)))\nd = list(zip([1], 'a'))\ne = sorted('ba', reverse=True)", {"a": [2.6, 3, 1000.0, "1", False, 2], "b": [1, 5, 1, 3, [1, 2], True, False, (3, 1), 8, 3], "c": [5, 3, 1], "d": [(1, "a")], "e": ["b", "a"]}),
    "del": ("a = dict(x=1, y=2)\nb = [1, 2]\nc = 1\ndel a['x'], b[0], c\ndel a.y", {"a": {}, "b": [2]}),
    "targets": ("a = [1, 2]\na[0] = 9\na[1:] = [7, 8]\n(b, *c), d = [1, 2, 3], 4\ne = f = 5\ng: int = 6\nh: str", {"a": [9, 7, 8], "b": 1, "c": [2, 3], "d": 4, "e": 5, "f": 5, "g": 6}),
    "private names are helpers": ("_n = 2\n__all__ = []\na = _n", {"a": 2}),
    "imports are names": ("import torch\nimport torch.nn as nn\nfrom torch.optim import SGD, AdamW as A\nfrom torch import nn as n2\nfrom __future__ import annotations\na = dict(type=SGD)\nb = [A, nn.Linear, n2.ReLU, torch.optim.lr_scheduler.StepLR, torch.float16]\nc = nn", {"a": {"type": "torch.optim:SGD"}, "b": ["torch.optim:AdamW", "torch.nn:Linear", "torch.nn:ReLU", "torch.optim.lr_scheduler:StepLR", "torch:float16"], "c": "torch.nn"}),
    "docstring and ellipsis of nothing": ("'''About.'''\npass\na = 1", {"a": 1}),
    "sets iterate in order": ("a = [x for x in {3, 1, 2}]\nb = list({'b', 'a'})", {"a": [1, 2, 3], "b": ["a", "b"]}),
    "file name": ("a = '{{ fileBasename }}'\nb = '{{fileBasenameNoExtension}}{{fileExtname}}'\nc = {{fileBasename}}", {"a": "c.py", "b": "c.py", "c": "c.py"}),
    "environment": ("a = '{{$FLEXCORE_UNSET:x/y}}'\nb = '{{$FLEXCORE_SET:no}}'\nd = {{$FLEXCORE_NUMBER:1}}\ne = {{ $FLEXCORE_UNSET:2.5 }}", {"a": "x/y", "b": "yes", "d": 7, "e": 2.5}),
}  # fmt: skip


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_means_what_python_means_by_it(folder, monkeypatch, name):
    """Each expectation is what mmengine's Config gives (imports excepted: they stay names)."""
    monkeypatch.setenv("FLEXCORE_SET", "yes")
    monkeypatch.setenv("FLEXCORE_NUMBER", "7")
    text, expected = FEATURES[name]
    assert folder.data(text) == expected


@pytest.mark.parametrize(
    "name",
    [
        "arithmetic", "sequence arithmetic", "comparison", "boolean", "f-string", "format", "percent",
        "comprehensions", "functions", "text methods", "list methods", "for", "break", "targets",
        "aliases share until copied", "mapping methods", "item and slice", "augmented",
    ],
)  # fmt: skip
def test_python_itself_agrees(name):
    """The table's own code, run by Python, gives the table's result: the expectations are not ours alone."""
    text, expected = FEATURES[name]
    scope: dict[str, object] = {}
    exec(text, scope)
    found = {key: scope[key] for key in expected}
    if name == "mapping methods":
        found["v"] = list(found["v"])
    assert found == expected


BASE = "model = dict(type='A', neck=dict(n=1, k=2), heads=[1])\nlr = 0.1\n_hidden = 3\n"
INHERITED = {
    "merges": ("model = dict(neck=dict(n=5))", {"model": {"type": "A", "neck": {"n": 5, "k": 2}, "heads": [1]}, "lr": 0.1}),
    "replaces with _delete_": ("model = dict(_delete_=True, z=1)", {"model": {"z": 1}, "lr": 0.1}),
    "replaces deep inside": ("model = dict(neck=dict(_delete_=True, z=1))", {"model": {"type": "A", "neck": {"z": 1}, "heads": [1]}, "lr": 0.1}),
    "_delete_ false merges": ("model = dict(neck=dict(_delete_=False, n=3))", {"model": {"type": "A", "neck": {"n": 3, "k": 2}, "heads": [1]}, "lr": 0.1}),
    "_delete_ of nothing vanishes": ("new = dict(_delete_=True, a=dict(_delete_=True))", {"model": {"type": "A", "neck": {"n": 1, "k": 2}, "heads": [1]}, "lr": 0.1, "new": {"a": {}}}),
    "lists replace": ("model = dict(heads=[])", {"model": {"type": "A", "neck": {"n": 1, "k": 2}, "heads": []}, "lr": 0.1}),
    "refers to the base": ("a = _base_.lr * 2\nb = _base_.model.neck['n']\nlr = {{_base_.lr}}\nc = '{{ _base_.model.heads }}'\nd = 'lr={{_base_.lr}}'\ne = _base_._hidden", {"model": {"type": "A", "neck": {"n": 1, "k": 2}, "heads": [1]}, "lr": 0.1, "a": 0.2, "b": 1, "c": [1], "d": "lr=0.1", "e": 3}),
    "changing a base value changes no base": ("m = _base_.model\nm.type = 'B'", {"model": {"type": "A", "neck": {"n": 1, "k": 2}, "heads": [1]}, "lr": 0.1, "m": {"type": "B", "neck": {"n": 1, "k": 2}, "heads": [1]}}),
}  # fmt: skip


@pytest.mark.parametrize("name", INHERITED)
def test_a_child_config(folder, name):
    """Inheritance by _base_ is mmengine's."""
    folder.put("base.py", BASE)
    text, expected = INHERITED[name]
    assert folder.data("_base_ = 'base.py'\n" + text) == expected


def test_bases_nest_and_stand_side_by_side(folder):
    """A list of bases, one with a base of its own, each relative to the file that names it."""
    folder.put("x/root.py", "a = dict(p=1, q=1)")
    folder.put("x/mid.py", "_base_ = ['./root.py']\na = dict(q=2)")
    folder.put("y/other.json", '{"b": {"k": [1]}}')
    text = "_base_ = ['../x/mid.py', '../y/other.json']\nb = dict(k2=_base_.a.q)"
    assert folder.data(text, "z/c.py") == {"a": {"p": 1, "q": 2}, "b": {"k": [1], "k2": 2}}


def test_read_base_brings_in_names(folder):
    """The newer style: names of other configs, changed in place, as Python would; other files stay as they are."""
    folder.put(
        "_base_/models/m.py", "from torch.optim import SGD\nmodel = dict(a=1, deep=dict(b=2))\n_h = 5\nx = 1"
    )
    folder.put("_base_/sched.py", "lr = 0.1\nunused = 2")
    text = """
from mmengine.config import read_base
with read_base():
    from .._base_.models.m import *
    from .._base_.sched import lr as rate, lr
model.update(deep=dict(c=3))
model.a += 1
opt = dict(type=SGD, lr=lr)
"""
    expected = {"model": {"a": 2, "deep": {"c": 3}}, "x": 1, "rate": 0.1, "lr": 0.1}
    assert folder.data(text, "cfg/c.py") == {**expected, "opt": {"type": "torch.optim:SGD", "lr": 0.1}}


def test_a_base_is_read_once(folder, monkeypatch):
    """Two bases may share a third as long as they set nothing twice; the file is opened once."""
    from shell.reading import loading

    opened = []
    original = loading.file_text
    monkeypatch.setattr(
        loading, "file_text", lambda path, name: (opened.append(name), original(path, name))[1]
    )
    folder.put("root.py", "n = 1")
    for name in "ab":
        folder.put(f"{name}.py", f"with read_base():\n    from .root import n\n{name} = n\ndel n")
    assert folder.data("_base_ = ['a.py', 'b.py']") == {"a": 1, "b": 1}
    assert len(opened) == 4


def test_bases_by_absolute_path_and_through_symlinks(folder):
    folder.put("real/base.py", "a = 1")
    (folder.root / "link.py").symlink_to(folder.root / "real" / "base.py")
    absolute = folder.put("abs.py", "b = 2")
    assert folder.data(f"_base_ = ['link.py', {absolute!r}]") == {"a": 1, "b": 2}


def test_positions_follow_values_through_inheritance(folder):
    """A merged mapping's entries each point to the file they were written in; columns count characters."""
    folder.put("base.py", "m = dict(\n    a=1,\n    b=dict(c=2))")
    source = folder.source("_base_ = 'base.py'\nm = dict(b=dict(é='ü', d=[1, 2]))\nn = m['b']\nn['e'] = 4")
    where = {key: (source.where(key) or "").replace(f"{folder.root}/", "") for key in source.positions}
    assert where == {
        ("m",): "c.py:2:1",
        ("m", "a"): "base.py:2:5",
        ("m", "b"): "c.py:2:10",
        ("m", "b", "c"): "base.py:3:12",
        ("m", "b", "é"): "c.py:2:17",
        ("m", "b", "d"): "c.py:2:24",
        ("m", "b", "d", 0): "c.py:2:27",
        ("m", "b", "d", 1): "c.py:2:30",
        ("m", "b", "e"): "c.py:4:1",
        ("n",): "c.py:3:1",
        ("n", "é"): "c.py:2:17",
        ("n", "d"): "c.py:2:24",
        ("n", "d", 0): "c.py:2:27",
        ("n", "d", 1): "c.py:2:30",
        ("n", "e"): "c.py:4:1",
    }


def test_positions_follow_list_items(folder):
    """append, insert, pop and + keep each item with its place."""
    source = folder.source("a = [\n  1,\n  2]\na.insert(0, 5)\na.append(6)\na.pop(1)\na = a + [\n  7]")
    assert source.data == {"a": [5, 2, 6, 7]}
    assert [source.positions["a", index].line for index in range(4)] == [4, 3, 5, 8]


CONFIG_PROBLEMS = {
    "function": ("def f():\n    return 1\na = f()", 'config (c.py:1:1): A function definition needs execution, which a config never gets. Write the result as plain data, or move the code to a module of yours and name it "module:Name". [FK003]'),
    "call of an imported class": ("from torch.optim import SGD\nopt = SGD(lr=1)", 'opt (c.py:2:7): The call SGD(lr=1) needs execution, which a config never gets. Write dict(type="torch.optim:SGD", ...): the runner builds it when it runs. [FK003]'),
    "missing name": ("rate = 1\nlr = rat", 'lr (c.py:2:6): The name "rat" is not defined. Did you mean "rate"? Define it above this line, or put it in quotes if it is a string. [FK007]'),
    "missing key": ("m = dict(depth=1)\nx = m.dept", 'x (c.py:2:5): m has no key \'dept\'. Did you mean "depth"? Name a key that is there. [FK007]'),
    "zero division": ("a = [1, 1 / 0]", "a (c.py:1:9): 1 / 0 fails: division by zero. Correct the expression, or write the value out. [FK007]"),
    "syntax": ("a = 1\nb = = 2", "config (c.py:2:5): Python syntax error: invalid syntax. Correct the Python there. [FK002]"),
    "no base": ("_base_ = 'bse.py'", '_base_ (c.py:1:1): The base "bse.py" does not exist: there is no file "bse.py". Did you mean "base.py"? Bases are named relative to the file that inherits them. [FK005]'),
    "duplicate": ("_base_ = ['base.py', 'also.py']", "lr (also.py:1:1): Two bases set 'lr': base.py:2:1 and also.py:1:1. Keep it in one of them, or let one base inherit from the other. [FK004]"),
    "kind of base": ("_base_ = 'base.py'\nlr = dict(a=1)", "lr (c.py:2:1): lr is a mapping here but 0.1 in the base; only mappings merge. Add _delete_=True to the mapping to replace the base's value. [FK005]"),
    "base value": ("_base_ = 'base.py'\nx = '{{_base_.model.nek}}'", 'x (c.py:2:5): _base_.model.nek does not exist: the base has no \'nek\' there. Did you mean "neck"? Name a key that a file in _base_ defines. [FK007]'),
    "environment": ("x = '{{$FLEXCORE_UNSET:}}'", "x (c.py:1:5): The environment variable FLEXCORE_UNSET is not set and '{{$FLEXCORE_UNSET:}}' gives no default. Set FLEXCORE_UNSET, or write a default: {{$FLEXCORE_UNSET:value}}. [FK007]"),
    "cycle": ("_base_ = 'c.py'", '_base_ (c.py:1:1): The base "c.py" inherits from itself, through the file that names it here. Remove one of the _base_ entries of the circle. [FK005]'),
    "relative import": ("from .base import lr", "config (c.py:1:1): A relative import outside `with read_base():`. Put it inside `with read_base():`, which is how a config takes names from another config. [FK005]"),
    "name in a base": ("with read_base():\n    from .base import lrr", "config (c.py:2:5): \".base\" defines no 'lrr'. Import a name that the base config sets. [FK005]"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIG_PROBLEMS)
def test_a_problem_names_place_value_rule_and_remedy(folder, name):
    folder.put("base.py", BASE)
    folder.put("also.py", "lr = 1")
    text, expected = CONFIG_PROBLEMS[name]
    assert folder.message(text).replace(f"{folder.root}", "") == expected


def test_all_problems_at_once_and_none_twice(folder):
    """What depends on a reported problem is not reported again; what does not is."""
    text = "a = open('x')\nb = a + 1\nb.update(c=2)\nc = missing\nfor i in range(9):\n    d = 1 / 0\ne = d\nf = lambda: 1"
    found = folder.problems(text)
    assert [(problem.code, problem.where.rsplit("/", 1)[1]) for problem in found] == [
        ("FK003", "c.py:1:5"),
        ("FK007", "c.py:4:5"),
        ("FK007", "c.py:6:9"),
        ("FK003", "c.py:8:5"),
    ]


def test_problems_of_bases_are_reported_where_they_are(folder):
    folder.put("one.py", "a = eval('1')")
    folder.put("two.json", "{")
    found = folder.problems("_base_ = ['one.py', 'two.json']\nb = _base_.a\nc = nope")
    places = [(problem.code, problem.where.rsplit("/", 1)[1]) for problem in found]
    assert places == [("FK003", "one.py:1:5"), ("FK002", "two.json:1:2"), ("FK007", "c.py:3:5")]
