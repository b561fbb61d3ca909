"""What every schedule has, and the forms that map the value they start from. The others are in schedules.

Each is a closed form, value(t) = floor + (start - floor) * factor(t), with t counted from `begin` in iterations or
epochs, and mmengine's step from t - 1 to t, for schedules that overlap (see curves). Forms follow mmengine 0.10's param
schedulers (which follow torch.optim.lr_scheduler); LR here is what is in force during an iteration, before its
optimizer step.
"""

import math
from bisect import bisect_right
from typing import Protocol, Self

from attrs import evolve, frozen


@frozen(kw_only=True, cache_hash=True)
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

    def apply(self, start: float, base: float, t: int) -> float:
        """The value at local step t, from the value at its start and the group's base value."""
        floor = self.floor(base)
        return floor + (start - floor) * self.factor(t)

    def advance(self, current: float, base: float, t: int) -> float:
        """The value at local step t from the one before, which other schedules may have moved: mmengine's recursion."""
        raise NotImplementedError

    @property
    def anchored(self) -> bool:
        """Whether it is no mere factor, so that its product with an overlapping schedule means nothing."""
        return False

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


@frozen(kw_only=True, cache_hash=True)
class Constant(ScheduleBase):
    """`factor_value` until the span's last step, then 1."""

    FORM = "Constant"
    factor_value: float = 1.0 / 3

    def factor(self, t: int) -> float:
        return self.factor_value if t < self.last or t == 0 else 1.0

    def advance(self, current: float, base: float, t: int) -> float:  # noqa: ARG002
        if t == 0:
            return current * self.factor_value
        return current * (1.0 / self.factor_value) if t == self.last else current


@frozen(kw_only=True, cache_hash=True)
class Linear(ScheduleBase):
    """From start_factor to end_factor, reached at the span's last step."""

    FORM = "Linear"
    start_factor: float = 1.0 / 3
    end_factor: float = 1.0

    def factor(self, t: int) -> float:
        return self.start_factor + (self.end_factor - self.start_factor) * t / max(1, self.last)

    def advance(self, current: float, base: float, t: int) -> float:  # noqa: ARG002
        if t == 0:
            return current * self.start_factor
        rise = self.end_factor - self.start_factor
        return current * (1.0 + rise / (self.last * self.start_factor + (t - 1) * rise))


@frozen(kw_only=True, cache_hash=True)
class Exponential(ScheduleBase):
    """gamma ** t."""

    FORM = "Exponential"
    gamma: float = 0.1

    def factor(self, t: int) -> float:
        return _power(self.gamma, t)

    def stretched(self, epoch_length: int) -> Self:
        longer = super().stretched(epoch_length)
        return evolve(longer, gamma=self.gamma ** (1 / epoch_length))

    def advance(self, current: float, base: float, t: int) -> float:  # noqa: ARG002
        return current * self.gamma if t else current


@frozen(kw_only=True, cache_hash=True)
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

    def advance(self, current: float, base: float, t: int) -> float:  # noqa: ARG002
        return current * self.gamma if t and t % self.step_size == 0 else current


@frozen(kw_only=True, cache_hash=True)
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

    def advance(self, current: float, base: float, t: int) -> float:  # noqa: ARG002
        return current * _power(self.gamma, self.milestones.count(t))


@frozen(kw_only=True, cache_hash=True)
class Cosine(ScheduleBase):
    """(1 + cos(pi t / T_max)) / 2 down to eta_min (or eta_min_ratio of the base value); Loshchilov 2017."""

    FORM = "CosineAnnealing"
    T_max: int | None = None
    eta_min: float | None = None
    eta_min_ratio: float | None = None

    def factor(self, t: int) -> float:
        return (1 + math.cos(math.pi * t / (self.T_max or 1))) / 2

    def floor(self, base: float) -> float:
        return floor_of(self, base)

    def stretched(self, epoch_length: int) -> Self:
        longer = super().stretched(epoch_length)
        t_max = None if self.T_max is None else self.T_max * epoch_length
        return evolve(longer, T_max=t_max)

    def advance(self, current: float, base: float, t: int) -> float:
        period, floor = self.T_max or 1, self.floor(base)
        if t == 0:
            return current
        if (t - 1 - period) % (2 * period) == 0:  # it stood at its floor, whence no factor leads up
            return current + (base - floor) * (1 - math.cos(math.pi / period)) / 2
        return fallen(current, floor, t, period)

    @property
    def anchored(self) -> bool:
        return bool(self.eta_min or self.eta_min_ratio) or self.turns

    @property
    def turns(self) -> bool:
        """Whether it rises again after T_max; mmengine's then rises to the base value, wherever it started."""
        return self.T_max is not None and self.last > self.T_max


@frozen(kw_only=True, cache_hash=True)
class Poly(ScheduleBase):
    """(1 - t / T) ** power down to eta_min, T being the span's last step."""

    FORM = "Poly"
    power: float = 1.0
    eta_min: float | None = None
    eta_min_ratio: float | None = None

    def factor(self, t: int) -> float:
        return _power(1 - t / max(1, self.last), self.power)

    def floor(self, base: float) -> float:
        return floor_of(self, base)

    def advance(self, current: float, base: float, t: int) -> float:
        floor = self.floor(base)
        if t == 0:
            return current
        return (current - floor) * _power(1 - 1 / (self.last - t + 1), self.power) + floor

    @property
    def anchored(self) -> bool:
        return bool(self.eta_min or self.eta_min_ratio)


class Floored(Protocol):
    """A schedule with a floor: a value, or a ratio of the base value."""

    @property
    def eta_min(self) -> float | None: ...
    @property
    def eta_min_ratio(self) -> float | None: ...


def fallen(current: float, floor: float, t: int, period: int) -> float:
    """One cosine step towards the floor."""
    ratio = (1 + math.cos(math.pi * t / period)) / (1 + math.cos(math.pi * (t - 1) / period))
    return ratio * (current - floor) + floor


def _power(base: float, exponent: float) -> float:
    """`base` ** `exponent` for base >= 0; infinite where a float cannot hold it."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def floor_of(schedule: Floored, base: float) -> float:
    if schedule.eta_min_ratio is not None:
        return base * schedule.eta_min_ratio
    return schedule.eta_min or 0.0
