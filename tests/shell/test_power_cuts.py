"""Whatever a power cut leaves on the disk, the checkpoint whose save had returned is found, whole."""

import os
import pathlib
import shutil

import pytest

from shell.checkpoints import Store
from shell.manifests import set_aside, sync_directory
from tests.shell import faulting, power, tracing
from tests.shell.faulting import A1, B2, C3, saved, validate

A2, A1_VALID = ("a", 2, False), ("a", 1, True)

SEQUENCES = {
    "new names": (
        lambda root: None,
        [
            (lambda root: saved(root, 1, "a"), ((), (A1,))),
            (lambda root: saved(root, 2, "b"), ((A1,), (A1, B2))),
            (lambda root: Store(root, "run").remove("a"), ((A1, B2), (B2,))),
            (lambda root: saved(root, 3, "c"), ((B2,), (B2, C3))),
        ],
    ),
    "one name": (
        lambda root: saved(root, 1, "a"),
        [
            (validate, ((A1,), (A1_VALID,))),
            (lambda root: saved(root, 2, "a"), ((A1_VALID,), (A2,))),
            (lambda root: saved(root, 1, "a"), ((A2,), (A1,))),
        ],
    ),
    "publish": (
        lambda root: saved(root, 1, "a"),
        [(lambda root: Store(root, "run").publish("a", ("model",)), ((A1,), (A1, ("published a", 1, False))))],
    ),
    "set aside and sweep": (
        lambda root: (faulting.litter(root), (saved(root, 3, "c") / "model.safetensors").unlink()),
        [
            (lambda root: set_aside(root / "c"), ((A1, B2),)),
            (lambda root: Store(root, "run").sweep(), ((A1, B2),)),
            (lambda root: saved(root, 3, "c"), ((A1, B2), (A1, B2, C3))),
        ],
    ),
}  # fmt: skip


def recorded(name: str, top: pathlib.Path, block: int) -> power.Record:
    """What the sequence asks of the file system; each step's end marked by its number, from 1."""
    prepare, steps = SEQUENCES[name]
    prepare(top / "root")
    record = power.Record(top, block)

    def work():
        for number, (act, _) in enumerate(steps, 1):
            act(top / "root")
            power.mark(number)

    run = tracing.traced(work, power.RECORDED)
    assert run.code == 0
    return record.take(run.calls)


def cut(name: str, top: pathlib.Path, block: int = 256, *, save_again: bool = False) -> int:
    """How many states a cut may leave; in each what had returned is found, whole, and nothing else but litter."""
    (top / "before").mkdir()
    outcomes = [allowed for _, allowed in SEQUENCES[name][1]]
    outcomes.append(outcomes[-1][-1:])
    number = 0
    for number, (done, tree) in enumerate(recorded(name, top / "before", block).trees(), 1):
        root = top / "after" / "root"
        root.parent.mkdir()
        power.put_down(tree, root.parent)
        Store(root, "next").sweep()
        damaged = ("c",) if done == 0 and name == "set aside and sweep" else ()
        assert faulting.standing(root, damaged) in outcomes[done]
        if save_again:
            saved(root, 7)
            assert ("a", 7, False) in faulting.standing(root, damaged)
        shutil.rmtree(root.parent)
    return number


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_power_cut_loses_nothing_that_was_saved(name):
    tracing.needs_strace()
    with faulting.scratch() as top:
        assert cut(name, top) > 8


# The model of the disk


def test_what_no_fsync_made_sure_may_be_there_in_part_or_not_at_all(tmp_path):
    """A file of three blocks in a directory, renamed: each name and each block on its own."""
    tracing.needs_strace()
    record = power.Record(tmp_path, block=2)

    def work():
        (tmp_path / "x").write_bytes(b"123456")
        (tmp_path / "x").rename(tmp_path / "y")

    trees = {tree for _, tree in record.take(tracing.traced(work, power.RECORDED).calls).trees()}
    contents = {b"", b"12", b"12\0\0\0\0", b"\0\x0034", b"\0\x0034\0\0", b"\0\0\0\x0056", b"1234",
                b"1234\0\0", b"12\0\x0056", b"\0\x003456", b"123456", b"\0\0\0\0\0\0"}  # fmt: skip
    assert trees == {()} | {((name, content),) for name in "xy" for content in contents}


def test_what_is_fsynced_is_sure_and_its_name_only_with_its_directory(tmp_path):
    tracing.needs_strace()
    record = power.Record(tmp_path, block=2)

    def work():
        with (tmp_path / "x").open("wb") as file:
            file.write(b"1234")
            file.flush()
            os.fsync(file.fileno())
        power.mark(1)
        sync_directory(tmp_path)
        power.mark(2)

    trees = {*record.take(tracing.traced(work, power.RECORDED).calls).trees()}
    assert {tree for done, tree in trees if done == 1} == {(), (("x", b"1234"),)}
    assert {tree for done, tree in trees if done == 2} == {(("x", b"1234"),)}
