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

import torch

from flexcore.timeline import closes, next_validation, validates_after, window_at
from shell.data import batch_size, to_device
from shell.evaluating import evaluate
from shell.events import FLUSH_AT
from shell.hooks.checkpoint import AGAIN, BY_TIME, CheckpointHook
from shell.run import Run
from shell.stepping import stepper
from shell.stopping import StopAgreement, StopSignals

FOREVER = float("inf")
WANTED = {1: BY_TIME, 2: AGAIN}
"""What ranks agree on where a checkpoint is due by a clock."""


class Stopper:
    """Whether to end early or to save by wall time: signals, wishes of hooks and clocks, agreed between ranks.

    run.deadline: from when on `asked` has something to do by this rank's clock.
    """

    def __init__(self, run: Run, signals: StopSignals, deadline: float | None) -> None:
        self.run, self.signals = run, signals
        self.agreement = StopAgreement(run.group, signals)
        self.limit = FOREVER if deadline is None else deadline
        saving = run.plan.saving
        self.every = FOREVER if saving is None or saving.every_seconds is None else saving.every_seconds
        self.by_clock = saving is not None and (self.every < FOREVER or saving.retry_seconds is not None)
        run.saved_clock = perf_counter()
        run.deadline = min(self.limit, run.saved_clock + self.every)
        # A single process looks at its own flags at each step; ranks meet at the agreed steps only.
        self.next_check = FOREVER if run.world_size == 1 else 0

    def asked(self, now: float) -> str | None:
        """The reason all ranks stop for, from this step on."""
        if now >= self.limit and self.run.wish is None:
            self.run.wish = "time_limit"
        due = self._due(now) if self.by_clock else None
        done = max(1, self.run.completed - self.run.started_at_iter)
        reason = self.agreement.agreed(
            self.run.completed,
            self.run.step_seconds / done,
            self.run.wish,
            force=self.run.wish_alike,
            due=due,
        )
        if self.agreement.save and self.run.wanted_checkpoint is None:
            self.run.wanted_checkpoint = WANTED[self.agreement.save]
            self.run.waited = now - self.run.saved_clock
            self.run.deadline = min(self.limit, now + self.every)
        self.next_check = FOREVER if self.run.world_size == 1 else self.agreement.next_check
        return reason

    def _due(self, now: float) -> int:
        """Which of WANTED is due by rank 0's clock, or 0; other ranks only follow."""
        again = self.run.attempts.retry_at
        due = again if again < FOREVER else self.run.saved_clock + self.every
        if now < due:
            self.run.deadline = min(self.limit, due)
            return 0
        return 0 if self.run.rank else 2 if again < FOREVER else 1


