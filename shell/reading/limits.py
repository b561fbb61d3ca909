"""How much a config may cost to read: every bound, and the counters that keep it. No syntax lives here."""

from collections.abc import Iterator
from typing import Any

from shell.reading.faults import Fault

MAX_BYTES = 2_000_000  # a config file
MAX_FILES = 200  # files of one read, bases included
MAX_BASES = 40  # a base of a base of a base ...
MAX_STEPS = 200_000  # expressions and statements evaluated in one read
MAX_WORK = 10_000_000  # elements and characters produced or compared in one read
MAX_SIZE = 1_000_000  # elements of a list, characters of a string
MAX_NODES = 1_000_000  # values in the finished config
MAX_DEPTH = 100  # containers inside containers
MAX_NESTING = 150  # expressions inside expressions
MAX_INT = 2**63  # results of *, ** and <<
MAX_BITS = 20_000  # any integer, literals included
MAX_WIDTH = 1_000  # width and precision in a format
MAX_PROBLEMS = 50  # problems reported for one read

SMALLER = "Make it smaller, or compute it in your own code and name that as a component."


def too_much(what: str, limit: int, *, fatal: bool = False) -> Fault:
    return Fault("FK007", f"{what}; the limit is {limit:,}.", SMALLER, fatal=fatal)


def check_size(size: int, what: str) -> None:
    if size > MAX_SIZE:
        raise too_much(f"{what} would have {size:,} elements", MAX_SIZE)


CONTAINERS = (dict, list, tuple, set)


def children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set):
        yield from value


def weight(value: Any, *, characters: bool = True) -> int:
    """Values (and characters) of `value` written out as a tree, shared parts counted each time.

    Takes time in what there is in memory, not in the tree: sizes of shared parts are remembered.

    Raises:
        Fault: nested deeper than MAX_DEPTH (a list inside itself is infinitely deep).
    """
    if isinstance(value, CONTAINERS):
        return _measured(value, 1, {}, characters)[0]
    return 1 + len(value) if characters and isinstance(value, str) else 1


def _measured(value: Any, level: int, known: dict[int, tuple[int, int]], characters: bool) -> tuple[int, int]:
    """The weight of a container and how many levels it has."""
    found = known.get(id(value))
    if level + (found[1] if found else 1) > MAX_DEPTH + 1:
        raise too_much("The value is nested too deeply", MAX_DEPTH)
    if found:
        return found
    total, levels = 1, 1
    for item in children(value):
        if isinstance(item, CONTAINERS):
            size, below = _measured(item, level + 1, known, characters)
            total, levels = total + size, max(levels, below + 1)
        else:
            total += 1 + len(item) if characters and isinstance(item, str) else 1
    known[id(value)] = total, levels
    return total, levels


class Budget:
    """What one read may still spend; running out ends the read."""

    __slots__ = ("steps", "work")

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.work = MAX_WORK

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise too_much("Evaluating this config takes too many steps", MAX_STEPS, fatal=True)

    def spend(self, amount: int) -> None:
        self.work -= amount
        if self.work < 0:
            raise too_much("Evaluating this config handles too many elements", MAX_WORK, fatal=True)

    def deep(self, value: Any) -> None:
        """Pay for an operation that walks all of `value` (text, comparison, hash) before it runs."""
        self.spend(weight(value))
