"""How a run is asked to stop, and how its ranks agree that it was; what stopping then means is not decided here."""

import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from shell.processes import Group

SIGNALS: Mapping[int, str] = {
    signal.SIGTERM: "preempted",
    signal.SIGUSR1: "preempted",  # Slurm's --signal=USR1@seconds, mpirun's only slow one
    signal.SIGINT: "interrupted",
}
"""What each signal asks for."""

SEVERITY: Mapping[str, int] = {
    "requested": 1, "early_stopping": 2, "time_limit": 3, "interrupted": 4, "preempted": 5, "nonfinite": 6,
}  # fmt: skip
"""Of several reasons the most severe is the run's; a request in any other words is "requested".

A reason may go on after a colon with words of its own. What is not finite comes before all: it must not be saved.
"""

ECHO_SECONDS = 0.2
"""The same signal again within this time is its echo: `timeout` and some shells send it to process and group."""

AFFORDABLE_SECONDS = 200e-6 * 100
"""Steps worth this many seconds pay for one agreement: an all_reduce (200 us on gloo) at 1% of their time."""

MOST_STEPS = 1000


class StopSignals:
    """Turns the first stop signal into a `reason`; a second one ends the process at once.

    Attributes:
        reason: None, or what the first signal asked for. A plain attribute, cheap to read in a loop.
        installed: False off the main thread, where Python cannot set handlers: `reason` then stays None.
    """

    __slots__ = ("_at", "_before", "_signum", "installed", "reason")

    def __init__(self) -> None:
        self.reason: str | None = None
        self.installed = False
        self._signum = 0
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        try:
            for signum in SIGNALS:
                self._before[signum] = signal.signal(signum, self._received)
        except ValueError:  # not the main thread
            return self
        self.installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._before.clear()
        self.installed = False

    def _received(self, signum: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.reason is None:
            self.reason, self._signum, self._at = SIGNALS[signum], signum, now
        elif signum != self._signum or now - self._at > ECHO_SECONDS:
            _end_at_once(signum)


def _end_at_once(signum: int) -> None:
    line = f"flexcore: second stop signal ({signal.Signals(signum).name}): ending at once, nothing more is saved\n"
    with suppress(Exception):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line.encode())
    os._exit(128 + signum)


def severest(*reasons: str | None) -> str | None:
    """The most severe of the reasons given; None if there is none."""
    named = [_named(reason) for reason in reasons if reason is not None]
    return max(named, key=SEVERITY.__getitem__, default=None)


def _named(reason: str) -> str:
    name = reason.partition(":")[0]
    return name if name in SEVERITY else "requested"


def outweighs(reason: str, other: str | None) -> bool:
    """Whether a reason is more severe than another, or as severe and later."""
    return other is None or SEVERITY[_named(reason)] >= SEVERITY[_named(other)]


def interval(seconds_per_step: float) -> int:
    """Steps between two agreements, such that agreeing costs under 1%; 1 while the step time is unknown."""
    if not seconds_per_step > 0 or math.isinf(seconds_per_step):
        return 1
    return max(1, min(MOST_STEPS, math.ceil(AFFORDABLE_SECONDS / seconds_per_step)))


class StopAgreement:
    """The ranks' common answer to "has this run been asked to stop?", the same on all at the same step.

    Attributes:
        next_check: the step from which `agreed` must be called again; before it the call can be left out.
            A single process must call at every step (0), which costs an attribute read.
        reason: what was agreed, once it was; it does not change after that.
        save: what was agreed in the last call to be due by a clock; 0: nothing.
    """

    __slots__ = ("_alone", "_asked", "_group", "_signals", "next_check", "reason", "save")

    def __init__(self, group: Group, signals: StopSignals) -> None:
        self.reason: str | None = None
        self.save = 0
        self._group = group
        self._signals = signals
        self._alone = group.rank.world_size == 1
        self._asked: str | None = None
        self.next_check = 0 if self._alone else 1

    def agreed(
        self,
        step: int,
        seconds_per_step: float,
        reason: str | None = None,
        force: bool = False,
        due: int | None = None,
    ) -> str | None:
        """The reason to stop after `step`, or None. Communicates iff `step` has reached `next_check`.

        Args:
            step: the step just done, equal on all ranks.
            seconds_per_step: what a step takes on this rank; the slowest rank's word sets `next_check`.
            reason: this rank's own wish to stop, in any words; remembered until the next agreement.
            force: communicate now; to be given by all ranks or none.
            due: which checkpoint this rank finds due by a clock, 0: none; None, on all ranks: the plan has none such.
        """
        self.save = int(due or 0) if self._alone else 0
        if self.reason is not None:
            return self.reason
        if self._alone:
            self.reason = severest(self._signals.reason, reason)
            return self.reason
        self._asked = severest(self._asked, reason)
        if force or step >= self.next_check:
            self._communicate(step, seconds_per_step, [] if due is None else [float(due)])
        return self.reason

    def _communicate(self, step: int, seconds_per_step: float, due: list[float]) -> None:
        wish = severest(self._signals.reason, self._asked)
        level, slowest, *found = self._group.max([SEVERITY[wish] if wish else 0, seconds_per_step, *due])
        self.save = int(max(found, default=0))
        self.next_check = step + interval(slowest)
        self.reason = next((name for name, severity in SEVERITY.items() if severity == level), None)
