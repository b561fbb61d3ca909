"""Bytes of a file become text, or one problem that says why not; and offsets become lines and columns."""

import os
import stat
from bisect import bisect_right

from flexcore.problems import shown
from shell.reading.faults import Fault, Position
from shell.reading.limits import MAX_BYTES

READABLE = "Give the path of a readable config file."


def file_text(path: str, name: str) -> str:
    """The text of a regular file; `name` is how messages call it."""
    at = Position(name, 1, 0)
    raw = _raw(path, name, at)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Fault(
            "FK001",
            f'"{name}" is not UTF-8: byte {raw[error.start]:#04x} at offset {error.start} cannot be decoded.',
            "Save the file as UTF-8.",
            at=Position(name, line, 0),
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _raw(path: str, name: str, at: Position) -> bytes:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise Fault("FK001", f'"{name}" is a directory, not a config file.', READABLE, at=at)
        if not stat.S_ISREG(mode):
            raise Fault("FK001", f'"{name}" is not a regular file.', READABLE, at=at)
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise Fault("FK001", f'There is no file "{name}".', READABLE, at=at) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or shown(str(error))
        raise Fault("FK001", f'"{name}" cannot be read: {reason}.', READABLE, at=at) from None
    if len(raw) > MAX_BYTES:
        raise Fault(
            "FK001",
            f'"{name}" is larger than {MAX_BYTES:,} bytes, the limit for a config.',
            "Keep data in data files and name them in the config.",
            at=at,
        )
    return raw


class Lines:
    """Offsets of one text as positions."""

    __slots__ = ("_name", "_starts")

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._starts = [0]
        for line in text.split("\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def at(self, offset: int) -> Position:
        line = min(bisect_right(self._starts, offset), len(self._starts) - 1)
        return Position(self._name, line, offset - self._starts[line - 1] + 1)
