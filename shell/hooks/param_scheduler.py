"""Sets every scheduled value before the iteration it holds for; the value is the plan's, nothing is stepped."""

from typing import Any

from flexcore.run_plan import Plan
from flexcore.schedules import value
from shell.run import Run


class ParamSchedulerHook:
    def __init__(self, plan: Plan) -> None:
        self.by_param: dict[str, tuple[Any, ...]] = {}
        for schedule in plan.schedules or ():
            self.by_param[schedule.param] = (*self.by_param.get(schedule.param, ()), schedule)
        self.groups = plan.optimizer.groups if plan.optimizer is not None else ()
        self.epoch_length = plan.timeline.epoch_length if plan.timeline is not None else None

    @property
    def idle(self) -> bool:
        return not self.by_param

    def before_train_iter(self, run: Run, **_: Any) -> None:
        for param, schedules in self.by_param.items():
            for group, planned in zip(run.optim_wrapper.optimizer.param_groups, self.groups, strict=True):
                base = planned.base(param)
                if base is not None:
                    set_value(group, param, value(schedules, base, run.iter, self.epoch_length))


def set_value(group: dict[str, Any], param: str, new: float) -> None:
    """Momentum is called betas[0] by the Adam family, as torch's own OneCycleLR has it."""
    if param == "momentum" and "momentum" not in group and "betas" in group:
        group["betas"] = (new, *group["betas"][1:])
    else:
        group[param] = new
