"""What validations make of a ReduceOnPlateau: its state, and the step from one validation to the next. Pure.

A plateau scales what the other schedules of its parameter give: the value in force is theirs times its `scales` entry
for the group. Alone this is mmengine's value; a floor of another schedule is scaled with it.
"""

import math
from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from flexcore import curves
from flexcore.plan_training import Group
from flexcore.schedules import ReduceOnPlateau, Schedule


@frozen
class PlateauState:
    """scales: one a group. best: the metric to beat; None before the first. bad: validations in a row that did not."""

    scales: tuple[float, ...]
    best: float | None = None
    bad: int = 0
    cooldown: int = 0


class Unwatched(KeyError):  # noqa: N818 - named for what happened
    """A validation did not report the metric a plateau monitors."""

    def __init__(self, index: int, monitor: str, metrics: Sequence[str]) -> None:
        super().__init__(monitor)
        self.index, self.monitor, self.metrics = index, monitor, tuple(metrics)


def begun(schedules: Sequence[Schedule], groups: int) -> tuple[PlateauState, ...]:
    """The state of every plateau before any validation, in list order."""
    return tuple(PlateauState((1.0,) * groups) for s in schedules if isinstance(s, ReduceOnPlateau))


def scale(schedules: Sequence[Schedule], states: Sequence[PlateauState], param: str, group: int) -> float:
    """What all plateaus of a parameter make of its planned value in one group."""
    watched = (s for s in schedules if isinstance(s, ReduceOnPlateau))
    own = (state.scales[group] for s, state in zip(watched, states, strict=True) if s.param == param)
    return math.prod(own)


def validated(
    schedules: Sequence[Schedule], states: Sequence[PlateauState], groups: Sequence[Group],
    metrics: Mapping[str, float], *, epoch: int, iteration: int, epoch_length: int | None,
) -> tuple[PlateauState, ...]:  # fmt: skip
    """The states after a validation at this many completed epochs and iterations; plateaus step in list order.

    Raises:
        Unwatched: a monitored metric is missing.
    """
    now = list(states)
    watched = [(i, s) for i, s in enumerate(schedules) if isinstance(s, ReduceOnPlateau)]
    for place, (index, schedule) in enumerate(watched):
        if schedule.monitor not in metrics:
            raise Unwatched(index, schedule.monitor, tuple(metrics))
        own = curves.own(schedules, schedule.param)
        current = tuple(
            curves.value(own, group.base(schedule.param) or 0.0, iteration, epoch_length)
            * scale(schedules, now, schedule.param, i)
            for i, group in enumerate(groups)
        )
        done = epoch if schedule.by_epoch else iteration
        now[place] = stepped(schedule, now[place], metrics[schedule.monitor], current, done)
    return tuple(now)


def stepped(
    schedule: ReduceOnPlateau, state: PlateauState, metric: float, current: Sequence[float], done: int
) -> PlateauState:
    """The state after one metric. current: each group's next value as it stands. done: as the schedule counts."""
    if not (schedule.begin <= done and (schedule.end is None or done < schedule.end)):
        return state
    better = _is_better(schedule, metric, state.best)
    best, bad, cooldown = (
        (metric, 0, state.cooldown) if better else (state.best, state.bad + 1, state.cooldown)
    )
    if cooldown > 0:
        cooldown, bad = cooldown - 1, 0
    if bad <= schedule.patience:
        return evolve(state, best=best, bad=bad, cooldown=cooldown)
    scales = tuple(old * _share(schedule, value) for old, value in zip(state.scales, current, strict=True))
    return PlateauState(scales=scales, best=best, cooldown=schedule.cooldown)


def _share(schedule: ReduceOnPlateau, current: float) -> float:
    """What is left of a value by one reduction."""
    new = max(current * schedule.factor_value, schedule.min_value)
    if not current - new > schedule.eps:
        return 1.0
    return schedule.factor_value if new > schedule.min_value else new / current


def _is_better(schedule: ReduceOnPlateau, metric: float, best: float | None) -> bool:
    if best is None:
        return not math.isnan(metric)
    relative = schedule.threshold_rule == "rel"
    if schedule.rule == "less":
        return metric < (best * (1.0 - schedule.threshold) if relative else best - schedule.threshold)
    return metric > (best * (1.0 + schedule.threshold) if relative else best + schedule.threshold)
