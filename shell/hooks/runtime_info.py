"""Adds what the optimizer is set to, to each log line."""

from shell.hooks.param_scheduler import value_in
from shell.run import Run


class RuntimeInfoHook:
    def log_values(self, run: Run) -> dict[str, float]:
        """Group 0's value of the LR and of every other scheduled key."""
        keys = dict.fromkeys(["lr", *(schedule.param for schedule in run.plan.schedules or ())])
        group = run.optim_wrapper.param_groups[0]
        values = {key: value_in(group, key) for key in keys}
        return {key: value for key, value in values.items() if value is not None}
