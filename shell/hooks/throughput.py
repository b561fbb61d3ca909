"""Adds samples per second over all ranks, and MFU, to each log line; validations are not counted as time."""

from time import perf_counter

from flexcore.hooks import Throughput
from shell.run import Run


class ThroughputHook:
    """One exchange between ranks at each log line. No state: a resumed run measures itself."""

    def __init__(self, spec: Throughput) -> None:
        self.spec = spec
        self._samples, self._since, self._paused = 0, 0.0, 0.0

    def before_train(self, run: Run) -> None:
        self._samples, self._since = run.recorder.total_samples, perf_counter()

    def before_val(self, _run: Run) -> None:
        self._paused = perf_counter()

    def after_val(self, _run: Run) -> None:
        self._since += perf_counter() - self._paused

    def log_values(self, run: Run) -> dict[str, float]:
        """Since the last log line; asked on every rank once the device has been waited for."""
        now, total = perf_counter(), run.recorder.total_samples
        samples = sum(run.group.gather(total - self._samples if run.leads else 0))
        rate = samples / max(now - self._since, 1e-9)
        self._samples, self._since = total, now
        values = {"samples_per_second": rate}
        if self.spec.flops_per_sample is not None and self.spec.peak_flops is not None:
            values["mfu"] = rate * self.spec.flops_per_sample / (self.spec.peak_flops * run.world_size)
        return values
