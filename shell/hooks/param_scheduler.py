"""Sets every scheduled value before the iteration it holds for; the value is the plan's, nothing is stepped."""

from typing import Any

from flexcore.run_plan import Plan
from flexcore.schedules import value
from shell.run import Run


class ParamSchedulerHook:
    def __init__(self, plan: Plan) -> None:
        by_param: dict[str, tuple[Any, ...]] = {}
        for schedule in plan.schedules or ():
            by_param[schedule.param] = (*by_param.get(schedule.param, ()), schedule)
        groups = plan.optimizer.groups if plan.optimizer is not None else ()
        self.moves = [
            (index, param, schedules, base)
            for param, schedules in by_param.items()
            for index, group in enumerate(groups)
            if (base := group.base(param)) is not None
        ]
        self.epoch_length = plan.timeline.epoch_length if plan.timeline is not None else None

    def before_train_iter(self, run: Run, **_: Any) -> None:
        groups, iteration = run.optim_wrapper.optimizer.param_groups, run.iter
        for index, param, schedules, base in self.moves:
            group, new = groups[index], value(schedules, base, iteration, self.epoch_length)
            if param in group:
                group[param] = new
            else:
                set_value(group, param, new)


def set_value(group: dict[str, Any], param: str, new: float) -> None:
    """Momentum is called betas[0] by the Adam family, as torch's own OneCycleLR has it."""
    if param == "momentum" and "momentum" not in group and "betas" in group:
        group["betas"] = (new, *group["betas"][1:])
    else:
        group[param] = new
