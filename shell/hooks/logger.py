"""Prints and records training values at the planned points, and every evaluation's metrics."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from flexcore.log_points import next_log
from flexcore.reporting import Logging
from shell.hooks.runtime_info import RuntimeInfoHook
from shell.log_values import gradient_norms, restore_window, training_values, window_state
from shell.log_windows import Tally
from shell.loggers.console import Console
from shell.loggers.sinks import Sinks
from shell.run import Run

FOREVER = float("inf")


class LoggerHook:
    """`sinks` take values for TensorBoard and the like; `console` prints.

    State: the values its windows hold, so that after a resume each line shows what it would have shown.
    """

    def __init__(self, logging: Logging, sinks: Sinks, console: Console) -> None:
        self.logging, self.sinks, self.console = logging, sinks, console
        self.due: float = 0
        self._log_due = self._name_due = FOREVER
        self.tallies = {mode: Tally(logging.rules) for mode in ("train", "val", "test")}
        self.each_after_train_iter = self._take if logging.rules else None
        self._told_unseen = not logging.rules
        self._seconds, self._epoch = (0.0, 0.0), 0
        self._run: Run | None = None
        self._restored: Mapping[str, Any] | None = None

    def start(self, run: Run) -> None:
        self._run = run
        if self._restored is not None:
            restore_window(run, self._restored)
        run.followed.update(
            {name: partial(self._follow, run, name) for name in self.tallies["train"].sources}
        )
        self._plan_next(run, run.iter)

    def _plan_next(self, run: Run, after: int) -> None:
        clock, every = run.plan.timeline, self.logging.name_interval
        found = next_log(clock, self.logging, after) if clock is not None else None
        self._log_due = FOREVER if found is None else found
        self._name_due = FOREVER if every is None else after // every * every + every
        self.due = min(self._log_due, self._name_due)

    def _tally(self, run: Run) -> Tally:
        """That of training, in the epoch that runs."""
        if run.epoch != self._epoch:
            self._epoch = run.epoch
            self.tallies["train"].new_epoch()
        return self.tallies["train"]

    def _follow(self, run: Run, name: str, value: Any) -> None:
        """A value that a hook logs."""
        self._tally(run).sources[name].add(value)

    def _take(self, run: Run, outputs: Any = None, **_: Any) -> None:
        """One iteration's values for the rules."""
        data, step = self._seconds
        self._seconds = run.data_seconds, run.step_seconds
        own = {
            "data_time": run.data_seconds - data,
            "time": run.step_seconds - step,
            **RuntimeInfoHook().log_values(run),
        }
        own |= {name: norm for name, norm, fresh in gradient_norms(run) if fresh}
        self._tally(run).take({**own, **outputs} if isinstance(outputs, Mapping) else own)

    def after_train_iter(self, run: Run, outputs: Any = None, **_: Any) -> None:
        done = run.iter + 1
        if self.each_after_train_iter is not None:
            self.each_after_train_iter(run, outputs)
        if done != self.due:
            return
        logs, names = done == self._log_due, done == self._name_due
        self._plan_next(run, done)
        if names:
            run.logger.info("experiment %s", run.plan.names.experiment_name)
        if not logs:
            return
        values = training_values(run)
        for log_values in run.stages.contributors:
            values.update(log_values(run))
        if run.rank == 0:
            if self.each_after_train_iter is not None:
                values.update(self.tallies["train"].told())
            run.recorder.log(iter=done, epoch=run.epoch, values=values)
            self.console.train_line(run, done, values)
            if self.sinks.open:
                self.sinks.scalars(self._named("train", values), done)
            if not self._told_unseen:
                self._tell_unseen(run, settled=run.plan.validation is None)

    def _named(self, mode: str, values: Mapping[str, float]) -> dict[str, float]:
        """The values as backends get them."""
        prefix = f"{mode}/" if self.logging.hierarchy else ""
        return {prefix + key: value for key, value in values.items() if key != "eta"}

    def after_val_epoch(self, run: Run, metrics: Mapping[str, float] | None = None, **_: Any) -> None:
        self._metrics(run, "val", metrics or {})

    def after_test_epoch(self, run: Run, metrics: Mapping[str, float] | None = None, **_: Any) -> None:
        self._metrics(run, "test", metrics or {})

    def _metrics(self, run: Run, mode: str, metrics: Mapping[str, float]) -> None:
        tally = self.tallies[mode]
        tally.new_epoch()
        tally.take(metrics)
        if run.rank == 0:
            shown = {**metrics, **tally.told()}
            self.console.eval_line(run, mode, shown)
            self.sinks.metrics(self._named(mode, shown), run.completed, run.epoch)
            self._tell_unseen(run, settled=True)

    def _tell_unseen(self, run: Run, *, settled: bool) -> None:
        """Once, when training and evaluation have shown what they log: the sources that are not among it."""
        if self._told_unseen or not settled:
            return
        self._told_unseen = True
        unseen = set.intersection(*(set(tally.unseen()) for tally in self.tallies.values()))
        for name in sorted(unseen):
            run.logger.warning("log_processor.custom_cfg: nothing is logged as %r", name)

    def state_dict(self) -> dict[str, Any]:
        window = {} if self._run is None else window_state(self._run)
        return {
            **window,
            "epoch": self._epoch,
            "tallies": {mode: tally.state_dict() for mode, tally in self.tallies.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._restored, self._epoch = state, state["epoch"]
        for mode, kept in state["tallies"].items():
            self.tallies[mode].load_state_dict(kept)
