"""The LRs on record against the planned ones; what validations made of plateaus is replayed from their metrics."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flexcore import curves, plateaus
from flexcore.run_plan import Plan


def rate_differences(
    plan: Plan, iteration: int, rates: Sequence["Rates"], actual: float | tuple[float, ...]
) -> Iterator[tuple[str, str, str]]:
    """(what, planned, actual) for each optimizer whose LR was another. actual: of several optimizers one each."""
    recorded = actual if isinstance(actual, tuple) else (actual,)
    if len(recorded) != len(plan.optimizers):
        yield "lr", f"{len(plan.optimizers)} optimizers", str(len(recorded))
        return
    for place, optimizer in enumerate(plan.optimizers):
        planned, lr = rates[place].lr(plan, iteration), recorded[place]
        if planned is not None and planned != lr:
            yield "lr" if optimizer.name is None else f"{optimizer.name}.lr", repr(planned), repr(lr)


class Rates:
    """The LR of one optimizer's group 0, iteration by iteration; plateaus are replayed from the logged metrics."""

    def __init__(self, checks: Sequence[Mapping[str, Any]], place: int) -> None:
        self.place = place
        self.checks = list(reversed(checks))
        self.states: tuple[plateaus.PlateauState, ...] = ()
        self.plan: Plan | None = None
        self.at: int
        self.upcoming: Iterator[float]

    def lr(self, plan: Plan, iteration: int) -> float | None:
        optimizer, clock = plan.optimizers[self.place], plan.timeline
        schedules = optimizer.schedules
        if schedules is None or clock is None or optimizer.lr_scale is None:
            return None
        base, length = optimizer.groups[0].base("lr"), clock.epoch_length
        if base is None:
            return None
        if plan is not self.plan or iteration != self.at:
            fresh = plateaus.begun(schedules, 1)
            self.states = self.states if len(self.states) == len(fresh) else fresh
            self.upcoming = curves.values(curves.own(schedules, "lr"), base, length, iteration)
        self.plan, self.at = plan, iteration + 1
        while self.checks and self.checks[-1]["iter"] <= iteration:
            check = self.checks.pop()
            self.states = plateaus.validated(
                schedules, self.states, optimizer.groups[:1], check["metrics"],
                epoch=check["epoch"], iteration=check["iter"], epoch_length=length,
            )  # fmt: skip
        return next(self.upcoming) * plateaus.scale(schedules, self.states, "lr", 0)
