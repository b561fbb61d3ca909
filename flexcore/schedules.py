"""Parameter schedules as closed forms of the iteration number; no state, nothing is stepped.

Each form is an affine map of the value at its start: value(t) = floor + (start - floor) * factor(t), with t
counted from `begin` in iterations or epochs. Forms follow mmengine 0.10's param schedulers (which follow
torch.optim.lr_scheduler); LR here is what is in force during an iteration, before its optimizer step.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Self

from attrs import evolve, frozen


@frozen(kw_only=True)
class ScheduleBase:
    """What every schedule has: the group key it moves and the span [begin, end) in which it moves.

    `by_epoch` None follows the training loop; `end` None means the end of the run. Both are filled by `resolved`.
    """

    param: str = "lr"
    begin: int = 0
    end: int | None = None
    by_epoch: bool | None = None
    convert_to_iter_based: bool = False

    def factor(self, t: int) -> float:
        """Multiplier at local step t >= 0."""
        raise NotImplementedError

    def floor(self, base: float) -> float:  # noqa: ARG002
        """The value the schedule tends to; 0 makes it purely multiplicative."""
        return 0.0

    def stretched(self, epoch_length: int) -> Self:
        """The same curve counted in iterations."""
        end = None if self.end is None else self.end * epoch_length
        return evolve(
            self, begin=self.begin * epoch_length, end=end, by_epoch=False, convert_to_iter_based=False
        )

    @property
    def last(self) -> int:
        """Local index of the last step inside the span."""
        return (self.end if self.end is not None else self.begin + 1) - self.begin - 1


@frozen(kw_only=True)
class Constant(ScheduleBase):
    """`factor_value` until the span's last step, then 1."""

    FORM = "Constant"
    factor_value: float = 1.0 / 3

    def factor(self, t: int) -> float:
        return self.factor_value if t < self.last or t == 0 else 1.0


@frozen(kw_only=True)
class Linear(ScheduleBase):
    """From start_factor to end_factor, reached at the span's last step."""

    FORM = "Linear"
    start_factor: float = 1.0 / 3
    end_factor: float = 1.0

    def factor(self, t: int) -> float:
        return self.start_factor + (self.end_factor - self.start_factor) * t / max(1, self.last)


@frozen(kw_only=True)
class Exponential(ScheduleBase):
    """gamma ** t."""

    FORM = "Exponential"
    gamma: float = 0.1

    def factor(self, t: int) -> float:
        return _power(self.gamma, t)

    def stretched(self, epoch_length: int) -> Self:
        longer = super().stretched(epoch_length)
        return evolve(longer, gamma=self.gamma ** (1 / epoch_length))


