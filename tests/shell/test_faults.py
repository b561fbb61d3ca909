"""Killed or failing at any request to the file system, a store holds what it held or what was meant, and goes on.

`make torture` strikes at every request; here each kind of request is struck where it comes first and last.
"""

import itertools
import os
import pathlib
import signal

import pytest

from shell.checkpoints import Store
from tests.shell import faulting, tracing
from tests.shell.faulting import OPERATIONS, Operation


def struck(root: pathlib.Path, operation: Operation, fault: str, call: tracing.Call) -> None:
    """Carry the operation out anew with a fault at one request, and look at all that is left."""
    operation.prepare(root)
    run = tracing.traced(lambda: operation.said(root), tracing.ALL_FILES, tracing.injection(call, fault))
    if call.first or run.code != 0:  # which of several threads asks how often is another matter each time
        assert run.code == -signal.SIGKILL if fault == "kill" else run.struck == {(call.name, call.nth)}
    assert run.code in (-signal.SIGKILL, 0, *faulting.SAID.values())
    looked_at(root, operation, done=run.code == 0)


def looked_at(root: pathlib.Path, operation: Operation, *, done: bool) -> None:
    """What stands is allowed, a sweep changes nothing of it and leaves no litter, and the next save is made."""
    left = faulting.standing(root, operation.damaged)
    assert left in (operation.allowed[-1:] if done else operation.allowed)
    Store(root, "next").sweep()
    assert faulting.standing(root, operation.damaged) == left
    assert [entry.name for entry in root.glob(".*")] == []
    faulting.saved(root, 7)
    now = faulting.standing(root, operation.damaged)
    assert sorted(now) == sorted([("a", 7, False), *(one for one in left if one[0] != "a")])
    expected = {name for name, _, _ in now if " " not in name} | {*operation.damaged}
    strays = {
        entry for entry in os.listdir(root) if not entry.endswith((".safetensors", ".damaged-1"))
    } - expected
    assert strays == set()


def requests(root: pathlib.Path, operation: Operation) -> tuple[tracing.Call, ...]:
    """All that the operation asks of the file system while nothing goes wrong."""
    warm = root.with_name("warm")  # what is imported late is, before it is counted
    operation.prepare(warm)
    operation.act(warm)
    operation.prepare(root)
    run = tracing.traced(lambda: operation.said(root))
    assert run.code == 0
    assert faulting.standing(root, operation.damaged) == operation.allowed[-1]
    return run.under(root)


def outermost(calls: tuple[tracing.Call, ...]) -> list[tracing.Call]:
    """Of each kind of request the first and the last."""
    ends = [{call.name: call for call in order}.values() for order in (calls, calls[::-1])]
    return sorted({id(call): call for end in ends for call in end}.values(), key=calls.index)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_fault_at_a_request_leaves_the_old_or_the_new(name):
    """kill -9 before what changes something, ENOSPC and EIO in turn as the answer to anything."""
    tracing.needs_strace()
    operation, errors = OPERATIONS[name], itertools.cycle(("ENOSPC", "EIO"))
    with faulting.scratch() as scratch:
        for number, call in enumerate(outermost(requests(scratch / "whole" / "root", operation))):
            for fault in ["kill"] * call.changes + [next(errors)]:
                struck(scratch / f"{fault}-{number}" / "root", operation, fault, call)


@pytest.mark.parametrize(
    "name", [name for name in OPERATIONS if name not in ("remove", "set aside", "sweep")]
)
def test_writes_that_take_half_of_what_is_asked_are_gone_on_with(name, tmp_path):
    """Each write is taken by halves: the same bytes stand, and the hashes agree."""
    operation, root = OPERATIONS[name], tmp_path / "root"
    operation.prepare(root)
    code, seen = tracing.writing_less(lambda: operation.said(root), lambda _: True)
    assert code == 0
    assert seen > 8
    looked_at(root, operation, done=True)
