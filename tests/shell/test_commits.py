"""A kill or a failure at any moment of a save, removal or sweep leaves the checkpoints from before or those meant."""

import contextlib
import errno
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import time

import pytest
import torch

from shell.checkpoints import RemoveFailed, SaveFailed, Store
from shell.manifests import scan
from tests.shell.test_checkpoints import saved, state, whole

FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir"}

OPERATIONS = {
    "replace": (lambda root: saved(root, 2), lambda root: saved(root, 1), ([1], [2])),
    "replace a moved one": (
        lambda root: saved(root, 2),
        lambda root: saved(root, 1).rename(root / ".old-a-1"),
        ([1], [2]),
    ),
    "add": (lambda root: saved(root, 2, name="b"), lambda root: saved(root, 1), ([1], [1, 2])),
    "remove": (lambda root: Store(root, "run").remove("a"), lambda root: saved(root, 1), ([1], [])),
    "sweep": (
        lambda root: Store(root, "run").sweep(),
        lambda root: shutil.copytree(saved(root, 2), root / ".old-a-1").joinpath("../.tmp-x").mkdir(),
        ([2],),
    ),
    "sweep a moved one": (
        lambda root: Store(root, "run").sweep(),
        lambda root: saved(root, 1).rename(root / ".old-a-1"),
        ([1],),
    ),
}


def in_child(work):
    """The wait status of a forked process that does `work`.

    On one thread: the pool of a parent that has computed does not come along, and torch would wait for it.
    """
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        code = 1
        with contextlib.suppress(BaseException):
            code = work() or 0
        os._exit(code)
    return os.waitpid(pid, 0)[1]


def at_event(root, number, act):
    """From now on `act` at the `number`th file operation under `root`: the interpreter audits each one before doing it."""
    seen = 0

    def has_acted():
        return seen >= number

    def hook(event, arguments):
        nonlocal seen
        if event in FILE_EVENTS and str(root) in str(arguments[0]):
            seen += 1
            if seen == number:
                act()

    sys.addaudithook(hook)
    return has_acted


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_before_any_file_operation_leaves_the_old_or_the_new(tmp_path, operation):
    act, prepare, outcomes = OPERATIONS[operation]
    seen = []
    for number in range(1, 100):
        root = tmp_path / str(number)
        prepare(root)

        def work(root=root, number=number):
            at_event(root, number, kill)
            act(root)

        status = in_child(work)
        seen.append(whole(root))
        assert seen[-1] in outcomes
        Store(root, "next").sweep()
        assert whole(root) == seen[-1]
        assert [entry for entry in os.listdir(root) if entry.startswith(".")] == []
        if status == 0:
            break
        assert status == signal.SIGKILL
        saved(root, 7)
        assert 7 in whole(root)
    assert number > 3
    assert seen[-1] == outcomes[-1]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_failure_of_any_file_operation_leaves_the_old_or_the_new(tmp_path, operation):
    act, prepare, outcomes = OPERATIONS[operation]
    for number in range(1, 100):
        root = tmp_path / str(number)
        prepare(root)
        said = tmp_path / f"said-{number}"

        def work(root=root, number=number, said=said):
            has_failed = at_event(root, number, fail)
            try:
                act(root)
                said.write_text("done")
            except (SaveFailed, RemoveFailed) as error:
                said.write_text(str(error))
            return 0 if has_failed() else 99

        status = os.waitstatus_to_exitcode(in_child(work))
        assert status in (0, 99) or operation.startswith("sweep")
        left = whole(root)
        assert left in outcomes
        if "replace" in operation or operation == "add":
            assert (said.read_text() == "done") <= (left == outcomes[-1])
            assert said.read_text() == "done" or "was not saved: No space left on device" in said.read_text()
        Store(root, "next").sweep()
        assert whole(root) == left
        saved(root, 7)
        assert 7 in whole(root)
        if status == 99:
            break
    assert number > 3


def test_a_file_too_large_for_the_disk_fails_cleanly(tmp_path):
    """A real short write: the kernel refuses bytes past a limit on file size."""
    saved(tmp_path, 1)

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(SaveFailed) as caught:
            Store(tmp_path, "run").save("a", state(2, size=100_000), {"iter": 2})
        assert caught.value.name == "a"
        assert str(caught.value) == (
            "Checkpoint 'a' was not saved: File too large. Earlier checkpoints are intact. "
            "Make the place writable, with room for one more checkpoint, and save again."
        )

    assert in_child(work) == 0
    assert os.listdir(tmp_path) == ["a"]
    assert whole(tmp_path) == [1]


def test_an_interrupt_while_saving_leaves_no_temporary(tmp_path):
    class Interrupting(dict):
        seen = 0

        def items(self):
            self.seen += 1
            if self.seen == 2:  # the first look is before anything is written
                assert (tmp_path / ".tmp-a-run" / "m.safetensors").exists()
                raise KeyboardInterrupt
            return super().items()

    saved(tmp_path, 1)
    store = Store(tmp_path, "run")
    with pytest.raises(KeyboardInterrupt):
        store.save("a", {"m": {"w": torch.zeros(1)}, "n": Interrupting()}, {})
    assert os.listdir(tmp_path) == ["a"]
    assert whole(tmp_path) == [1]


def keep_saving(root, pipe, first, naming):
    store = Store(root, f"run{first}")
    store.sweep()
    for number in range(first, first + 10_000):
        store.save(naming(number), state(number), {"iter": number})
        store.remove(naming(number - 2)) if naming(number) != naming(number - 2) else None
        os.write(pipe, number.to_bytes(8, "little"))


@pytest.mark.parametrize(
    "naming", [lambda _: "last", lambda number: f"iter_{number}"], ids=["same name", "new names"]
)
def test_random_kills_never_lose_the_latest_finished_save(tmp_path, naming):
    delays = random.Random(0)
    last = 0
    for _ in range(10):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            torch.set_num_threads(1)
            with contextlib.suppress(BaseException):
                keep_saving(tmp_path, writing, last + 1, naming)
            os._exit(1)
        os.close(writing)
        first = os.read(reading, 8)
        time.sleep(delays.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        with os.fdopen(reading, "rb") as pipe:
            finished = (first + pipe.read())[-8:]
        finished = int.from_bytes(finished, "little")
        last = max(whole(tmp_path))
        assert finished <= last <= finished + 1
    Store(tmp_path, "next").sweep()
    assert [entry for entry in os.listdir(tmp_path) if entry.startswith(".")] == []
    assert (
        json.loads(pathlib.Path(scan(tmp_path).complete[-1].path, "manifest.json").read_bytes())["iter"]
        == last
    )
