"""Adds what the optimizers are set to, to each log line."""

from shell.hooks.param_scheduler import value_in
from shell.run import Run


class RuntimeInfoHook:
    def log_values(self, run: Run) -> dict[str, float]:
        """Group 0's value of the LR and of every other scheduled key; of several optimizers by their names."""
        found = {}
        for planned, (name, wrapper) in zip(run.plan.optimizers, run.optim_wrapper.each, strict=True):
            keys = dict.fromkeys(["lr", *(schedule.param for schedule in planned.schedules or ())])
            group = wrapper.param_groups[0]
            found |= {key if name is None else f"{name}.{key}": value_in(group, key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}
