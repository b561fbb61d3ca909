"""Runs torch.profiler over the first iterations or epochs and leaves its traces in the log directory."""

import pathlib
from collections.abc import Callable
from typing import Any

from torch import profiler as torch_profiler

from flexcore.hooks import LogTrace, Profiler, TensorboardTrace
from shell.run import Run


class ProfilerHook:
    """No state: a resumed run profiles its own first iterations or epochs."""

    def __init__(self, spec: Profiler) -> None:
        self.spec = spec
        self.profiler: Any = None
        self.seen = 0

    def before_train(self, run: Run) -> None:
        spec, activity = self.spec, torch_profiler.ProfilerActivity
        activities = [activity.CPU] * spec.activity_with_cpu + [activity.CUDA] * spec.activity_with_cuda
        when = spec.schedule
        self.profiler = torch_profiler.profile(
            activities=activities, on_trace_ready=self._handler(run), record_shapes=spec.record_shapes,
            profile_memory=spec.profile_memory, with_stack=spec.with_stack, with_flops=spec.with_flops,
            schedule=None if when is None else torch_profiler.schedule(
                wait=when.wait, warmup=when.warmup, active=when.active, repeat=when.repeat, skip_first=when.skip_first),
        )  # fmt: skip
        self.profiler.start()

    def _handler(self, run: Run) -> Callable[[Any], None] | None:
        match self.spec.on_trace_ready:
            case LogTrace(sort_by=sort_by, row_limit=row_limit):
                return lambda made: run.logger.info(
                    "%s", made.key_averages().table(sort_by=sort_by, row_limit=row_limit)
                )
            case TensorboardTrace(dir_name=dir_name, worker_name=worker_name):
                worker = None if worker_name is None else f"{worker_name}_{run.rank}"
                handler: Callable[[Any], None] = torch_profiler.tensorboard_trace_handler(
                    str(_log_dir(run) / dir_name), worker
                )
                return handler
            case None:
                return None

    def after_train_iter(self, run: Run, **_: Any) -> None:
        if self.profiler is None:
            return
        self.profiler.step()
        if not self.spec.by_epoch:
            self._count(run)

    def after_train_epoch(self, run: Run, **_: Any) -> None:
        if self.profiler is not None and self.spec.by_epoch:
            self._count(run)

    def _count(self, run: Run) -> None:
        self.seen += 1
        if self.seen == self.spec.profile_times:
            self._end(run)

    def after_train(self, run: Run, **_: Any) -> None:
        if self.profiler is not None:
            self._end(run)

    def _end(self, run: Run) -> None:
        ended, self.profiler = self.profiler, None
        ended.stop()
        if self.spec.json_trace_path is not None:
            path = _log_dir(run) / self.spec.json_trace_path
            path = path if run.rank == 0 else path.with_name(f"{path.stem}.rank{run.rank}{path.suffix}")
            path.parent.mkdir(parents=True, exist_ok=True)
            ended.export_chrome_trace(str(path))


def _log_dir(run: Run) -> pathlib.Path:
    return run.log_dir or run.work_dir
