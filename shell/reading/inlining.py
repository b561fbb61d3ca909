"""Files that a config names for an engine are read with it, so that a plan holds all of them and reads none."""

import os
from collections.abc import Mapping
from typing import Any

from flexcore.problems import Path, did_you_mean, shown
from shell.reading.faults import Fault, Position
from shell.reading.from_json import read_json
from shell.reading.marked import Map, check_whole, unmarked
from shell.reading.text import file_text

STRATEGIES = ("DeepSpeedStrategy", "MMDeepSpeedStrategy")
PLACE: Path = ("strategy", "config")


def inlined(
    data: dict[str, Any], positions: Mapping[Path, Position]
) -> tuple[dict[str, Any], dict[Path, Position]]:
    """The config with DeepSpeed's own file in the place of its name, and the positions of its keys.

    A file is named relative to the config that names it; on the command line, to where the command is run.

    Raises:
        Fault: it is not there, or no JSON mapping.
    """
    strategy = data.get("strategy")
    name = strategy.get("config") if isinstance(strategy, dict) else None
    if not isinstance(name, str) or str(strategy.get("type")).rpartition(".")[2] not in STRATEGIES:
        return data, dict(positions)
    at = positions.get(PLACE)
    path = os.path.join(os.path.dirname(at.file) if at is not None else "", name)
    found: dict[Path, Position] = dict(positions)
    read = unmarked(_mapping(path, name, at), PLACE, found)
    return {**data, "strategy": {**strategy, "config": read}}, found


def _mapping(path: str, name: str, at: Position | None) -> Map:
    if not os.path.isfile(path):
        folder = os.path.dirname(path) or "."
        near = (
            did_you_mean(os.path.basename(path), sorted(os.listdir(folder))[:10_000])
            if os.path.isdir(folder)
            else ""
        )
        message = (
            f"DeepSpeed's configuration {shown(name)} does not exist: there is no file {shown(path)}.{near}"
        )
        remedy = "It is named relative to the config that names it."
        raise Fault("FK001", message, remedy, at=at, path=PLACE)
    faults: list[Fault] = []
    value = read_json(file_text(path, path), path, faults)
    if faults:
        raise faults[0]
    if not isinstance(value, Map):
        message = f"DeepSpeed's configuration {shown(name)} holds {shown(value)} where it needs a mapping."
        raise Fault("FK002", message, "Write keys and values.", at=Position(path, 1, 0), path=PLACE)
    check_whole(value)
    return value
