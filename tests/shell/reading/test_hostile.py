"""Configs written to harm: each is refused with a problem, soon, in little memory, and nothing runs."""

import os
import sys

import pytest

from flexcore.problems import ConfigError
from shell.files import read

MARKER = "flexcore_hostile_marker"

EXECUTION = [
    "__import__('os').system('x')",
    "a = __import__('os')",
    "import os\nos.system('x')",
    "from os import system\nsystem('x')",
    "a = eval('1')",
    "exec('a = 1')",
    "a = open('x')",
    "a = ().__class__.__bases__",
    "a = dict().__class__",
    "a = dict(__class__=1).__init__",
    "a = '{0.__class__}'.format(1)",
    "a = '{0[0]}'.format([1])",
    "a = '{k.__init__.__globals__}'.format(k=1)",
    "a = '{:{0.real}}'.format(1)",
    "a = getattr(1, 'real')",
    "a = (1).real",
    "a = 'x'.__len__()",
    "a = str.format('{}', 1)",
    "a = lambda: 1",
    "def f(): pass",
    "class A: pass",
    "while True: pass",
    "try:\n    a = 1\nfinally:\n    pass",
    "with open('x') as f:\n    pass",
    "async def f(): pass",
    "assert False",
    "raise SystemExit",
    "global a",
    "match 1:\n    case 1: pass",
    "a = (b := 1)",
    "a = [1] @ [2]",
    "a = [x async for x in []]",
    "from os import *",
    "a = __name__",
    "a = __builtins__",
    "f = print\nf(1)",
    "(lambda: 1)()",
    "a = [print][0](1)",
    "import subprocess as dict\na = dict('x')",
    "a = type('X', (), {})",
    "dict.update = 1",
    "return 1",
    "@dict\ndef f(): pass",
]


@pytest.mark.parametrize("text", EXECUTION)
def test_what_needs_execution_is_refused(folder, text):
    codes = {problem.code for problem in folder.problems(text)}
    assert codes <= {"FK003", "FK002"}, codes


def doubling(line: str, first: str) -> str:
    return f"x = {first}\n" + f"x = {line}\n" * 60 + "a = x"


