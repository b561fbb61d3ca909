"""Only the last run to claim a work_dir commits there: one that was taken for dead and wakes up changes nothing."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import contextlib
import fcntl
import os
import pathlib
import signal
import time

import pytest

from shell import holders, locking, manifests
from shell.checkpoints import RemoveFailed, SaveFailed, Store
from shell.locking import WorkDirLocked, WorkDirLost, work_dir_lock
from tests.ranks import start_alone, start_ranks
from tests.shell import toys
from tests.shell.test_checkpoints import state

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def bytes_of(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_claim_stands_until_another_is_made(tmp_path):
    with work_dir_lock(tmp_path, "a") as claim:
        claim.check()
        (tmp_path / ".lock").unlink()  # by someone who took it for stale, and started another run
        with work_dir_lock(tmp_path, "b") as other:
            other.check()
            with pytest.raises(WorkDirLost) as caught:
                claim.check()
            holder = caught.value.holder
            assert holder.run_id == "b"
            assert str(caught.value) == (
                f"{tmp_path}/.lock was claimed by run b process {os.getpid()} on {holder.host} since "
                f"{holder.started_at} while this run stood still or was cut off. This run has changed nothing since and "
                "ends here; what it did after its last checkpoint is not saved. Leave it to the other run."
            )
        with pytest.raises(WorkDirLost):
            claim.check()


def test_a_lock_file_that_was_deleted_is_made_anew(tmp_path, capfd):
    """Also with its work_dir, of which a user has thought the run was over."""
    with work_dir_lock(tmp_path / "w", "a") as claim:
        claim.path.unlink()
        claim.path.parent.rmdir()
        claim.check()
        assert capfd.readouterr().err == (
            f"flexcore: {claim.path} was deleted while this run held it; it is made anew\n"
        )
        claim.check()
        with pytest.raises(WorkDirLocked, match="held by run a process"):
            work_dir_lock(tmp_path / "w", "b").__enter__()
    with work_dir_lock(tmp_path / "w", "b"):
        pass


@pytest.mark.parametrize("verb", ["save", "amend", "publish", "remove"])
def test_who_lost_the_work_dir_changes_nothing_in_its_store(tmp_path, verb):
    root = tmp_path / "checkpoints"
    with work_dir_lock(tmp_path, "a") as claim:
        store = Store(root, "a", [claim])
        store.save("a", state(1), {"iter": 1})
        claim.path.unlink()
        with work_dir_lock(tmp_path, "b"):
            before = bytes_of(root)
            acts = {
                "save": lambda: store.save("a", state(2), {"iter": 2}),
                "amend": lambda: store.amend("a", lambda fields: {**fields, "more": 1}),
                "publish": lambda: store.publish("a", ("m",)),
                "remove": lambda: store.remove("a"),
            }
            with pytest.raises(WorkDirLost):
                acts[verb]()
            assert bytes_of(root) == before


def test_who_cannot_tell_whether_it_holds_the_work_dir_does_not_save(tmp_path):
    with work_dir_lock(tmp_path, "a") as claim:
        store = Store(tmp_path / "checkpoints", "a", [claim])
        store.save("a", state(1), {"iter": 1})
        note = claim.path.read_bytes()
        claim.path.write_bytes(b"damaged")
        with pytest.raises(SaveFailed) as caught:
            store.save("b", state(2), {"iter": 2})
        assert str(caught.value) == (
            f"Checkpoint 'b' was not saved: it does not tell who holds it ({claim.path}). Earlier checkpoints are "
            "intact. Make the place writable, with room for one more checkpoint, and save again."
        )
        with pytest.raises(RemoveFailed, match="does not tell who holds it"):
            store.remove("a")
        claim.path.write_bytes(note)
        store.save("b", state(2), {"iter": 2})


class Stopping:
    """A claim that stands still once it is checked, until someone continues the process."""

    def check(self):
        os.kill(os.getpid(), signal.SIGSTOP)


@contextlib.contextmanager
def child(work):
    """A forked process doing `work()`; gives its pid and a function that waits for what it returns, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, str(work()).encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)

    def outcome():
        told = b""
        while part := os.read(reading, 4096):
            told += part
        return told.decode()

    try:
        yield pid, outcome
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stopped(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_who_stood_still_between_its_check_and_its_commit_commits_nothing(tmp_path):
    """The one moment no check can cover: there the next run's sweep takes the temporary away."""
    root = tmp_path / "checkpoints"
    Store(root, "first").save("last", state(1), {"iter": 1})

    def work():
        with work_dir_lock(tmp_path, "old") as claim:
            Store(root, "old", [claim, Stopping()]).save("last", state(2), {"iter": 2})

    with child(work) as (pid, outcome):
        until(lambda: stopped(pid))
        (tmp_path / ".lock").unlink()  # as if locks did not reach here
        with work_dir_lock(tmp_path, "new") as claim:
            store = Store(root, "new", [claim])
            store.sweep()
            store.save("last", state(3), {"iter": 3})
            before = bytes_of(root)
            os.kill(pid, signal.SIGCONT)
            told = outcome()
            assert "SaveFailed" in told, told
            assert "No such file or directory" in told
            assert bytes_of(root) == before
    assert [found.fields["iter"] for found in manifests.scan(root).complete] == [3]


def from_another_host(work_dir, boot="another boot"):
    """Hold `work_dir` as a host does whose locks do not reach this one."""
    holders.boot_id = lambda: boot
    lock = work_dir_lock(work_dir, "far")
    claim = lock.__enter__()
    fcntl.flock(claim._descriptors[0], fcntl.LOCK_UN)
    return lock, claim


def test_a_run_of_a_host_that_locks_do_not_reach_is_seen_by_its_beat_and_fenced_once_it_stands_still(
    tmp_path, monkeypatch, capfd
):
    root = tmp_path / "checkpoints"
    monkeypatch.setattr(locking, "BEAT", 0.1)
    monkeypatch.setattr(locking, "WATCH", 1.0)

    def wakes():
        _, claim = from_another_host(tmp_path)
        store = Store(root, "far", [claim])
        store.save("a", state(1), {"iter": 1})
        until((tmp_path / "go").exists, 60)
        store.save("b", state(2), {"iter": 2})

    with child(wakes) as (pid, outcome):
        until((root / "a").exists)
        with pytest.raises(WorkDirLocked, match=f"held by run far process {pid} on ") as caught:
            work_dir_lock(tmp_path, "near").__enter__()
        assert type(caught.value) is WorkDirLocked
        assert "watching 1 s for a sign of life\n" in capfd.readouterr().err
        os.kill(pid, signal.SIGSTOP)
        with work_dir_lock(tmp_path, "near") as claim:
            store = Store(root, "near", [claim])
            store.save("a", state(3), {"iter": 3})
            (tmp_path / "go").touch()
            before = bytes_of(root)
            os.kill(pid, signal.SIGCONT)
            assert "WorkDirLost" in outcome()
            assert bytes_of(root) == before
            claim.check()


def test_what_was_let_go_of_elsewhere_is_taken_at_once_and_what_died_there_after_a_watch(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(locking, "WATCH", 0.1)

    def ends():
        lock, _ = from_another_host(tmp_path)
        lock.__exit__(None, None, None)

    def dies():
        held = from_another_host(tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)
        held[1].check()

    for work, told in ((ends, ""), (dies, "watching 0.1 s for a sign of life\n")):
        with child(work) as (_, outcome):
            assert outcome() in ("None", "")
        with work_dir_lock(tmp_path, "near") as claim:
            claim.check()
        assert capfd.readouterr().err.partition(": ")[2].partition(": ")[2] == told


def test_a_stopped_holder_on_this_host_is_named_so(tmp_path):
    def work():
        with work_dir_lock(tmp_path, "old"):
            os.kill(os.getpid(), signal.SIGSTOP)

    with child(work) as (pid, _):
        until(lambda: stopped(pid))
        with pytest.raises(WorkDirLocked) as caught:
            work_dir_lock(tmp_path, "new").__enter__()
        holder = caught.value.holder
        assert str(caught.value) == (
            f"{tmp_path}/.lock is held by run old process {pid} on {holder.host} since {holder.started_at} (stopped, and "
            "can be continued); one run at a time may write to a work_dir. Wait for it, stop it, or choose another "
            "work_dir."
        )


def waiting(work_dir):
    """A config whose rank 0 stands still by a signal after an epoch's checkpoint."""
    stop = dict(type="tests.shell.toys:SignalAt", at=[[12, int(signal.SIGSTOP)]])
    return toys.config(work_dir, custom_hooks=[stop])


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_wakes_up_after_another_took_over_ends_with_7_on_every_rank(tmp_path, ranks):
    cfg = waiting(tmp_path)
    old = start_alone(toys.ends, cfg) if ranks == 1 else start_ranks(ranks, toys.ends_rank, cfg)
    with old:
        until((tmp_path / "checkpoints" / "epoch_1").exists, 60)
        until(lambda: stopped(old.pids[0]), 60)
        (tmp_path / ".lock").unlink()  # a second host, or a user who is sure
        cfg = toys.config(tmp_path)
        time.sleep(1.1)  # records are put in order by the second they began in
        new = toys.run(ranks, cfg)
        assert new["reason"] == "done"
        before = bytes_of(tmp_path / "checkpoints")
        old.kill(signal.SIGCONT, 0)
        assert old.wait() == [7] * ranks
        assert bytes_of(tmp_path / "checkpoints") == before
    assert toys.differences(tmp_path) == []
