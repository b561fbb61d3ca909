"""A work_dir has one live run; a dead one's lock is free, whatever it left running."""

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import time

import pytest

from shell.holders import Holder
from shell.locking import LockUnavailable, WorkDirLocked, work_dir_lock


@contextlib.contextmanager
def child(work):
    """A forked process doing `work(pipe)` and then sleeping; gives what it wrote first and its pid."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            work(writing)
        os._exit(1)
    os.close(writing)
    try:
        yield pid, os.read(reading, 100)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def hold(work_dir):
    def work(pipe):
        with work_dir_lock(work_dir, "other"):
            os.write(pipe, b"held")
            time.sleep(60)

    return work


def is_free(work_dir):
    try:
        with work_dir_lock(work_dir, "probe"):
            return True
    except WorkDirLocked:
        return False


def test_the_second_live_run_is_refused_and_told_who_holds_it(tmp_path):
    with child(hold(tmp_path)) as (pid, _):
        with pytest.raises(WorkDirLocked) as caught, work_dir_lock(tmp_path, "mine"):
            pass
        holder = caught.value.holder
        assert (holder.run_id, holder.pid, holder.host) == ("other", pid, socket.gethostname())
        assert str(caught.value) == (
            f"{tmp_path}/.lock is held by run other process {pid} on {holder.host} since {holder.started_at}; "
            "one run at a time may write to a work_dir. Wait for it, stop it, or choose another work_dir."
        )
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert is_free(tmp_path)


def test_one_process_cannot_hold_it_twice_and_frees_it_on_any_exit(tmp_path):
    with pytest.raises(ZeroDivisionError), work_dir_lock(tmp_path / "new" / "dir", "a") as claim:
        path = claim.path
        assert json.loads(path.read_text())["run_id"] == "a"
        assert not is_free(path.parent)
        raise ZeroDivisionError
    assert path.exists()
    assert is_free(path.parent)


def test_a_shorter_note_leaves_nothing_of_the_longer_one_before(tmp_path):
    for run_id in ("a" * 500, "b"):
        with work_dir_lock(tmp_path, run_id) as claim:
            assert json.loads(claim.path.read_text())["run_id"] == run_id


@pytest.mark.parametrize("note", [b"", b"{", b"[1]", b'{"run_id": 3}', b"\xff"])
def test_a_note_that_tells_nothing_still_refuses(tmp_path, note):
    with work_dir_lock(tmp_path, "a") as claim:
        claim.path.write_bytes(note)
        with pytest.raises(WorkDirLocked, match="held by a run that has not said its name yet; ") as caught:
            work_dir_lock(tmp_path, "b").__enter__()
        assert caught.value.holder == Holder()


def test_forked_workers_and_started_programs_do_not_keep_the_lock(tmp_path):
    with work_dir_lock(tmp_path, "a"):
        program = subprocess.Popen(["sleep", "60"], close_fds=False)
        worker = os.fork()
        if worker == 0:
            time.sleep(60)
            os._exit(0)
        assert not is_free(tmp_path)
    try:
        assert is_free(tmp_path)
    finally:
        program.kill()
        program.wait()
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def test_a_killed_run_frees_the_lock_though_its_worker_lives_on(tmp_path):
    def work(pipe):
        with work_dir_lock(tmp_path, "dead"):
            worker = os.fork()
            if worker == 0:
                time.sleep(60)
                os._exit(0)
            os.write(pipe, str(worker).encode())
            time.sleep(60)

    with child(work) as (_, worker):
        assert not is_free(tmp_path)
    try:
        deadline = time.monotonic() + 10
        while not is_free(tmp_path):  # a worker only just forked may still be closing its copy
            assert time.monotonic() < deadline
    finally:
        os.kill(int(worker), signal.SIGKILL)


def test_a_forked_child_that_unwinds_leaves_the_parents_lock(tmp_path):
    with work_dir_lock(tmp_path, "a"):
        pid = os.fork()
        if pid == 0:
            lock = work_dir_lock(tmp_path / "own", "child")
            with contextlib.suppress(ValueError), lock:
                raise ValueError
            os._exit(0 if is_free(tmp_path / "own") else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert not is_free(tmp_path)


def test_a_place_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LockUnavailable) as caught:
        work_dir_lock(tmp_path / "file", "a").__enter__()
    assert str(caught.value) == (
        f"{tmp_path}/file/.lock cannot be locked: File exists; a work_dir must be writable and on a file system "
        "with locks. Choose another work_dir."
    )
