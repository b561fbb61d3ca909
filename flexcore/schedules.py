"""Every parameter schedule: the union of forms, and those with values of their own. How they combine is in curves.

CosineRestart and OneCycle ignore the value they start from; ReduceOnPlateau is moved by data, not by the clock.
"""

import math
from bisect import bisect_right
from itertools import accumulate
from typing import Literal, Self

from attrs import evolve, frozen

from flexcore.forms import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    MultiStep,
    Poly,
    ScheduleBase,
    Step,
    fallen,
    floor_of,
)  # fmt: skip

__all__ = [
    "FORMS", "Constant", "Cosine", "CosineRestart", "Exponential", "Linear", "MultiStep", "OneCycle", "Poly",
    "ReduceOnPlateau", "Schedule", "ScheduleBase", "Step",
]  # fmt: skip


@frozen(kw_only=True, cache_hash=True)
class CosineRestart(ScheduleBase):
    """Cosine periods, each from restart_weight times the base value down to the floor; held after the last."""

    FORM = "CosineRestart"
    periods: tuple[int, ...]
    restart_weights: tuple[float, ...] = (1.0,)
    eta_min: float | None = None
    eta_min_ratio: float | None = None
    anchored = True

    def floor(self, base: float) -> float:
        return floor_of(self, base)

    def apply(self, start: float, base: float, t: int) -> float:  # noqa: ARG002
        ends = tuple(accumulate(self.periods))
        t = min(t, ends[-1] - 1)
        at = bisect_right(ends, t)
        floor, top = self.floor(base), base * self.restart_weights[at]
        return (
            floor
            + (top - floor)
            * (1 + math.cos(math.pi * (t - ends[at] + self.periods[at]) / self.periods[at]))
            / 2
        )

    def advance(self, current: float, base: float, t: int) -> float:
        ends = tuple(accumulate(self.periods))
        if t >= ends[-1]:
            return current
        at = bisect_right(ends, t)
        step = t - ends[at] + self.periods[at]
        if step == 0:
            return base * self.restart_weights[at]
        return fallen(current, self.floor(base), step, self.periods[at])

    def stretched(self, epoch_length: int) -> Self:
        longer = super().stretched(epoch_length)
        return evolve(longer, periods=tuple(period * epoch_length for period in self.periods))


@frozen(kw_only=True, cache_hash=True)
class OneCycle(ScheduleBase):
    """Up to eta_max within pct_start of total_steps and down to almost nothing; held after that (Smith 2018).

    It starts at eta_max / div_factor, whatever the base value, and ends at that over final_div_factor.
    """

    FORM = "OneCycle"
    eta_max: float
    total_steps: int | None = None
    pct_start: float = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False
    anchored = True

    def apply(self, start: float, base: float, t: int) -> float:  # noqa: ARG002
        total = self.total_steps or 1
        t, begin = min(t, total - 1), 0.0
        for end, low, high in self._phases(total):
            if t <= end:
                return self._between(low, high, 1.0 if end <= begin else (t - begin) / (end - begin))
            begin = end
        raise AssertionError  # the last phase ends with the cycle

    def advance(self, current: float, base: float, t: int) -> float:
        return current if t >= (self.total_steps or 1) else self.apply(current, base, t)

    def _phases(self, total: int) -> tuple[tuple[float, float, float], ...]:
        """(last local step, value at its begin, value at its end) of each phase."""
        low, rise = self.eta_max / self.div_factor, self.pct_start * total
        end = low / self.final_div_factor
        if self.three_phase:
            return ((rise - 1, low, self.eta_max), (2 * rise - 2, self.eta_max, low), (total - 1, low, end))
        return ((rise - 1, low, self.eta_max), (total - 1, self.eta_max, end))

    def _between(self, low: float, high: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (high - low) * share + low
        return high + (low - high) / 2.0 * (math.cos(math.pi * share) + 1)

    def stretched(self, epoch_length: int) -> Self:
        longer = super().stretched(epoch_length)
        total = None if self.total_steps is None else self.total_steps * epoch_length
        return evolve(longer, total_steps=total)


@frozen(kw_only=True, cache_hash=True)
class ReduceOnPlateau(ScheduleBase):
    """Scales the value by `factor` after more than `patience` validations without a better metric.

    What it does is decided by data (see plateaus), counted in [begin, end) of completed epochs or iterations.

    Attributes:
        monitor: the metric's name. rule: which way is better.
        threshold, threshold_rule: how much better counts, relative to the best or absolute.
        cooldown: validations after a reduction in which none counts as bad.
        min_value: never below this. eps: a reduction by no more than this is left out.
    """

    FORM = "ReduceOnPlateau"
    monitor: str = "loss"
    rule: Literal["less", "greater"] = "less"
    factor_value: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_rule: Literal["rel", "abs"] = "rel"
    cooldown: int = 0
    min_value: float = 0.0
    eps: float = 1e-8


Schedule = (
    Constant
    | Linear
    | Exponential
    | Step
    | MultiStep
    | Cosine
    | Poly
    | CosineRestart
    | OneCycle
    | ReduceOnPlateau
)
FORMS: tuple[type[ScheduleBase], ...] = (
    Constant, Linear, Exponential, Step, MultiStep, Cosine, Poly, CosineRestart, OneCycle, ReduceOnPlateau,
)  # fmt: skip