def train(run: Run, stopper: Stopper) -> str:
    """Run to the end, or to an orderly stop; the reason it ended."""
    clock = run.plan.timeline
    assert clock is not None and clock.max_iters is not None
    total = clock.max_iters
    run.called.train()  # a pretrained model may come in evaluation mode; hooks may still freeze parts of it
    run.stages.call("before_train")
    if run.started_at_iter == run.completed > 0 and not run.validated:
        validate_if_due(run)
    loop = Iterations(run, stopper)
    reason = (
        stopper.asked(perf_counter()) if 0 < run.completed < total else None
    )  # it may have ended so before
    while run.completed < total and (reason is None or not closes(clock, run.completed - 1)):
        end = total if not clock.by_epoch else (run.completed // _length(run) + 1) * _length(run)
        run.stages.call("before_train_epoch")
        reason = loop.run_until(min(end, total), reason)
        if run.completed == min(end, total):
            run.stages.call("after_train_epoch")
            if clock.by_epoch:
                run.epoch += 1
                if reason is None or (run.completed < total and not closes(clock, run.completed - 1)):
                    validate_if_due(run)
                if reason is None and run.completed < total:
                    reason = stopper.asked(perf_counter())
    finished = run.completed == total and (run.validated or not validation_due(run))
    for hook in run.stages.hooks:
        if isinstance(hook, CheckpointHook):
            hook.end(run, reason, finished=finished)
    run.stages.call("after_train")
    return "done" if finished or reason is None else reason


def save_wanted(run: Run) -> None:
    """The checkpoint a hook asked for in this very iteration, if its window closes here."""
    for hook in run.stages.hooks:
        if isinstance(hook, CheckpointHook):
            hook.save_wanted(run, run.completed)


def _length(run: Run) -> int:
    assert run.plan.timeline is not None and run.plan.timeline.epoch_length is not None
    return run.plan.timeline.epoch_length


def validate_if_due(run: Run) -> None:
    """The validation the plan puts after what is completed, if it does."""
    if validation_due(run):
        assert run.plan.validation is not None
        evaluate(run, run.plan.validation, "val")
        run.validated = True


def validation_due(run: Run) -> bool:
    """Whether the plan has a validation after exactly what is completed."""
    clock = run.plan.timeline
    assert clock is not None
    units = run.epoch if clock.by_epoch else run.completed
    at_boundary = not clock.by_epoch or run.completed == clock.to_iteration(units)
    return at_boundary and validates_after(clock, units) and run.plan.validation is not None


class Iterations:
    """The inner loop with everything looked up once."""

    def __init__(self, run: Run, stopper: Stopper) -> None:
        self.run, self.stopper = run, stopper
        clock, batching = run.plan.timeline, run.plan.batching
        assert clock is not None and batching is not None
        accumulates = clock.window > 1 or batching.per_iteration > 1
        self.step = stepper(run.called, run.contract, run.optim_wrapper, accumulates=accumulates)

    def run_until(self, end: int, reason: str | None = None) -> str | None:
        """Iterate to `end` completed, or to the window's end once a stop is agreed; its reason.

        An iteration without events costs one comparison besides the step, the LR and the record.
        """
        run, stages, stopper, signals = self.run, self.run.stages, self.stopper, self.stopper.signals
        clock, batching, wrapper = run.plan.timeline, run.plan.batching, run.optim_wrapper
        assert clock is not None and batching is not None
        before, every = stages.every.get("before_train_iter", ()), stages.every.get("after_train_iter", ())
        full, recent = stages.full.get("after_train_iter", ()), run.recent.append
        per, feed, step, moves = batching.per_iteration, run.batches, self.step, run.device.type != "cpu"
        sizes = run.recorder.samples.append
        rates = [(run.recorder.rates(name), one.optimizer.param_groups[0]) for name, one in wrapper.each]
        base = (
            run.completed // clock.epoch_length * clock.epoch_length
            if clock.by_epoch and clock.epoch_length
            else 0
        )
        windowed, window_end = clock.window > 1, run.completed
        run.recorder.begin(run.completed)
        due, now = self._next_due(run.completed), perf_counter()
        while run.completed < end:
            i = run.iter = run.completed
            if windowed and i >= window_end:
                window_start, wrapper.divisor = window_at(clock, i)
                window_end = window_start + wrapper.divisor
            started = now
            batch = next(feed)
            fetched = perf_counter()
            if moves:
                batch = to_device(batch, run.device)
            for method in before:
                method(run, batch_idx=i - base, data_batch=batch)
            if per == 1:
                if windowed:
                    wrapper.closing = i == window_end - 1
                outputs, samples = step(batch), batch_size(batch)
            else:
                outputs, samples = self._several(batch, per)
            recent(outputs)
            for rate, group in rates:
                rate(group["lr"])
            sizes(samples)
            run.completed = done = i + 1
            run.validated = False
            now = perf_counter()
            run.data_seconds += fetched - started
            run.step_seconds += now - started
            if done < due and run.wanted_checkpoint is None:
                for method in every:
                    method(run, batch_idx=i - base, data_batch=batch, outputs=outputs)
                if run.wanted_checkpoint is not None:
                    save_wanted(run)
            else:
                for method in full:
                    method(run, batch_idx=i - base, data_batch=batch, outputs=outputs)
                due, now = (
                    self._after_event(done, reason, closing=not windowed or done == window_end),
                    perf_counter(),
                )
            if reason is None and (
                signals.reason is not None
                or run.wish is not None
                or done >= stopper.next_check
                or now >= run.deadline
            ):
                reason = stopper.asked(now)
            if reason is not None and (not windowed or done == window_end):
                break
        run.iter = run.completed
        return reason

    def _several(self, batch: Any, per: int) -> tuple[Any, int]:
        """One iteration of the global clock: `per` micro-batches make one optimizer step; mean outputs."""
        run, wrapper = self.run, self.run.optim_wrapper
        wrapper.divisor, total, samples = per, {}, 0
        for a in range(per):
            if a:
                batch = next(run.batches)
                batch = to_device(batch, run.device) if run.device.type != "cpu" else batch
            wrapper.closing = a == per - 1
            outputs = self.step(batch)
            samples += batch_size(batch)
            total = {
                name: total.get(name, 0) + value / per for name, value in outputs.items() if _is_number(value)
            }
        return total, samples

    def _next_due(self, done: int) -> float:
        """The next iteration count at which something happens: a hook's due point, a validation, a flush."""
        clock = self.run.plan.timeline
        assert clock is not None
        check = next_validation(clock, done) if not clock.by_epoch else None
        return min(self.run.stages.next_due(), FOREVER if check is None else check, done + FLUSH_AT)

    def _after_event(self, done: int, reason: str | None, *, closing: bool) -> float:
        """What follows the hooks of an eventful iteration; the next due point."""
        run, clock = self.run, self.run.plan.timeline
        assert clock is not None
        if not clock.by_epoch and not (reason is not None and closing):
            run.iter = done
            validate_if_due(run)
        run.recorder.flush()
        return self._next_due(done)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | torch.Tensor)
