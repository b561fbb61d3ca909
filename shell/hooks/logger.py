"""Prints and records training values at the planned points, and every evaluation's metrics."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from flexcore.log_points import next_log
from shell.run import Run


class LoggerHook:
    """`sinks` take (values, iteration) for TensorBoard and the like; `console` prints."""

    def __init__(self, sinks: list[Any], console: Any) -> None:
        self.sinks, self.console = sinks, console
        self.due: float = 0

    def start(self, run: Run) -> None:
        self._plan_next(run, run.iter)

    def _plan_next(self, run: Run, after: int) -> None:
        clock = run.plan.timeline
        found = next_log(clock, run.plan.logging, after) if clock is not None else None
        self.due = float("inf") if found is None else found

    def after_train_iter(self, run: Run, **_: Any) -> None:
        done = run.iter + 1
        if done != self.due:
            return
        self._plan_next(run, done)
        values = training_values(run)
        for log_values in run.stages.contributors:
            values.update(log_values(run))
        if run.rank == 0:
            run.recorder.log(iter=done, epoch=run.epoch, values=values)
            self.console.train_line(run, done, values)
            for sink in self.sinks:
                sink.scalars({f"train/{key}": value for key, value in values.items() if key != "eta"}, done)

    def after_val_epoch(self, run: Run, metrics: Mapping[str, float] | None = None, **_: Any) -> None:
        self._metrics(run, "val", metrics or {})

    def after_test_epoch(self, run: Run, metrics: Mapping[str, float] | None = None, **_: Any) -> None:
        self._metrics(run, "test", metrics or {})

    def _metrics(self, run: Run, mode: str, metrics: Mapping[str, float]) -> None:
        if run.rank == 0:
            self.console.eval_line(run, mode, metrics)
            for sink in self.sinks:
                sink.scalars({f"{mode}/{key}": value for key, value in metrics.items()}, run.completed)
                sink.flush()


def training_values(run: Run) -> dict[str, float]:
    """Means over the log window of what the model returned and what hooks logged; the only host sync here."""
    columns = by_name(run.recent)
    pattern = run.plan.logging.mean_pattern
    values = {name: mean(smoothed(pattern, name, column)) for name, column in columns.items()}
    for name, wrapper in run.optim_wrapper.each:
        if wrapper.gradient_norm is not None:
            values["grad_norm" if name is None else f"{name}.grad_norm"] = float(wrapper.gradient_norm)
    values.update({name: mean(smoothed(pattern, name, list(kept))) for name, kept in run.custom.items()})
    return {name: value for name, value in values.items() if value is not None}


def by_name(recent: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of each name, over outputs that nearly always have the same names."""
    names = recent[-1] if recent else ()
    if sum(map(len, recent)) != len(recent) * len(names):
        names = dict.fromkeys(name for outputs in recent for name in outputs)
        return {name: [outputs[name] for outputs in recent if name in outputs] for name in names}
    try:
        return {name: [outputs[name] for outputs in recent] for name in names}
    except KeyError:
        return by_name([*recent, {}])


def smoothed(pattern: str | None, name: str, column: list[Any]) -> list[Any]:
    """What the mean is taken of: the window, or the last value alone where mean_pattern leaves the name out."""
    return column if pattern is None or re.search(pattern, name) else column[-1:]


def mean(values: list[Any]) -> float | None:
    """The mean of numbers or one-element tensors, stacked so that the device is waited for once."""
    if set(map(type, values)) == {torch.Tensor}:
        flat = torch.stack(values)
        return float(flat.mean(dtype=torch.float32)) if flat.numel() == len(values) else None
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    numbers += [float(tensor) for tensor in tensors if tensor.numel() == 1]
    return sum(numbers) / len(numbers) if numbers else None
