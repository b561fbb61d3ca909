"""What follows a checkpoint that could not be saved: another attempt after a pause that doubles, until one stands."""

from typing import Final

LONGEST: Final = 3600.0
"""Seconds that no pause exceeds, unless the first one does."""

AT_END: Final = 3
"""Attempts more where a run ends by itself and its last checkpoint does not stand: no update follows that would wait."""


def pause(first: float, failures: int) -> float:
    """Seconds to wait after so many failures in a row (>= 1)."""
    return min(first * 2.0 ** min(failures - 1, 64), max(first, LONGEST))


def retried_name(done: int) -> str:
    """The name of a checkpoint that was tried again, after so many iterations."""
    return f"retried_iter_{done}"
