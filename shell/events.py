"""events.jsonl: what really happened, written as it happens, steps in columns; read back for the report."""

import json
import pathlib
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Self

from shell.appending import Appending

FILE = "events.jsonl"
FLUSH_AT = 1000
_encode = json.JSONEncoder().encode


class Recorder:
    """Rank 0's record. The loop appends to its columns; every event writes those first, then itself.

    Every event but a log line is handed to the system as it is written, and the steps before a checkpoint before
    it commits; so a killed process loses only steps that a resume repeats.
    """

    def __init__(self, directory: pathlib.Path | None) -> None:
        self._file = None if directory is None else Appending(directory / FILE)
        self._first, self._handed_over = 0, monotonic()
        self.lr: dict[str | None, list[float]] = {}
        self.samples: list[int] = []
        self._written_samples = 0

    def complain_to(self, complain: Callable[[str], None]) -> None:
        """Who is told when the record cannot be written, and when it can again."""
        if self._file is not None:
            self._file.complain = complain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self.flush()
            self._file.close()

    def begin(self, iteration: int) -> None:
        """The next entry of the columns of LRs and `samples` (this rank's) is this 0-based iteration."""
        self.flush()
        self._first = iteration

    def rates(self, name: str | None) -> Callable[[float], None]:
        """What takes the LR of group 0 of an optimizer at each step; name: of one of several."""
        return self.lr.setdefault(name, []).append

    def flush(self) -> None:
        """Write the columns gathered since the last time; of several optimizers' LRs a mapping of them."""
        if self.samples:
            lrs = {name: packed(column) for name, column in self.lr.items()}
            alone = lrs.get(None, lrs)
            self._write(
                {"event": "steps", "first": self._first, "lr": alone, "samples": packed(self.samples)}
            )
            self._first += len(self.samples)
            self._written_samples += sum(self.samples)
            self.samples.clear()
            for column in self.lr.values():
                column.clear()

    @property
    def total_samples(self) -> int:
        """What this rank used since its process started."""
        return self._written_samples + sum(self.samples)

    def event(self, kind: str, **fields: Any) -> None:
        """Record what happened, after the steps before it, and hand it all to the system."""
        self.flush()
        self._write({"event": kind, **fields})
        if self._file is not None:
            self._file.flush()

    def aside(self, kind: str, **fields: Any) -> None:
        """Record what another thread did: at once, so perhaps before the steps that were taken meanwhile."""
        self._write({"event": kind, **fields})
        if self._file is not None:
            self._file.flush()

    def hand_over(self) -> None:
        """Everything up to here to the system: what a checkpoint holds must be on record before it stands."""
        self.flush()
        if self._file is not None:
            self._file.flush()

    def log(self, **fields: Any) -> None:
        """A log line's values; handed to the system once a second, for a system call costs more than the line."""
        self.flush()
        self._write({"event": "log", **fields})
        now = monotonic()
        if self._file is not None and now - self._handed_over > 1.0:
            self._file.flush()
            self._handed_over = now

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(_encode(line) + "\n")


def packed(values: list[Any]) -> list[Any]:
    """[0, value, count] for one repeated value; otherwise [n, *values]."""
    if values and values.count(values[0]) == len(values):
        return [0, values[0], len(values)]
    return [len(values), *values]


def unpacked(column: list[Any]) -> list[Any]:
    """The values `packed` wrote."""
    return [column[1]] * column[2] if len(column) == 3 and column[0] == 0 else column[1:]


class DamagedRecord(ValueError):  # noqa: N818 - named for what was found
    """A line that is not the last one cannot be read."""


def read(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The events of one file in order; a last line that a kill cut short is left out.

    Raises:
        DamagedRecord: any other line is no event.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        cut = None
        for number, line in enumerate(file, 1):
            if cut is not None:
                raise DamagedRecord(
                    f"{path}: line {cut} is not an event; the record was changed after the run."
                )
            event = _decoded(line)
            if event is None:
                cut = number
            else:
                yield event


def _decoded(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "event" in found else None
