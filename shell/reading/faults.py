"""A problem on its way up: Fault carries what a reader found to where it is collected. No rule lives here."""

from attrs import frozen

from flexcore.problems import Path, Problem


@frozen
class Position:
    """A place in a file: lines and columns count from 1; column 0 means the whole line."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


class Fault(Exception):  # noqa: N818  # a finding in transit, not an error anyone sees
    """One problem found while reading; `fatal` means the rest of the read is not worth looking at."""

    def __init__(
        self,
        code: str,
        message: str,
        remedy: str,
        *,
        at: Position | None = None,
        path: Path = (),
        fatal: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.at = at
        self.path = path
        self.fatal = fatal

    def problem(self) -> Problem:
        where = None if self.at is None else str(self.at)
        return Problem(code=self.code, path=self.path, message=self.message, remedy=self.remedy, where=where)


class Broken(Exception):  # noqa: N818  # never leaves the reader
    """What is asked for depends on something already reported; nothing more to say."""
