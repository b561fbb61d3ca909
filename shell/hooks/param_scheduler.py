"""Sets every scheduled value before the iteration it holds for: the plan's, and what validations made of plateaus."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from flexcore import curves, plateaus
from flexcore.plateaus import PlateauState, Unwatched
from flexcore.problems import ConfigError
from flexcore.rules import problem
from flexcore.run_plan import Plan
from flexcore.wrappers import asked
from shell.run import Run


class ParamSchedulerHook:
    """State: that of the plateaus, optimizer after optimizer."""

    def __init__(self, plan: Plan) -> None:
        self.curves = [Curves(plan, place) for place in range(len(plan.optimizers))]
        self._at: int | None = None
        self._moves: list[tuple[str, Iterator[float], list[dict[str, Any]]]] = []

    def before_train_iter(self, run: Run, **_: Any) -> None:
        if run.iter != self._at:
            self._at, self._moves = run.iter, self._opened(run)
        self._at += 1
        for param, upcoming, groups in self._moves:
            new = next(upcoming)
            for group in groups:
                if param in group:
                    group[param] = new
                else:
                    set_value(group, param, new)

    def _opened(self, run: Run) -> list[tuple[str, Iterator[float], list[dict[str, Any]]]]:
        """(key, its values from this iteration on, the groups they are for)."""
        return [
            (param, upcoming, [wrapper.optimizer.param_groups[index] for index in indices])
            for curves_of, (_, wrapper) in zip(self.curves, run.optim_wrapper.each, strict=True)
            for param, upcoming, indices in curves_of.opened(run.iter)
        ]

    def after_val_epoch(self, run: Run, metrics: Mapping[str, float] | None = None, **_: Any) -> None:
        if run.plan.mode != "train" or not metrics:
            return
        for curves_of in self.curves:
            if curves_of.states:
                curves_of.validated(run, metrics)
                self._at = None

    def state_dict(self) -> dict[str, Any]:
        states = (state for curves_of in self.curves for state in curves_of.states)
        return {"plateaus": [[list(s.scales), s.best, s.bad, s.cooldown] for s in states]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what fits: other schedules than the checkpoint's start anew, as the plan has warned."""
        saved = [PlateauState(tuple(scales), *rest) for scales, *rest in state["plateaus"]]
        mine = [state for curves_of in self.curves for state in curves_of.states]
        if [len(s.scales) for s in saved] != [len(s.scales) for s in mine]:
            return
        upcoming = iter(saved)
        for curves_of in self.curves:
            curves_of.states = tuple(islice(upcoming, len(curves_of.states)))
        self._at = None


class Curves:
    """What moves the groups of one optimizer. Groups with one base value share one curve."""

    def __init__(self, plan: Plan, place: int) -> None:
        planned = plan.optimizers[place]
        self.name, self.schedules, self.groups = planned.name, planned.schedules or (), planned.groups
        self.epoch_length = plan.timeline.epoch_length if plan.timeline is not None else None
        self.states = plateaus.begun(self.schedules, len(self.groups))

    def opened(self, iteration: int) -> list[tuple[str, Iterator[float], list[int]]]:
        """(key, its values from this iteration on, the places of the groups they are for)."""
        alike: dict[tuple[str, float, float], list[int]] = {}
        for param in dict.fromkeys(schedule.param for schedule in self.schedules):
            for index, group in enumerate(self.groups):
                base = group.base(param)
                if base is not None:
                    factor = plateaus.scale(self.schedules, self.states, param, index)
                    alike.setdefault((param, base, factor), []).append(index)
        return [(key[0], self._values(*key, iteration), indices) for key, indices in alike.items()]

    def _values(self, param: str, base: float, factor: float, iteration: int) -> Iterator[float]:
        planned = curves.values(curves.own(self.schedules, param), base, self.epoch_length, iteration)
        return planned if factor == 1.0 else (value * factor for value in planned)

    def validated(self, run: Run, metrics: Mapping[str, float]) -> None:
        """The plateaus after a validation."""
        try:
            self.states = plateaus.validated(
                self.schedules, self.states, self.groups, metrics,
                epoch=run.epoch, iteration=run.completed, epoch_length=self.epoch_length,
            )  # fmt: skip
        except Unwatched as error:
            text = f"is {error.monitor}, and the validation reports {', '.join(error.metrics)}."
            place = next(one.schedules_place for one in asked(run.plan.config) if one.name == self.name)
            path = (*place, error.index, "monitor")
            raise ConfigError([problem("FS009", path, text, "Name one of these.")]) from None


def set_value(group: dict[str, Any], param: str, new: float) -> None:
    """Momentum is called betas[0] by the Adam family, as torch's own OneCycleLR has it."""
    if param == "momentum" and "momentum" not in group and "betas" in group:
        group["betas"] = (new, *group["betas"][1:])
    else:
        group[param] = new


def value_in(group: Mapping[str, Any], param: str) -> float | None:
    """What a group has under a scheduled key; None if it has no such key."""
    if param == "momentum" and "momentum" not in group and "betas" in group:
        return float(group["betas"][0])
    return float(group[param]) if param in group else None
