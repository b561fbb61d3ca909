"""Training loops of the user's own: what one is built with, how it is run, and what the run still guarantees.

train_cfg=dict(type="pkg.module:MyLoop", max_epochs=3, ...) names a class; it is built as

    MyLoop(run, dataloader, max_epochs=3, ...)

and its run() is called once. `run` is what hooks get (shell.run.Run) with the verbs of LoopRun; `dataloader` is
shell.passes.Passes. A whole loop:

    def run(self):
        while self.runner.epoch < self.max_epochs:
            self.runner.begin_epoch()
            for batch in self.dataloader:
                self.runner.iteration(batch)
            self.runner.end_epoch()
            self.runner.validate()

The run calls before_run, before_train, after_train and after_run itself; iteration, begin_epoch, end_epoch and
validate call theirs; any other stage is the loop's to call, by run.stages.call(stage, ...). Within iteration the LR
and other scheduled values are as planned, hooks see the step, the step is on record, checkpoints fall due and are
saved. A stop that was asked for ends the loop as it next calls iteration, begin_epoch or validate, by an exception
that is no Exception. To be resumed the class defines state_dict and load_state_dict (JSON or tensors, rank 0's):
asked for within iteration, after the step, and given back after the constructor. The run itself keeps epoch, iter
and where the dataloader stands.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any

import torch

from flexcore.loops import OwnTrainLoop
from flexcore.problems import ConfigError
from flexcore.rules import problem
from flexcore.timeline import closes, window_at
from shell import building
from shell.data import batch_size
from shell.evaluating import evaluate
from shell.events import FLUSH_AT
from shell.hooks.checkpoint import CheckpointHook
from shell.loops import Stopper
from shell.passes import Passes
from shell.run import Run
from shell.stepping import stepper

Step = Callable[[Any], Mapping[str, Any]]


class _Stopped(BaseException):
    """Unwinds the loop at an agreed stop; a BaseException, so that a loop's own `except Exception` lets it through."""


class LoopRun(Run):
    """Run as a loop of the user's own drives it. `called` is the model as a training step calls it (wrapped by DDP)."""

    def attach(self, dataloader: Passes) -> None:
        """Build the loop; everything it is given is there."""
        spec, clock = self.plan.config.train_cfg, self.plan.timeline
        assert isinstance(spec, OwnTrainLoop) and clock is not None
        self._clock, self._dataloader, self._base = clock, dataloader, 0
        self._reason: str | None = None
        self._stopper: Stopper | None = None
        accumulates = clock.window > 1
        self._step: Step = stepper(self.called, self.contract, self.optim_wrapper, accumulates=accumulates)
        self.loop = building.build(spec.component, ("train_cfg",), self, dataloader)

    @property
    def stopping(self) -> bool:
        """Whether a stop is agreed, for a loop that wants to end by itself."""
        return self._reason is not None

    def iteration(self, batch: Any, step: Step | None = None) -> Mapping[str, Any]:
        """One iteration: before_train_iter, the step, its record, after_train_iter; what the step returned, detached.

        step: batch -> named values to log; it updates through run.optim_wrapper. None: train_step.
        """
        self._end_if_stopping()
        i = self.iter = self.completed
        if self._clock.window > 1:
            first, self.optim_wrapper.divisor = window_at(self._clock, i)
            self.optim_wrapper.closing = i == first + self.optim_wrapper.divisor - 1
        at, started = i - self._base, self._since
        self.stages.call("before_train_iter", batch_idx=at, data_batch=batch)
        fetched = perf_counter()
        outputs = _detached((self._step if step is None else step)(batch))
        self.recent.append(outputs)
        for name, one in self.optim_wrapper.each:
            self.recorder.rates(name)(one.optimizer.param_groups[0]["lr"])
        self.recorder.samples.append(batch_size(batch))
        self.completed, self.validated = i + 1, False
        now = perf_counter()
        self.data_seconds += fetched - started
        self.step_seconds += now - started
        self.stages.call("after_train_iter", batch_idx=at, data_batch=batch, outputs=outputs)
        if len(self.recorder.samples) >= FLUSH_AT:
            self.recorder.flush()
        self.iter, self._since = self.completed, perf_counter()
        self._ask()
        return outputs

    def train_step(self, batch: Any) -> Mapping[str, Any]:
        """The run's own step of one micro-batch: forward, backward, and an update where the window closes."""
        return self._step(batch)

    def begin_epoch(self) -> None:
        self._end_if_stopping()
        self.called.train()
        self._base = self.completed - self._dataloader.within
        self.stages.call("before_train_epoch")
        self._since = perf_counter()

    def end_epoch(self) -> None:
        self.epochs_done = self.epoch + 1
        self.stages.call("after_train_epoch")
        self.epoch = self.epochs_done
        self._ask()

    def validate(self) -> dict[str, float]:
        """The planned validation, now; its metrics, the same on every rank.

        Raises:
            ConfigError: the config has none.
        """
        self._end_if_stopping()
        if self.plan.validation is None:
            text = "is missing, and the loop asks for a validation."
            remedy = "Add val_dataloader, val_cfg and val_evaluator, or ask run.plan.validation first."
            raise ConfigError([problem("FK021", ("val_cfg",), text, remedy)])
        values = evaluate(self, self.plan.validation, "val")
        self.validated = True
        self._ask()
        self._since = perf_counter()
        return values

    def conduct(self, stopper: Stopper) -> str:
        """Run the loop to its end, or to an orderly stop; the reason it ended."""
        self._stopper, self._since, self.epochs_done = stopper, perf_counter(), self.epoch
        self.called.train()
        self.stages.call("before_train")
        self.recorder.begin(self.completed)
        if self.completed:
            self._ask(anyway=True)  # it may have ended so before
        with suppress(_Stopped):
            self.loop.run()
        if self.plan.smoke and self.plan.validation is not None and not self.validated:
            evaluate(self, self.plan.validation, "val")
        for hook in self.stages.hooks:
            if isinstance(hook, CheckpointHook):
                if self._reason is None:
                    hook.save_last(self)
                hook.end(self, self._reason, finished=self._reason is None)
        self.stages.call("after_train")
        return self._reason or "done"

    def _ask(self, *, anyway: bool = False) -> None:
        stopper, now = self._stopper, perf_counter()
        if self._reason is None and stopper is not None and (
            anyway or stopper.signals.reason is not None or self.wish is not None
            or self.completed >= stopper.next_check or now >= self.deadline
        ):  # fmt: skip
            self._reason = stopper.asked(now)

    def _end_if_stopping(self) -> None:
        closed = self.completed == 0 or closes(self._clock, self.completed - 1)
        limit = self._clock.max_iters if self.plan.smoke else None
        if closed and (self._reason is not None or (limit is not None and self.completed >= limit)):
            raise _Stopped

    def loop_state(self) -> Any:
        return self.loop.state_dict() if hasattr(self.loop, "state_dict") else {}

    def place(self) -> Any:
        return self._dataloader.state_dict()

    def load_loop_state(self, state: Any, place: Any) -> None:
        self._dataloader.load_state_dict(place)
        self.loop.load_state_dict(state)


def _detached(outputs: Any) -> dict[str, Any]:
    if not isinstance(outputs, Mapping):
        text = f"a step returned {type(outputs).__name__}, not a mapping of names to values."
        raise ConfigError([problem("FK011", ("train_cfg",), text, 'Return {"loss": loss}, for example.')])
    return {name: v.detach() if isinstance(v, torch.Tensor) else v for name, v in outputs.items()}
