"""Where rank 0's values go besides the console and events.jsonl: opened as the plan says, told, and closed."""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Protocol

from flexcore.log_specs import LocalBackend, MLflowBackend, TensorBoardBackend, VisBackend, WandbBackend
from flexcore.problems import ConfigError
from flexcore.reporting import backends
from flexcore.rules import problem
from shell.loggers.packages import place_of
from shell.manifests import name_problem
from shell.run import Run


class Sink(Protocol):
    """One backend."""

    def begin(self, run: Run) -> None:
        """Open, and tell what the run is: its parameters, and its plan as text."""

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        """Training values after so many iterations."""

    def metrics(self, values: Mapping[str, float], iteration: int, epoch: int) -> None:
        """An evaluation's values after so many iterations and epochs."""

    def close(self, reason: str | None) -> None:
        """The run ended, for a reason of EXIT_CODES; None: with an error."""


class Sinks:
    """All backends of a run. One that fails while the run goes on is told of once, and left out from there on."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.open: list[tuple[str, Sink]] = []

    def begin(self) -> None:
        """Open every backend of the plan, on rank 0.

        Raises:
            ConfigError: one cannot be opened.
        """
        run = self._run
        planned = zip(backends(run.plan.config), run.plan.logging.backends, strict=True)
        for (place, _), backend in planned if run.rank == 0 else ():
            sink = _sink(backend, run)
            if sink is None:
                continue
            self.open.append((backend.NAME, sink))
            try:
                sink.begin(run)
            except Exception as error:
                self.open.pop()
                text = f"{backend.NAME} cannot be opened: {type(error).__name__}: {error}."
                raise ConfigError(
                    [problem("FK013", place_of(place), text, "Correct its settings, or remove it.")]
                ) from error

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        for entry in self.open:
            try:
                entry[1].scalars(values, iteration)
            except Exception as error:
                self._leave_out(entry, error)

    def metrics(self, values: Mapping[str, float], iteration: int, epoch: int) -> None:
        for entry in self.open:
            try:
                entry[1].metrics(values, iteration, epoch)
            except Exception as error:
                self._leave_out(entry, error)

    def _leave_out(self, entry: tuple[str, Sink], error: Exception) -> None:
        self.open = [one for one in self.open if one is not entry]
        self._complain(entry[0], error)

    def close(self, reason: str | None) -> None:
        """Write out and let go of every backend; a failure keeps none of the others open."""
        while self.open:
            name, sink = self.open.pop()
            try:
                sink.close(reason)
            except Exception as error:
                self._complain(name, error)
        try:
            copied(self._run)
        except OSError as error:
            self._run.logger.error("LoggerHook's out_dir: %s", error)

    def _complain(self, name: str, error: Exception) -> None:
        text = "%s: %s: %s; nothing more is written to it"
        self._run.logger.error(text, name, type(error).__name__, error)


def _record_dir(run: Run) -> pathlib.Path:
    """The log directory of the first start, where a board shows all of them as one run."""
    assert run.log_dir is not None
    record = run.plan.record
    return run.log_dir if record is None or name_problem(record) else run.log_dir.parent / record


def _sink(backend: VisBackend, run: Run) -> Sink | None:
    """The executor of a backend; None for the local record, which is always written."""
    match backend:
        case LocalBackend():
            return None
        case TensorBoardBackend(save_dir=given):
            from shell.loggers.tensorboard import TensorBoardSink

            directory = _record_dir(run) / run.plan.logging.board if given is None else pathlib.Path(given)
            return TensorBoardSink(directory, by_epoch=run.plan.logging.metric_axis == "epoch")
        case WandbBackend():
            from shell.loggers.wandb import WandbSink

            return WandbSink(backend)
        case MLflowBackend():
            from shell.loggers.mlflow import MLflowSink

            return MLflowSink(backend)


def copied(run: Run) -> None:
    """Copy what the plan says of the log directory, under the log directory's name.

    Raises:
        OSError: a file cannot be read or written.
    """
    copies, log_dir = run.plan.logging.copies, run.log_dir
    if copies is None or log_dir is None or run.rank != 0:
        return
    for file in sorted(log_dir.rglob("*")):
        if file.is_file() and file.name.endswith(copies.suffixes):
            target = pathlib.Path(copies.directory, log_dir.name, file.relative_to(log_dir))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
