"""What rank 0 shows: a live progress bar on a terminal, plain lines elsewhere, and the log file."""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Self

from flexcore.run_plan import Plan
from shell.run import Run

UNITS = {"time": "s/it", "data_time": "s/it data"}


class Console:
    """Rank 0's voice; other ranks get one that is silent but for errors."""

    def __init__(self, plan: Plan, rank: int, log_file: pathlib.Path | None) -> None:
        self.plan, self.rank = plan, rank
        self.logger = logging.getLogger(f"flexcore.rank{rank}")
        self.logger.propagate = False
        self.logger.setLevel(plan.logging.level if rank == 0 else "ERROR")
        self._log_file = log_file
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        self._handlers = self._make_handlers()
        for handler in self._handlers:
            self.logger.addHandler(handler)
        return self

    def _make_handlers(self) -> list[logging.Handler]:
        handlers: list[logging.Handler] = []
        if self.rank == 0 and sys.stderr.isatty() and find_spec("rich") is not None:
            handlers.append(self._rich_handler())
        else:
            plain = logging.StreamHandler()
            plain.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
            handlers.append(plain)
        if self._log_file is not None:
            file = LogFile(self._log_file)
            file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            handlers.append(file)
        return handlers

    def _rich_handler(self) -> logging.Handler:
        from rich.console import Console as RichConsole
        from rich.logging import RichHandler
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = RichConsole(stderr=True)
        if self.plan.timeline is not None and self.plan.timeline.max_iters:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=console, transient=True)
            self._progress.start()
            self._task = self._progress.add_task("training", total=self.plan.timeline.max_iters)
        return RichHandler(console=console, show_path=False, show_level=False, markup=False)

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        for handler in self._handlers:
            self.logger.removeHandler(handler)
            handler.close()

    def train_line(self, run: Run, done: int, values: Mapping[str, float]) -> None:
        clock = self.plan.timeline
        counts = self.plan.logging.by_epoch and clock is not None and not clock.opaque
        epoch = f"epoch {run.epoch + 1}/{run.max_epochs}  " if counts else ""
        if self._progress is not None:
            self._progress.update(
                self._task, completed=done, description=f"{epoch}loss {values.get('loss', float('nan')):.4f}"
            )
        if not self.logger.isEnabledFor(logging.INFO):
            return
        digits = self.plan.logging.digits
        shown = "  ".join(_value(name, value, digits) for name, value in values.items() if name != "eta")
        eta = f"  eta {_clock(values['eta'])}" if "eta" in values else ""
        self.logger.info("%siter %d/%s  %s%s", epoch, done, run.max_iters or "?", shown, eta)

    def eval_line(self, run: Run, mode: str, metrics: Mapping[str, float]) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=run.completed)
        digits, clock, after = self.plan.logging.digits, self.plan.timeline, ""
        shown = "  ".join(f"{name} {value:.{digits}f}" for name, value in metrics.items())
        if mode == "val" and clock is not None:
            after = (
                f" after epoch {run.epoch}" if self.plan.logging.by_epoch else f" after iter {run.completed}"
            )
        self.logger.info("%s%s  %s", "validation" if mode == "val" else mode, after, shown)


class LogFile(logging.FileHandler):
    """A log file that may meet a full disk: said once, and its lines wait in the buffer as long as that holds them."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path, encoding="utf-8")
        self._complained = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._complained:
            self._complained = True
            with contextlib.suppress(OSError):  # it may be a file on that disk itself
                print(f"flexcore: {self.baseFilename} cannot be written: {error.strerror}", file=sys.stderr)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def _value(name: str, value: float, digits: int) -> str:
    if name in UNITS:
        return f"{value:.{digits}f} {UNITS[name]}"
    return f"{name} {value:.{digits}{'e' if name.endswith('lr') else 'f'}}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
