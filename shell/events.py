"""events.jsonl: what really happened, written as it happens, steps in columns; read back for the report."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, Self

FILE = "events.jsonl"
FLUSH_AT = 1000


class Recorder:
    """Rank 0's record. `step` buffers; every other event writes the buffered steps first, then itself.

    Lines are flushed to the system as they are written, so a killed process loses at most the steps since the
    last event, which a resume repeats.
    """

    def __init__(self, directory: pathlib.Path | None) -> None:
        self._file = None if directory is None else (directory / FILE).open("a", encoding="utf-8")
        self._first: int | None = None
        self._lr: list[float] = []
        self._samples: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self.flush()
            self._file.close()

    def step(self, iteration: int, lr: float, samples: int) -> None:
        """One finished training iteration (0-based), its LR of group 0 and this rank's samples."""
        if self._first is None:
            self._first = iteration
        self._lr.append(lr)
        self._samples.append(samples)
        if len(self._lr) >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        if self._first is not None:
            self._write({"event": "steps", "first": self._first, "lr": packed(self._lr), "samples": packed(self._samples)})
            self._first = None
            self._lr.clear()
            self._samples.clear()

    def event(self, kind: str, **fields: Any) -> None:
        self.flush()
        self._write({"event": kind, **fields})

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def packed(values: list[Any]) -> list[Any]:
    """Run lengths where they are shorter: [v, v, v] -> [[v, 3]]; otherwise the values themselves."""
    runs: list[list[Any]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return [len(values), *values] if len(runs) * 2 > len(values) else [0, *runs]


def unpacked(column: list[Any]) -> list[Any]:
    """The values `packed` wrote."""
    if column and column[0] == 0:
        return [value for value, count in column[1:] for _ in range(count)]
    return column[1:]


def read(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The events of one file in order; a line a kill cut short ends the file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                return
