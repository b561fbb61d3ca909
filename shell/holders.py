"""The note in a lock file: which run claimed the directory last, from where, and whether it let go of it."""

import errno
import json
import os
import pathlib
import socket
from typing import Any, Final

import attrs

from shell.manifests import open_regular

NOTE_BYTES: Final = 1024
"""A note is filled up to this: writing over another takes no new space, and readers see one or the other."""

MAX_NOTE_BYTES: Final = 65536
_BOOT: Final = pathlib.Path("/proc/sys/kernel/random/boot_id")
_STOPPED: Final = ("T", "t")


@attrs.frozen
class Holder:
    """Who wrote the note; None where it does not tell.

    Attributes:
        token: drawn anew by each claim. boot: of the running kernel, which one lock table belongs to.
    """

    run_id: str | None = None
    pid: int | None = None
    host: str | None = None
    started_at: str | None = None
    token: str | None = None
    boot: str | None = None

    def __str__(self) -> str:
        known = [f"run {self.run_id}" if self.run_id else "a run that has not said its name yet"]
        known += [f"process {self.pid}"] if self.pid else []
        known += [f"on {self.host}"] if self.host else []
        known += [f"since {self.started_at}"] if self.started_at else []
        known += ["(stopped, and can be continued)"] if self.stands_still() else []
        return " ".join(known)

    def stands_still(self) -> bool:
        """Whether it is a process of this host that was stopped by a signal."""
        if self.pid is None or self.boot != boot_id():
            return False
        try:
            state = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return False
        return state in _STOPPED

    def is_elsewhere(self) -> bool:
        """Whether it ran under another kernel, whose locks may not reach this one."""
        return self.boot is not None and self.boot != boot_id()


def boot_id() -> str:
    """What tells this start of this kernel from every other; its host's name where it does not say."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return socket.gethostname()


def write(descriptor: int, holder: Holder) -> None:
    """Replace the note durably.

    Raises:
        OSError: it may not stand.
    """
    data = json.dumps(attrs.asdict(holder)).encode().ljust(NOTE_BYTES - 1) + b"\n"
    if os.pwrite(descriptor, data, 0) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(descriptor, len(data))
    os.fsync(descriptor)


def read(descriptor: int) -> Holder:
    """The note of an open lock file; one that says nothing of its writer if it cannot be understood."""
    try:
        note = json.loads(os.pread(descriptor, MAX_NOTE_BYTES, 0))
    except (ValueError, RecursionError):
        return Holder()
    match note:
        case {
            "run_id": str() as run_id,
            "pid": int() as pid,
            "host": str() as host,
            "started_at": str() as started,
        }:
            return Holder(run_id, pid, host, started, _text(note.get("token")), _text(note.get("boot")))
    return Holder()


def read_at(path: pathlib.Path) -> Holder:
    """The note of the lock file that stands at `path` now, opened anew so that network file systems look at it again.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    with open_regular(path) as file:
        return read(file.fileno())


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
