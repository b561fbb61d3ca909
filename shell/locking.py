"""One run at a time in a work_dir: a kernel lock that dies with its process, and a note of who holds it."""

import contextlib
import datetime as dt
import errno
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Final

import attrs

LOCK: Final = ".lock"
_MAX_NOTE_BYTES: Final = 65536

_held: set[int] = (
    set()
)  # descriptors to close in a forked child: a data worker must not outlive us holding the lock


@attrs.frozen
class Holder:
    """Who wrote the note in a lock file; None where it does not tell."""

    run_id: str | None = None
    pid: int | None = None
    host: str | None = None
    started_at: str | None = None

    def __str__(self) -> str:
        known = [f"run {self.run_id}" if self.run_id else "a run that has not said its name yet"]
        known += [f"process {self.pid}"] if self.pid else []
        known += [f"on {self.host}"] if self.host else []
        known += [f"since {self.started_at}"] if self.started_at else []
        return " ".join(known)


class WorkDirLocked(Exception):  # noqa: N818 - named for what is so
    """Another live run works in this directory."""

    def __init__(self, path: str, holder: Holder) -> None:
        super().__init__(path, holder)
        self.path, self.holder = path, holder

    def __str__(self) -> str:
        return (
            f"{self.path} is held by {self.holder}; one run at a time may write to a work_dir. "
            "Wait for it, stop it, or choose another work_dir."
        )


class LockUnavailable(Exception):  # noqa: N818 - named for what is so
    """The lock file cannot be made or locked here."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"{self.path} cannot be locked: {self.reason}; a work_dir must be writable and on a file system "
            "with locks. Choose another work_dir."
        )


@contextlib.contextmanager
def work_dir_lock(work_dir: str | os.PathLike[str], run_id: str) -> Iterator[pathlib.Path]:
    """Hold `work_dir` (created if missing) for this process until the block ends; gives the lock file's path.

    The kernel frees the lock when the process dies, so a dead run's is simply taken over. The file stays.

    Raises:
        WorkDirLocked: another run holds it.
        LockUnavailable: the directory or its file system does not allow it.

    """
    path = pathlib.Path(work_dir, LOCK)
    descriptor, owner = _acquire(path), os.getpid()
    try:
        _write_note(descriptor, run_id)
        yield path
    finally:
        if os.getpid() == owner:  # a forked child that unwinds through here has no share in the lock
            _held.discard(descriptor)
            fcntl.flock(
                descriptor, fcntl.LOCK_UN
            )  # at once, even if a child just forked has not closed its copy yet
            os.close(descriptor)


def _acquire(path: pathlib.Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise LockUnavailable(str(path), error.strerror or str(error)) from error
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        refusal = _refusal(descriptor, path, error)
        _held.discard(descriptor)
        os.close(descriptor)
        raise refusal from error
    return descriptor


def _refusal(descriptor: int, path: pathlib.Path, error: OSError) -> WorkDirLocked | LockUnavailable:
    if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
        return WorkDirLocked(str(path), _read_note(descriptor))
    return LockUnavailable(str(path), error.strerror or str(error))


def _write_note(descriptor: int, run_id: str) -> None:
    """Tell later comers who holds the lock; a full disk costs the note, not the lock."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    note = {"run_id": run_id, "pid": os.getpid(), "host": socket.gethostname(), "started_at": now}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(note).encode() + b"\n", 0)
        os.fsync(descriptor)


def _read_note(descriptor: int) -> Holder:
    try:
        note = json.loads(os.pread(descriptor, _MAX_NOTE_BYTES, 0))
    except (OSError, ValueError, RecursionError):
        return Holder()
    match note:
        case {
            "run_id": str() as run_id,
            "pid": int() as pid,
            "host": str() as host,
            "started_at": str() as started,
        }:
            return Holder(run_id, pid, host, started)
    return Holder()


def _close_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