@frozen(kw_only=True)
class Step(ScheduleBase):
    """gamma ** (t // step_size)."""

    FORM = "Step"
    step_size: int = 1
    gamma: float = 0.1

    def factor(self, t: int) -> float:
        return _power(self.gamma, t // self.step_size)

    def stretched(self, epoch_length: int) -> Self:
        longer = super().stretched(epoch_length)
        return evolve(longer, step_size=self.step_size * epoch_length)


@frozen(kw_only=True)
class MultiStep(ScheduleBase):
    """gamma ** (number of milestones at or before t); milestones count from `begin`."""

    FORM = "MultiStep"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1

    def factor(self, t: int) -> float:
        return _power(self.gamma, bisect_right(self.milestones, t))

    def stretched(self, epoch_length: int) -> Self:
        longer = super().stretched(epoch_length)
        milestones = tuple(m * epoch_length for m in self.milestones)
        return evolve(longer, milestones=milestones)


@frozen(kw_only=True)
class Cosine(ScheduleBase):
    """(1 + cos(pi t / T_max)) / 2 down to eta_min (or eta_min_ratio of the base value); Loshchilov 2017."""

    FORM = "CosineAnnealing"
    T_max: int | None = None
    eta_min: float | None = None
    eta_min_ratio: float | None = None

    def factor(self, t: int) -> float:
        return (1 + math.cos(math.pi * t / (self.T_max or 1))) / 2

    def floor(self, base: float) -> float:
        return _floor(self, base)

    def stretched(self, epoch_length: int) -> Self:
        longer = super().stretched(epoch_length)
        t_max = None if self.T_max is None else self.T_max * epoch_length
        return evolve(longer, T_max=t_max)


@frozen(kw_only=True)
class Poly(ScheduleBase):
    """(1 - t / T) ** power down to eta_min, T being the span's last step."""

    FORM = "Poly"
    power: float = 1.0
    eta_min: float | None = None
    eta_min_ratio: float | None = None

    def factor(self, t: int) -> float:
        return _power(1 - t / max(1, self.last), self.power)

    def floor(self, base: float) -> float:
        return _floor(self, base)


Schedule = Constant | Linear | Exponential | Step | MultiStep | Cosine | Poly
FORMS: tuple[type[ScheduleBase], ...] = (Constant, Linear, Exponential, Step, MultiStep, Cosine, Poly)


def _power(base: float, exponent: float) -> float:
    """`base` ** `exponent` for base >= 0; infinite where a float cannot hold it."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def _floor(schedule: Cosine | Poly, base: float) -> float:
    if schedule.eta_min_ratio is not None:
        return base * schedule.eta_min_ratio
    return schedule.eta_min or 0.0


def resolved(
    schedule: Schedule,
    *,
    by_epoch: bool,
    epoch_length: int | None,
    total_epochs: int | None,
    total: int | None,
) -> Schedule | None:
    """The schedule with every default filled, counted as the loop counts; None while a needed length is unknown.

    An omitted end is the end of the run, as in FlexibleRunner; cosine's T_max is the span.
    """
    counted_by_epoch = by_epoch if schedule.by_epoch is None else schedule.by_epoch
    end = schedule.end if schedule.end is not None else (total_epochs if counted_by_epoch else total)
    filled = evolve(schedule, by_epoch=counted_by_epoch, end=end)
    if end is None or (counted_by_epoch and epoch_length is None):
        return None
    if schedule.convert_to_iter_based and counted_by_epoch and epoch_length is not None:
        filled = filled.stretched(epoch_length)
    if isinstance(filled, Cosine) and filled.T_max is None and filled.end is not None:
        filled = evolve(filled, T_max=filled.end - filled.begin)
    return filled


def local_step(schedule: Schedule, iteration: int, epoch_length: int | None) -> int | None:
    """Steps since `begin` at this iteration, held at the span's last; None before it begins."""
    counter = iteration // epoch_length if schedule.by_epoch and epoch_length else iteration
    if counter < schedule.begin:
        return None
    last = counter if schedule.end is None else min(counter, schedule.end - 1)
    return last - schedule.begin


def value(schedules: Sequence[Schedule], base: float, iteration: int, epoch_length: int | None) -> float:
    """The parameter in force at `iteration` (0-based), for schedules of one param, from its base value.

    Maps are applied in the order they begin. Exact where no floored schedule overlaps another (see `clashes`).
    """
    current = base
    if len(schedules) > 1:
        schedules = sorted(schedules, key=lambda schedule: span(schedule, epoch_length)[0])
    for schedule in schedules:
        t = local_step(schedule, iteration, epoch_length)
        if t is not None:
            floor = schedule.floor(base)
            current = floor + (current - floor) * schedule.factor(t)
    return current


def span(schedule: Schedule, epoch_length: int | None) -> tuple[float, float]:
    """[begin, end) in iterations; an open end is infinite."""
    unit = epoch_length if schedule.by_epoch and epoch_length else 1
    return schedule.begin * unit, math.inf if schedule.end is None else schedule.end * unit


def clashes(schedules: Sequence[Schedule], epoch_length: int | None) -> tuple[tuple[int, int], ...]:
    """Index pairs of same-param schedules that overlap while one has a floor: those have no closed form."""
    found = []
    for i, one in enumerate(schedules):
        for j in range(i + 1, len(schedules)):
            other = schedules[j]
            floored = one.floor(1.0) or other.floor(1.0)
            if one.param == other.param and floored and _overlap(one, other, epoch_length):
                found.append((i, j))
    return tuple(found)


def _overlap(one: Schedule, other: Schedule, epoch_length: int | None) -> bool:
    (one_begin, one_end), (other_begin, other_end) = span(one, epoch_length), span(other, epoch_length)
    return one_begin < other_end and other_begin < one_end
