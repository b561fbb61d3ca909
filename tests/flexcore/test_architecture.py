"""The walls around the core: what it may import, what importing it loads, and that planning touches nothing."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from flexcore import hooks, strategies
from flexcore.run_plan import Start
from flexcore.unions import TAGGED

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "flexcore").rglob("*.py"))
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES]
PURE = {
    "__future__", "abc", "ast", "bisect", "collections", "dataclasses", "difflib", "enum", "fractions", "functools",
    "hashlib", "heapq", "importlib", "itertools", "json", "keyword", "math", "operator", "re", "string", "textwrap", "types",
    "typing",
}  # fmt: skip
ALLOWED = PURE | {"attrs", "cattrs", "flexcore"}
HEAVY = ("torch", "deepspeed", "tensorboard", "numpy", "yaml", "shell", "rich", "safetensors", "torchmetrics")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_only_what_is_pure(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= ALLOWED, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module.partition(".")[0] in ALLOWED, node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "eval", "exec", "compile", "input", "__import__"), node.lineno


def test_only_the_package_itself_imports_by_name():
    """`importlib` is allowed for the lazy names of flexcore/__init__.py and nowhere else."""
    users = [path.name for path in FILES if "importlib" in path.read_text()]
    assert users == ["__init__.py"]


def ran(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_core_loads_nothing_heavy():
    told = ran(f"""
import sys; sys.path.insert(0, sys.argv[1])
import flexcore
light = set(sys.modules)
print(sorted(name for name in light if name.startswith(("flexcore.", "attr", "cattr"))))
import importlib
for name in {MODULES}: importlib.import_module(name)
print(sorted(set({HEAVY}) & set(sys.modules)))
""")
    assert told == "[]\n[]\n"


def test_planning_opens_starts_and_imports_nothing():
    """After one warm-up call; compiling generated code is cattrs' own and happens then."""
    ran(f"""
import sys; sys.path.insert(0, sys.argv[1])
import importlib
for name in {MODULES}: importlib.import_module(name)
from flexcore import Facts, Plan, parse, dump, plan, lint, explain, value_at, saves, validations, sample_indices
from tests.flexcore.base import DIGITS, KNOWN
from attrs import evolve
facts = evolve(KNOWN, train_samples=1437, val_samples=(360, 360))
broken = dict(DIGITS, train_cg={{}}, launcher="pytorch", resume=5)
def work():
    made = plan(parse(DIGITS), facts)
    explain(made)
    text = made.to_json()
    assert Plan.from_json(text) == made
    made.plan_digest, made.trajectory_digest, dump(made.config)
    list(saves(made)), list(validations(made)), list(sample_indices(made, epoch=1)), value_at(made)
    lint(broken, facts)
    plan(DIGITS, facts, smoke=True)
work()
FORBIDDEN = ("open", "os.", "socket.", "subprocess.", "import", "exec", "compile", "shutil.", "tempfile.", "ctypes.", "sys.")
def hook(event, args):
    if event.startswith(FORBIDDEN): raise RuntimeError(event + repr(args)[:200])
sys.addaudithook(hook)
work()
""")


def test_every_member_of_a_closed_union_is_read_by_name():
    by_what = {tagged.what: {cls for cls, _ in tagged.members.values()} for tagged in TAGGED}
    assert by_what["strategy"] == {*get_args(strategies.Strategy), strategies.Auto}
    assert by_what["hook"] == set(hooks.BUILTIN_HOOKS) == set(get_args(hooks.BuiltinHook))
    assert by_what["starting point"] == set(get_args(Start))


def test_no_name_is_both_known_and_refused():
    for tagged in TAGGED:
        assert not set(tagged.members) & set(tagged.retired)


def test_every_strategy_has_its_executor():
    from shell.strategies import STRATEGIES

    assert set(STRATEGIES) == set(get_args(strategies.Strategy))


def test_every_built_in_hook_has_its_executor():
    from shell.hooks import BUILTIN

    assert set(BUILTIN) == set(get_args(hooks.BuiltinHook))
