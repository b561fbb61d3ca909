"""A file of lines that outlives a full disk: what cannot be written now waits in memory and is written later, in order."""

import contextlib
import os
import pathlib
from collections.abc import Callable
from threading import RLock
from typing import Final

AT_ONCE: Final = 1 << 16
MOST_WAITING: Final = 64 << 20
INCOMPLETE: Final = ".incomplete"
"""Suffix of an empty file that stands beside the record while lines wait: a name fits where no byte does."""


class Appending:
    """Whole lines in, appended by the system at `flush` at the latest.

    complain: told once of each time that nothing more can be written.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.complain: Callable[[str], None] = print_nothing
        self._mark = path.with_name(path.name + INCOMPLETE)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._waiting, self._failed = bytearray(), False
        self._lost = False
        self._one_at_a_time = RLock()

    def write(self, text: str) -> None:
        """Take one line; over MOST_WAITING bytes wait, it is lost, as the mark will tell for good."""
        with self._one_at_a_time:
            if len(self._waiting) >= MOST_WAITING:
                self.flush()
            if len(self._waiting) < MOST_WAITING:
                self._waiting += text.encode("utf-8", "backslashreplace")
            else:
                self._lost = True
            if len(self._waiting) >= AT_ONCE and not self._failed:
                self.flush()

    def flush(self) -> None:
        """Hand what waits to the system; what it does not take goes on waiting."""
        with self._one_at_a_time:
            try:
                while self._waiting:
                    del self._waiting[: os.write(self._descriptor, self._waiting)]
            except OSError as error:
                self._has_failed(error)
            else:
                if self._failed:
                    self._has_recovered()

    def _has_failed(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            with contextlib.suppress(OSError):
                self._mark.touch()
            self.complain(f"{self.path} cannot be written: {error.strerror}; its lines wait in memory")

    def _has_recovered(self) -> None:
        self._failed = False
        if not self._lost:
            with contextlib.suppress(OSError):
                self._mark.unlink()
        self.complain(f"{self.path} is written again{'; lines are missing' if self._lost else ', whole'}")

    def close(self) -> None:
        """Flush for the last time; what cannot be written is lost."""
        self.flush()
        if self._waiting:
            count = self._waiting.count(b"\n")
            self.complain(
                f"{self.path}: its last {count:,} line{'' if count == 1 else 's'} could not be written"
            )
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def print_nothing(text: str) -> None:
    """Before anyone listens."""