BOMBS = {
    "long string": "a = 'a' * 10 ** 9",
    "long list": "a = [0] * 10 ** 9",
    "list times list": "a = [[0] * 10 ** 6] * 10 ** 6",
    "power": "a = 9 ** 9 ** 9",
    "power by function": "a = pow(7, 10 ** 9)",
    "negative power of a huge literal": "a = 0x" + "f" * 100_000 + " ** -1",
    "shift": "a = 1 << 10 ** 9",
    "squares": "x = 3\n" + "x = x * x\n" * 99 + "a = x",
    "huge literal": "a = 0x" + "f" * 1_000_000,
    "modular power": "a = pow(3, 10 ** 18 * 10, 7 ** 40)",
    "comprehension": "a = [i for i in range(10 ** 6)]",
    "nested comprehension": "a = [0 for i in range(1000) for j in range(1000) for k in range(1000)]",
    "range": "a = range(10 ** 18)",
    "endless range": "a = len(range(10 ** 5, -10 ** 18, -1))",
    "loop": "for i in range(10 ** 5):\n    for j in range(10 ** 5):\n        a = 1",
    "growing while read": "a = [1]\nfor i in range(99):\n    a.extend(a)",
    "doubled text": doubling("x + x", "'ab'"),
    "doubled list": doubling("x + x", "[1]"),
    "shared parts": doubling("[x, x]", "[1]"),
    "shared parts in mappings": doubling("dict(a=x, b=x)", "dict()"),
    "text of shared parts": doubling("[x, x]", "[1]") + "\nb = str(a)",
    "f-string of shared parts": doubling("[x, x]", "[1]") + "\nb = f'{a}'",
    "percent of shared parts": doubling("[x, x]", "[1]") + "\nb = '%s' % a",
    "hash of shared parts": doubling("(x, x)", "(1,)") + "\nb = {a: 1}",
    "set of shared parts": doubling("(x, x)", "(1,)") + "\nb = {a}",
    "lookup of shared parts": doubling("(x, x)", "(1,)") + "\nb = a in dict(c=1)",
    "comparison of shared parts": doubling("[x, x]", "[1]") + "\nb = a == [[1]]",
    "sorting shared parts": doubling("[x, x]", "[1]") + "\nb = sorted([a, a])",
    "list in itself": "a = []\na.append(a)",
    "list in itself, as text": "a = []\na.append(a)\nb = str(a)",
    "mapping in itself": "a = dict()\na['a'] = a",
    "deep list": "a = []\nfor i in range(20000):\n    a = [a]",
    "deep list, compared": "a = []\nb = []\nfor i in range(20000):\n    a = [a]\n    b = [b]\nc = a == b",
    "wide format": "a = '{:1000000000}'.format(1)",
    "nested wide format": "a = '{:{}}'.format(1, 10 ** 9)",
    "wide f-string": "a = f'{1:>1000000000}'",
    "wide percent": "a = '%1000000000d' % 1",
    "precise percent": "a = '%.1000000000f' % 1",
    "many percents": "x = 'x' * 900000\na = '%(k)s' * 1000 % dict(k=x)",
    "many fields": "x = 'x' * 900000\na = ('{0}' * 1000).format(x)",
    "replace": "x = 'x' * 100000\na = x.replace('x', x)",
    "replace nothing": "x = 'x' * 100000\na = x.replace('', x)",
    "join": "x = 'x' * 100000\na = x.join([x] * 1000)",
    "many long texts": "a = ['x' * 900000 + str(i) for i in range(10000)]",
    "many long lists": "a = [[i] * 900000 for i in range(10000)]",
    "quadratic membership": "x = list(range(100000))\na = [i for i in x if -1 in x]",
    "rounding": "a = round(5, -10 ** 9)",
    "parentheses": "a = " + "(" * 5000 + ")" * 5000,
    "lists": "a = " + "[" * 180 + "]" * 180,
    "signs": "a = " + "-" * 50_000 + "1",
    "sums": "a = " + "1+" * 50_000 + "1",
    "attributes": "a = b" + ".c" * 50_000,
    "null byte": "a = 1\0",
    "many problems": "a = x.y.z\n" * 100_000,
    "digits": "a = int('9' * 100000)",
    "text of digits": "a = 10 ** 18 * 9\nb = '%d' % float('1e308')\nc = int(1e308) * 10",
    "sum of lists": "a = sum([[0] * 900000] * 100, [])",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_bounded(folder, name):
    found = folder.problems(BOMBS[name])
    assert {problem.code for problem in found} <= {"FK007", "FK002"}
    assert len(found) <= 50


DATA_BOMBS = {
    "laughs.yaml": ("a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=False)), "FK007"),
    "itself.yaml": ("a: &a [*a]", "FK002"),
    "deep.yaml": ("[" * 50_000, "FK007"),
    "deep block.yaml": ("".join(" " * i + "a:\n" for i in range(500)), "FK007"),
    "object.yaml": ("a: !!python/object/apply:os.system ['x']", "FK003"),
    "name.yml": ("a: !!python/name:os.system", "FK003"),
    "own tag.yaml": ("a: !mine 1", "FK002"),
    "merge.yaml": ("a: &a {x: 1}\nb:\n  <<: *a", "FK002"),
    "digits.yaml": ("a: " + "9" * 10_000, "FK007"),
    "deep.json": ('{"a":' + "[" * 100_000, "FK007"),
    "digits.json": ('{"a": ' + "9" * 10_000 + "}", "FK007"),
    "deep.toml": ("a = " + "[" * 20_000 + "]" * 20_000, "FK007"),
    "dotted.toml": ("a" + ".a" * 500 + " = 1", "FK007"),
    "itself.json": ('{"_base_": "itself.json"}', "FK005"),
    "large.json": (" " * 2_000_001, "FK001"),
    "wide.yaml": ("a: {b: 1}\n" + "{" * 30_000, "FK002"),
}  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", DATA_BOMBS)
def test_a_data_bomb_is_bounded(folder, name):
    text, code = DATA_BOMBS[name]
    assert {problem.code for problem in folder.problems(text, name)} == {code}


def test_bases_that_double_are_bounded(folder):
    """Each file holds its base twice: 2 to the 30 values at the end."""
    folder.put("b0.json", '{"x": ["y"]}')
    for index in range(1, 30):
        text = f'{{"_base_": "b{index - 1}.json", "x": [{{{{_base_.x}}}}, "{{{{_base_.x}}}}"]}}'
        folder.put(f"b{index}.json", text)
    assert {problem.code for problem in folder.problems("_base_ = 'b29.json'")} == {"FK007"}


def test_a_long_chain_of_bases_is_bounded(folder):
    for index in range(1, 60):
        folder.put(f"b{index}.py", f"_base_ = 'b{index - 1}.py'")
    folder.put("b0.py", "a = 1")
    assert [problem.code for problem in folder.problems("_base_ = 'b59.py'")] == ["FK005"]


def test_a_ring_of_bases_is_a_problem_once(folder):
    folder.put("a.py", "_base_ = 'b.py'")
    folder.put("b.py", "_base_ = 'c.py'")
    assert [problem.code for problem in folder.problems("_base_ = 'a.py'")] == ["FK005"]


def test_a_ring_of_imports_is_a_problem_once(folder):
    folder.put("a.py", "with read_base():\n    from .c import *\nx = later")
    assert [problem.code for problem in folder.problems("with read_base():\n    from .a import *")] == [
        "FK005"
    ]


def test_a_loop_of_symlinks(folder):
    (folder.root / "l.py").symlink_to(folder.root / "l.py")
    with pytest.raises(ConfigError) as caught:
        read(str(folder.root / "l.py"))
    assert [problem.code for problem in caught.value.problems] == ["FK001"]
    assert [problem.code for problem in folder.problems("_base_ = 'l.py'")] == ["FK001"]


def test_special_files_are_not_opened(folder):
    """Opening a pipe would wait for ever; a device never ends."""
    os.mkfifo(folder.root / "p.py")
    (folder.root / "z.json").symlink_to("/dev/zero")
    for name in ("p.py", "z.json"):
        with pytest.raises(ConfigError) as caught:
            read(str(folder.root / name))
        assert [problem.code for problem in caught.value.problems] == ["FK001"]


def test_nothing_is_imported_or_run(folder, monkeypatch):
    """Not even a module that lies beside the config under the name it imports."""
    folder.put(f"{MARKER}.py", "import sys\nsys.exit(1)")
    monkeypatch.syspath_prepend(str(folder.root))
    text = f"import {MARKER}\nfrom {MARKER} import Name\na = Name\nb = {MARKER}.c"
    assert folder.data(text) == {"a": f"{MARKER}:Name", "b": f"{MARKER}:c"}
    assert MARKER not in sys.modules
