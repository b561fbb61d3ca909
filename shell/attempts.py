"""What became of each checkpoint that was due, the same on every rank: when one is tried again, and what is missing."""

from time import perf_counter

from attrs import frozen

from flexcore.retrying import pause
from flexcore.run_plan import Saving

NEVER = float("inf")


@frozen(kw_only=True)
class Attempt:
    """A checkpoint that was due after `done` iterations. best: of a metric; regular: at a planned point."""

    name: str
    done: int
    best: bool
    regular: bool


class Attempts:
    """Of one start of a run.

    Attributes:
        failures: in a row. retry_at: when the next attempt is due, by perf_counter. failed_at: when the last one failed.
        last: the last one that failed, while nothing stands for it.
    """

    def __init__(self, saving: Saving | None) -> None:
        self._keep = saving.max_keep if saving is not None else -1
        self._first = saving.retry_seconds if saving is not None else None
        self.failures, self.retry_at, self.failed_at = 0, NEVER, 0.0
        self.last: Attempt | None = None
        self._noticed = False
        self._regular: dict[str, int] = {}
        self._best: dict[str, str] = {}
        self._others: list[str] = []

    @property
    def missing(self) -> tuple[str, ...]:
        """Checkpoints that would stand now if none had failed, and that nothing stands for."""
        return (*self._regular, *self._best.values(), *self._others)

    def settled(self, attempt: Attempt, *, stands: bool) -> None:
        """What every rank calls once it knows of one."""
        if attempt.regular and attempt.name not in self._regular:
            self._age()
        if stands:
            self._stands(attempt)
        else:
            self._fails(attempt)

    def noticed(self) -> None:
        """What the thread that writes calls where it has failed, before every rank knows; so another attempt is not late."""
        self.failed_at, self._noticed = perf_counter(), True
        self.retry_at = self._due_after(self.failures + 1)

    def _due_after(self, failures: int) -> float:
        return NEVER if self._first is None else self.failed_at + pause(self._first, failures)

    def _age(self) -> None:
        """Of regular ones the newest are kept: one that would have been retired is not missing any more."""
        older = {name: age + 1 for name, age in self._regular.items()}
        self._regular = {name: age for name, age in older.items() if self._keep < 0 or age < self._keep}

    def _stands(self, attempt: Attempt) -> None:
        if attempt.best:
            self._best.pop(metric_of(attempt.name), None)
            return
        self._others.clear()
        if attempt.regular:
            self._regular.pop(attempt.name, None)
        else:
            self._regular.clear()
        self.failures, self.retry_at, self.last = 0, NEVER, None

    def _fails(self, attempt: Attempt) -> None:
        if attempt.best:  # the weights it was of are gone with the next update
            self._best[metric_of(attempt.name)] = attempt.name
            return
        if attempt.regular:
            self._regular[attempt.name] = 0
        elif attempt.name not in self._others:
            self._others.append(attempt.name)
        if not self._noticed:
            self.failed_at = perf_counter()
        self.failures, self.last, self._noticed = self.failures + 1, attempt, False
        self.retry_at = self._due_after(self.failures)


def metric_of(name: str) -> str:
    """What best_<metric>_epoch_5 and best_<metric>_epoch_9 have in common."""
    return name.rsplit("_", 1)[0]
