"""Config files in, plain data with positions out. Formats and the dialect are in `shell.reading`; nothing is run."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from flexcore.problems import ConfigError, Path
from shell.reading.faults import Fault, Position

__all__ = ["Position", "Source", "apply_overrides", "read"]


@attrs.frozen(kw_only=True)
class Source:
    """A config as data, and where each part of it was written.

    Attributes:
        data: dict, list, tuple, set, str, int, float, bool and None; nothing shared, nothing cyclic.
        positions: the place of each key and list item, the bases' and overrides' included.
        filename: the file that was asked for.

    """

    data: dict[str, Any]
    positions: Mapping[Path, Position]
    filename: str

    def where(self, path: Path) -> str | None:
        """Say "file:line:column" of the nearest known part of the path; "file:1" for the config itself."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.positions:
                return str(self.positions[path[:end]])
        return f"{self.filename}:1" if self.filename else None


def read(path: str, overrides: Sequence[str] = ()) -> Source:
    """Read a config file with its bases and apply overrides.

    Raises:
        ConfigError: every problem found in the file, its bases, the overrides and the files they name (FK001 to FK007).

    """
    from shell.reading.faults import Broken
    from shell.reading.loading import Loader
    from shell.reading.marked import unmarked

    loader = Loader()
    positions: dict[Path, Position] = {}
    try:
        data = unmarked(loader.config(path), (), positions)
    except (Broken, Fault):
        raise _error([*loader.problems(), *_unreadable(overrides)]) from None
    source = Source(data=data, positions=positions, filename=path)
    return _whole(apply_overrides(source, overrides) if overrides else source)


def _whole(source: Source) -> Source:
    """The source with what it names for an engine in it."""
    from shell.reading.inlining import inlined

    try:
        data, positions = inlined(source.data, source.positions)
    except Fault as fault:
        raise _error([fault]) from None
    return attrs.evolve(source, data=data, positions=positions)


def apply_overrides(source: Source, overrides: Sequence[str]) -> Source:
    """The source with each override applied in turn; the given one is unchanged.

    Raises:
        ConfigError: every override that cannot be applied (FK006).

    """
    from shell.reading.overrides import Overriding

    result = Overriding(source.data, dict(source.positions))
    result.apply(overrides)
    if result.faults:
        raise _error(result.faults)
    return attrs.evolve(source, data=result.data, positions=result.positions)


def _unreadable(overrides: Sequence[str]) -> list[Fault]:
    """Overrides that are wrong whatever the file says."""
    from shell.reading.overrides import parsed

    found = []
    for index, text in enumerate(overrides):
        try:
            parsed(text, index)
        except Fault as fault:
            found.append(fault)
    return found


def _error(faults: Sequence[Fault]) -> ConfigError:
    return ConfigError(fault.problem() for fault in faults)
