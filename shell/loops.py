"""The training loop: epochs or iterations, hooks, validations and stops exactly where the plan puts them.

    before_train
      [validation that was due where a resume starts]
      before_train_epoch
        before_train_iter   micro-batches: forward, backward, and a step as a window closes   after_train_iter
        [iteration loop: validation]
      after_train_epoch
      [epoch loop: validation]
    after_train
"""

from time import perf_counter
from typing import Any

from flexcore.timeline import next_validation, validates_after, window_at
from shell.data import batch_size, to_device
from shell.evaluating import evaluate
from shell.hooks.checkpoint import CheckpointHook
from shell.run import Run
from shell.stepping import stepper
from shell.stopping import StopAgreement, StopSignals

FOREVER = float("inf")


class Stopper:
    """Whether to end early: signals, wishes of hooks and wall time, agreed between ranks."""

    def __init__(self, run: Run, signals: StopSignals, deadline: float | None) -> None:
        self.run, self.signals = run, signals
        self.agreement = StopAgreement(run.group, signals)
        self.alone = run.world_size == 1
        self.deadline = FOREVER if deadline is None else deadline
        self.reason: str | None = None

    def asked(self, now: float) -> str | None:
        """The reason all ranks stop for, from this step on; cheap where nothing was asked."""
        if now >= self.deadline and self.run.wish is None:
            self.run.wish = "time_limit"
        if self.alone:
            if self.signals.reason is not None or self.run.wish is not None:
                self.reason = self.agreement.agreed(self.run.completed, 0.0, self.run.wish)
        elif self.run.completed >= self.agreement.next_check:
            done = max(1, self.run.completed - self.run.started_at_iter)
            self.reason = self.agreement.agreed(self.run.completed, self.run.step_seconds / done, self.run.wish)
        return self.reason


def train(run: Run, stopper: Stopper) -> str:
    """Run to the end, or to an orderly stop; the reason it ended."""
    clock = run.plan.timeline
    assert clock is not None and clock.max_iters is not None
    total = clock.max_iters
    run.stages.call("before_train")
    if run.started_at_iter == run.completed > 0 and not run.validated:
        validate_if_due(run)
    loop = Iterations(run, stopper)
    reason = None
    while run.completed < total and reason is None:
        end = total if not clock.by_epoch else (run.completed // _length(run) + 1) * _length(run)
        run.stages.call("before_train_epoch")
        reason = loop.run_until(min(end, total))
        if run.completed == min(end, total):
            run.stages.call("after_train_epoch")
            if clock.by_epoch:
                run.epoch += 1
                if reason is None:
                    validate_if_due(run)
                    reason = loop.stopper.asked(perf_counter()) if run.completed < total else None
    if reason is not None and run.completed < total:
        _save_stopped(run)
    run.stages.call("after_train")
    return reason if reason is not None and run.completed < total else "done"


def _length(run: Run) -> int:
    assert run.plan.timeline is not None and run.plan.timeline.epoch_length is not None
    return run.plan.timeline.epoch_length


def _save_stopped(run: Run) -> None:
    for hook in run.stages.hooks:
        if isinstance(hook, CheckpointHook):
            hook.save_stopped(run)


def validate_if_due(run: Run) -> None:
    """The validation the plan puts after what is completed, if it does."""
    clock = run.plan.timeline
    assert clock is not None
    units = run.epoch if clock.by_epoch else run.completed
    at_boundary = not clock.by_epoch or run.completed == clock.to_iteration(units)
    if at_boundary and validates_after(clock, units) and run.plan.validation is not None:
        evaluate(run, run.plan.validation, "val")
        run.validated = True


class Iterations:
    """The inner loop with everything looked up once."""

    def __init__(self, run: Run, stopper: Stopper) -> None:
        self.run, self.stopper = run, stopper
        self.step = stepper(run.called, run.contract, run.optim_wrapper)
        self.keeps_outputs = run.plan.logging.interval is not None

    def run_until(self, end: int) -> str | None:
        """Iterate to `end` completed, or to the window's end at which a stop is agreed; its reason."""
        run, stages = self.run, self.run.stages
        clock, batching, wrapper = run.plan.timeline, run.plan.batching, run.optim_wrapper
        assert clock is not None and batching is not None
        per, group, record = batching.per_iteration, wrapper.optimizer.param_groups[0], run.recorder.step
        before, every, full = (stages.every.get("before_train_iter", ()), stages.every.get("after_train_iter", ()),
                               stages.full.get("after_train_iter", ()))  # fmt: skip
        moves, feed, recent, asked = run.device.type != "cpu", run.batches, run.recent, self.stopper.asked
        base = run.completed // clock.epoch_length * clock.epoch_length if clock.by_epoch and clock.epoch_length else 0
        windowed, window_end = clock.window > 1, run.completed
        check = next_validation(clock, run.completed) if not clock.by_epoch else None
        due, reason, batch, outputs = min(stages.next_due(), check or FOREVER), None, None, {}
        while run.completed < end:
            i = run.iter = run.completed
            if windowed and i >= window_end:
                window_start, wrapper.divisor = window_at(clock, i)
                window_end = window_start + wrapper.divisor
            samples, started = 0, perf_counter()
            waited = 0.0
            for a in range(per):
                asking = perf_counter()
                batch = next(feed)
                waited += perf_counter() - asking
                if moves:
                    batch = to_device(batch, run.device)
                if a == 0:
                    for method in before:
                        method(run, batch_idx=i - base, data_batch=batch)
                if windowed:
                    wrapper.closing = i == window_end - 1
                elif per > 1:
                    wrapper.divisor, wrapper.closing = per, a == per - 1
                outputs = self.step(batch)
                samples += batch_size(batch)
                recent.append(_detached(outputs))
            run.completed = done = i + 1
            record(i, group["lr"], samples)
            now = perf_counter()
            run.data_seconds += waited
            run.step_seconds += now - started
            run.validated = False
            wanted = run.wanted_checkpoint is not None
            for method in full if done >= due or wanted else every:
                method(run, batch_idx=i - base, data_batch=batch, outputs=outputs)
            if done >= due or wanted:
                reason = reason or asked(now)
                closing = not windowed or done == window_end
                if check == done and not (reason and closing):
                    run.iter = done
                    validate_if_due(run)
                check = next_validation(clock, done) if not clock.by_epoch else None
                due = min(stages.next_due(), check or FOREVER)
            reason = reason or asked(now)
            if reason and (not windowed or done == window_end):
                break
        run.iter = run.completed
        return reason


def _detached(outputs: Any) -> dict[str, Any]:
    return {name: value.detach() if hasattr(value, "detach") else value for name, value in outputs.items()}
