"""One run at a time in a work_dir: a kernel lock that dies with its process, and a token that only its last claim has.

What is guaranteed where:

- Under one kernel (any local file system, any network one), and wherever locks reach across hosts (NFSv4, CephFS,
  Lustre mounted with flock): a second run is refused while the first lives, stopped or not; a dead one's lock is free.
- Where locks do not reach across hosts, a run that holds the directory touches its lock file every BEAT seconds. Who
  comes from another host and finds that it was never let go of watches it for WATCH seconds: touched, it is refused;
  untouched, the run is dead or cut off, and the directory is taken over.
- Everywhere: each claim writes a token of its own into the lock file, and nothing is committed by a run whose token
  stands there no more (`Claim.check`). So a run that was taken for dead and wakes up changes nothing: it ends with 7.
"""

import contextlib
import datetime as dt
import errno
import fcntl
import os
import pathlib
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

from shell import holders
from shell.holders import Holder
from shell.manifests import open_regular

LOCK: Final = ".lock"
BEAT: Final = 5.0
WATCH: Final = 4 * BEAT
_LET_GO: Final = (0, 0)  # what a lock file's times are once its run ended in order

_held: set[int] = (
    set()
)  # descriptors to close in a forked child: a data worker must not outlive us holding the lock


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


class WorkDirLost(WorkDirLocked):
    """The directory was held by this run, and another run has claimed it since."""

    def __str__(self) -> str:
        return (
            f"{self.path} was claimed by {self.holder} while this run stood still or was cut off. This run has changed "
            "nothing since and ends here; what it did after its last checkpoint is not saved. Leave it to the other run."
        )


class LockUnavailable(Exception):  # noqa: N818 - named for what is so
    """The lock file cannot be made, written or locked here."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"{self.path} cannot be locked: {self.reason}; a work_dir must be writable and on a file system "
            "with locks. Choose another work_dir."
        )


class Claim:
    """The hold of one process on one directory.

    Attributes:
        path: the lock file.
    """

    def __init__(self, path: pathlib.Path, descriptor: int, run_id: str) -> None:
        self.path, self._descriptors, self._owner = path, [descriptor], os.getpid()
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self._holder = Holder(
            run_id, self._owner, socket.gethostname(), now, secrets.token_hex(8), holders.boot_id()
        )
        holders.write(descriptor, self._holder)
        self._end = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="flexcore lock", daemon=True)
        self._beating.start()

    def check(self) -> None:
        """Return if this is the directory's last claim; to be asked right before anything is committed.

        A lock file that somebody deleted is made anew, unless another run holds one there.

        Raises:
            WorkDirLost: another run claimed it since. OSError: it cannot be told now.
        """
        try:
            found = holders.read_at(self.path)
        except FileNotFoundError:
            self._renew()
            return
        if found.token is None:
            raise OSError(errno.EBADMSG, "it does not tell who holds it", str(self.path))
        if found.token != self._holder.token:
            raise WorkDirLost(str(self.path), found)

    def _renew(self) -> None:
        try:
            descriptor = _locked(self.path)
        except WorkDirLocked as error:
            raise WorkDirLost(error.path, error.holder) from error
        except LockUnavailable as error:
            raise OSError(errno.EACCES, error.reason, error.path) from error
        self._descriptors.append(descriptor)
        found = holders.read(descriptor)
        if found.token is not None:
            raise WorkDirLost(str(self.path), found)
        holders.write(descriptor, self._holder)
        _say(f"{self.path} was deleted while this run held it; it is made anew")

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._descriptors[-1])

    def let_go(self) -> None:
        """Free the directory at once, even if a child just forked has not closed its copy yet."""
        if os.getpid() != self._owner:  # a forked child that unwinds through here has no share in the lock
            return
        self._end.set()
        self._beating.join(BEAT)
        for descriptor in self._descriptors:
            _held.discard(descriptor)
            with contextlib.suppress(OSError):
                if holders.read(descriptor).token == self._holder.token:
                    os.utime(descriptor, ns=_LET_GO)
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            if (
                not self._beating.is_alive()
            ):  # else it hangs in a file system that has gone, with the number in hand
                os.close(descriptor)


@contextlib.contextmanager
def work_dir_lock(work_dir: str | os.PathLike[str], run_id: str) -> Iterator[Claim]:
    """Hold `work_dir` (created if missing) for this process until the block ends.

    The kernel frees the lock when the process dies, so a dead run's is simply taken over. The file stays.

    Raises:
        WorkDirLocked: another run holds it.
        LockUnavailable: the directory or its file system does not allow it.

    """
    path = pathlib.Path(work_dir, LOCK)
    descriptor = _locked(path)
    try:
        _watch(path, descriptor)
        claim = Claim(path, descriptor, run_id)
    except BaseException as error:
        _held.discard(descriptor)
        os.close(descriptor)
        if isinstance(error, OSError):
            raise LockUnavailable(str(path), error.strerror or str(error)) from error
        raise
    try:
        yield claim
    finally:
        claim.let_go()


def _locked(path: pathlib.Path) -> int:
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
    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
        return LockUnavailable(str(path), error.strerror or str(error))
    try:
        return WorkDirLocked(str(path), holders.read(descriptor))
    except OSError:
        return WorkDirLocked(str(path), Holder())


def _watch(path: pathlib.Path, descriptor: int) -> None:
    """See whether a run of another host, which our lock may not reach, still touches the file it never let go of.

    Raises:
        WorkDirLocked: it does.
    """
    holder, touched = holders.read(descriptor), _touched(path)
    if not holder.is_elsewhere() or touched == _LET_GO[1]:
        return
    _say(f"{path} was not let go of by {holder}: watching {WATCH:g} s for a sign of life")
    until = time.monotonic() + WATCH
    while time.monotonic() < until:
        time.sleep(min(1.0, WATCH / 10))
        if _touched(path) != touched:
            raise WorkDirLocked(str(path), holder)


def _touched(path: pathlib.Path) -> int:
    """When a file was changed last, opened anew so that network file systems ask their server."""
    with open_regular(path) as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"flexcore: {text}", file=sys.stderr, flush=True)


def _close_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
