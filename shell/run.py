"""Run: the only mutable state of a run, and the narrow surface hooks see."""

import logging
import pathlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from flexcore.run_plan import Plan
from shell.attempts import Attempts
from shell.contracts import Contract
from shell.events import Recorder
from shell.optim_wrappers import AnyOptim
from shell.processes import Group
from shell.stopping import outweighs
from shell.strategies.base import Strategy

Call = Callable[..., Any]


class Run:
    """What hooks get as `run`.

    Attributes:
        epoch, iter: 0-based while an epoch or iteration runs, as in mmengine; completed counts between them.
        completed: iterations done. metrics: the last evaluation's values. work_dir, log_dir: where this run writes.
        data_rank: this rank's place among data_ranks that see different samples; ranks that compute one copy of the
            model together have one. leads: what they all have, this one tells.
        model: the module itself, unwrapped. logger: a standard logger; only rank 0 prints.
        saved_clock: when the last checkpoint stood, by perf_counter; waited: its age when the next was due by wall time.
        attempts: what became of checkpoints that were due. deadline: from when on, by perf_counter, a clock of this rank
            asks for something. save_failed: what was to be published was not.
        beats: counted up by what takes long between iterations; the hang watch takes that for progress.
        epochs_done: epochs that a loop of the user's own has ended, counted before after_train_epoch is called.
        loop: that loop. loop_state, load_loop_state: what goes into a checkpoint for it.
        spoiled: whether what would be saved now must not be; asked before each save, None: never.
    """

    def __init__(
        self, plan: Plan, group: Group, device: torch.device, logger: logging.Logger, recorder: Recorder
    ) -> None:
        self.plan, self.group, self.device = plan, group, device
        self.logger, self.recorder = logger, recorder
        self.rank, self.world_size = group.rank.rank, group.rank.world_size
        self.data_rank, self.leads = plan.data_rank(self.rank), plan.leads(self.rank)
        self.data_ranks = sum(plan.leads(rank) for rank in range(self.world_size))
        self.work_dir = pathlib.Path(plan.names.work_dir)
        self.log_dir = None if plan.names.log_dir is None else pathlib.Path(plan.names.log_dir)
        self.epoch = self.iter = self.epochs_done = 0
        self.max_epochs = plan.timeline.max_epochs if plan.timeline is not None else 0
        self.max_iters = (plan.timeline.max_iters or 0) if plan.timeline is not None else 0
        self.metrics: dict[str, float] = {}
        self.loop: Any = None
        self.wish: str | None = None
        self.wish_alike = False
        self.spoiled: Callable[[], bool] | None = None
        self.wanted_checkpoint: str | None = None
        self.saved_clock = self.waited = 0.0
        self.validated = False
        self.replay: Any = None
        self.replay_from: Any = None
        self.recent: deque[Mapping[str, Any]] = deque(maxlen=plan.logging.window)
        self.custom: dict[str, deque[float]] = {}
        self.followed: dict[str, Callable[[Any], None]] = {}
        self.data_seconds = self.step_seconds = 0.0
        self.save_failed = False
        self.attempts = Attempts(plan.saving)
        self.deadline = float("inf")
        self.started_at_iter = self.completed = self.beats = 0
        self.saved_at: int | None = None
        self.plan_digest = plan.plan_digest
        self.checkpoints: list[str] = []

    model: nn.Module
    called: nn.Module
    contract: Contract
    strategy: Strategy
    optim_wrapper: AnyOptim
    stages: "Stages"
    batches: Any
    eval_feeds: dict[str, list[tuple[Any, Any]]]
    eval_loops: dict[str, Any]

    def loop_state(self) -> Any:
        """What a loop of the user's own keeps; None: the loop is built in, and the counters say all."""
        return None

    def place(self) -> Any:
        """Where this rank stands in the data, as JSON, if the counters do not say."""
        return None

    def load_loop_state(self, state: Any, place: Any) -> None:
        raise AssertionError(f"no built-in loop has a state: {state}, {place}")

    def log(self, name: str, value: float | torch.Tensor) -> None:
        """Record a value; the next log line shows its mean over the log window."""
        kept = value.detach() if isinstance(value, torch.Tensor) else value
        self.custom.setdefault(name, deque(maxlen=self.plan.logging.window)).append(kept)  # type: ignore[arg-type]
        if name in self.followed:
            self.followed[name](kept)

    def request_stop(self, reason: str, *, alike: bool = False) -> None:
        """Ask for an orderly end: at the next agreed step the window is finished, saved and the run stops.

        Of several wishes the most severe counts. alike: every rank asks at this very point, so they agree at once.
        """
        self.wish = reason if outweighs(reason, self.wish) else self.wish
        self.wish_alike = self.wish_alike or alike

    def request_checkpoint(self, name: str) -> None:
        """Ask for a checkpoint at the next optimizer update; every rank must ask."""
        self.wanted_checkpoint = name


class Stages:
    """The calls of each stage in the plan's order, compiled once; a stage nobody listens to is an empty tuple.

    `every`: calls needed at each iteration. `full`: those and the built-in ones that wait for their due point; of these,
    what is needed at each iteration all the same is called "each_" + stage.
    """

    def __init__(self, run: Run, hooks: list[tuple[Any, tuple[str, ...], bool]]) -> None:
        self._run = run
        self.hooks = [hook for hook, _, _ in hooks]
        self.full: dict[str, tuple[Call, ...]] = {}
        self.every: dict[str, tuple[Call, ...]] = {}
        for hook, stages, timed in hooks:
            for stage in stages:
                method = getattr(hook, stage, None)
                if method is not None:
                    self.full[stage] = (*self.full.get(stage, ()), method)
                each = getattr(hook, f"each_{stage}", None) if timed else method
                if each is not None:
                    self.every[stage] = (*self.every.get(stage, ()), each)
        self.timed = [hook for hook, _, timed in hooks if timed]
        self.contributors = [hook.log_values for hook in self.hooks if hasattr(hook, "log_values")]

    def call(self, stage: str, **arguments: Any) -> None:
        for method in self.full.get(stage, ()):
            method(self._run, **arguments)

    def next_due(self) -> float:
        """The nearest iteration count any built-in hook waits for."""
        return min((hook.due for hook in self.timed), default=float("inf"))
