"""Adds seconds per iteration, seconds waited for data and the time left, to each log line."""

from shell.run import Run


class IterTimerHook:
    def __init__(self) -> None:
        self._at: int | None = None
        self._data = self._step = 0.0

    def log_values(self, run: Run) -> dict[str, float]:
        """Means since the last log line; eta in seconds."""
        done = run.iter + 1
        start = self._at if self._at is not None else run.started_at_iter
        count = max(1, done - start)
        time = (run.step_seconds - self._step) / count
        values = {
            "time": time,
            "data_time": (run.data_seconds - self._data) / count,
        }
        if run.max_iters:  # a loop of the user's own need not say
            values["eta"] = time * (run.max_iters - done)
        self._at, self._step, self._data = done, run.step_seconds, run.data_seconds
        return values
