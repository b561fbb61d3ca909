"""Saves at the planned points, keeps the best, and retires what the plan no longer keeps."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, sleep
from typing import Any, Final, Literal

from flexcore.retrying import AT_END, retried_name
from flexcore.run_plan import Resume
from flexcore.saving import best_name, inferred_rule, is_better, timed_name
from flexcore.timeline import closes, due_after_epoch, next_save
from shell.run import Run
from shell.saving import Order
from shell.writing import CheckpointWriter

STOPPED = "stopped_iter_{}"
BY_TIME, AGAIN = "timed_iter_{}", "retried_iter_{}"
"""What Run.wanted_checkpoint is while a checkpoint is due by wall time, or again; its name tells when it came about."""

PATIENCE: Final = 1.0
"""Seconds between two signs of life while the run waits to try again."""


URGENT: Final = ("preempted", "interrupted")
"""Reasons to stop that leave no time to wait for a disk."""


class CheckpointHook:
    """State: the regular and the timed names standing, the best score and name of each metric, leftovers of a stop."""

    def __init__(self, writer: CheckpointWriter) -> None:
        self.writer = writer
        self.due: float = float("inf")
        self.standing: list[str] = []
        self.timed: list[str] = []
        self.best: dict[str, tuple[float, str | None]] = {}  # None: its checkpoint is not of this store
        self.stopped: list[str] = []
        self.last: tuple[str, int] | None = None
        self._next: tuple[int, int] | None = None
        self._found: Mapping[str, float] = {}

    def start(self, run: Run) -> None:
        self._plan_next(run, run.iter)
        begun = run.plan.start
        if isinstance(begun, Resume) and pathlib.Path(begun.path).parent == pathlib.Path(
            run.plan.names.checkpoint_dir
        ):
            self.last = pathlib.Path(begun.path).name, run.completed

    def _plan_next(self, run: Run, after: int) -> None:
        clock, saving = run.plan.timeline, run.plan.saving
        assert clock is not None and saving is not None
        self._next = next_save(clock, saving.points, after)
        self.due = float("inf") if self._next is None else self._next[1]

    def after_train_iter(self, run: Run, **_: Any) -> None:
        done = run.iter + 1
        clock = run.plan.timeline
        assert clock is not None
        ends_epoch = clock.by_epoch and clock.epoch_length and done % clock.epoch_length == 0
        if done == self.due and (clock.opaque or not ends_epoch):
            self._save_due(run, done)
        self.save_wanted(run, done)

    def save_wanted(self, run: Run, done: int) -> None:
        """The checkpoint a hook asked for, as soon as an optimizer update closes its window."""
        clock = run.plan.timeline
        assert clock is not None
        if run.wanted_checkpoint is None or not closes(clock, done - 1):
            return
        self.writer.settled(run)
        if run.wanted_checkpoint == AGAIN:
            if done not in (self.due, run.saved_at):  # the plan's own save is as good
                self._save_again(run, done)
        elif run.wanted_checkpoint != BY_TIME:
            self.save(run, run.wanted_checkpoint, done, undo=self._as_now(), planned=False)
        elif done not in (self.due, run.saved_at):
            self._save_timed(run, done)
        run.wanted_checkpoint = None

    def _save_timed(self, run: Run, done: int) -> None:
        assert run.plan.saving is not None
        undo = self._as_now()
        name, keep = timed_name(done), run.plan.saving.max_keep
        standing = [*self.timed, name]
        retired = standing[:-keep] if keep > 0 else []
        self.timed, self.last = standing[len(retired) :], (name, done)
        self.save(run, name, done, undo=undo, retire=retired, planned=False, waited=run.waited)

    def _save_again(self, run: Run, done: int) -> None:
        """In place of one that failed: until the next at a planned point stands, or for good where all are kept."""
        assert run.plan.saving is not None
        undo, name, leftovers = self._as_now(), retried_name(done), list[str]()
        if run.plan.saving.max_keep < 0:
            self.standing = [*self.standing, name]
        else:
            leftovers, self.stopped = self.stopped, [name]
        self.last = name, done
        waited = perf_counter() - run.attempts.failed_at
        self.save(run, name, done, undo=undo, retire=leftovers, planned=False, waited=waited,
                  failures=run.attempts.failures)  # fmt: skip

    def _insist(self, run: Run) -> None:
        """Where a run ends by itself, what failed is tried a few times more: no update follows that could wait."""
        for _ in range(AT_END):
            self.writer.settled(run)
            failed = run.attempts.last
            if failed is None or run.attempts.retry_at == float("inf"):
                return
            while (left := run.attempts.retry_at - perf_counter()) > 0:
                run.beats += 1
                sleep(min(left, PATIENCE))
            if failed.regular and failed.done == run.completed:
                self._save_as(run, failed.name, failed.done)
            else:
                self._save_again(run, run.completed)
        self.writer.settled(run)

    def after_train_epoch(self, run: Run, **_: Any) -> None:
        saving, clock = run.plan.saving, run.plan.timeline
        assert clock is not None and saving is not None
        if clock.opaque and due_after_epoch(saving.points, run.epochs_done):
            self._save_as(run, saving.name(run.epochs_done), run.completed)
        elif not clock.opaque and run.completed == self.due:
            self._save_due(run, run.completed)

    def save_last(self, run: Run) -> None:
        """Where a loop of the user's own ends: the last checkpoint, if this very iteration was not saved already."""
        saving = run.plan.saving
        if saving is not None and saving.points.save_last and run.saved_at != run.completed:
            self._save_as(
                run, saving.name(run.epoch if saving.points.by_epoch else run.completed), run.completed
            )

    def _save_due(self, run: Run, done: int) -> None:
        assert self._next is not None and run.plan.saving is not None
        name = run.plan.saving.name(self._next[0])
        self._plan_next(run, done)
        self._save_as(run, name, done)

    def _save_as(self, run: Run, name: str, done: int) -> None:
        assert run.plan.saving is not None
        self.writer.settled(run)
        undo = self._as_now()
        standing = [*(kept for kept in self.standing if kept != name), name]
        keep = run.plan.saving.max_keep
        retired = standing[:-keep] if keep > 0 else []
        leftovers, self.stopped = self.stopped, []
        self.standing, self.last = standing[len(retired) :], (name, done)
        self.save(run, name, done, undo=undo, retire=[*retired, *leftovers])

    def _as_now(self) -> Callable[[], None]:
        """What puts this state back, should the checkpoint that is about to change it not come to stand."""
        before = (self.standing, self.timed, dict(self.best), self.stopped, self.last)

        def undo() -> None:
            self.standing, self.timed, self.best, self.stopped, self.last = before

        return undo

    def save(
        self, run: Run, name: str, done: int, *, undo: Callable[[], None], validated: bool = False,
        retire: Sequence[str] = (), best: bool = False, planned: bool = True, waited: float | None = None,
        failures: int = 0,
    ) -> None:  # fmt: skip
        """Once the one before is settled and this state changed; undo: what changes it back."""
        clock, saving = run.plan.timeline, run.plan.saving
        assert clock is not None
        assert saving is not None
        if run.spoiled is not None and run.spoiled():
            undo()
            return
        resumable = not saving.weights_only and (done == 0 or closes(clock, done - 1))
        order = Order(
            name=name, done=done, validated=validated, resumable=resumable, retire=tuple(retire), best=best,
            planned=planned, waited=waited, failures=failures,
        )  # fmt: skip
        self.writer.save(run, order, undo)

    def end(self, run: Run, reason: str | None, *, finished: bool) -> None:
        """What is saved, settled and published as training ends; nothing after what is not finite."""
        self.writer.settled(run)
        if reason == "nonfinite":
            return
        if finished or (reason == "early_stopping" and run.saved_at == run.completed):
            self._insist(run)
            self.settle(run)
        else:
            self.save_stopped(run)
            self.writer.settled(run)
            if reason not in URGENT:
                self._insist(run)
        if finished or reason == "early_stopping":
            self.publish(run)

    def publish(self, run: Run) -> None:
        """The best checkpoint of the first metric watched, else the last one, as one file to hand on."""
        saving = run.plan.saving
        if saving is None or not saving.published:
            return
        best = [
            self.best[entry.key or next(iter(self.best))][1]
            for entry in saving.best
            if (entry.key or next(iter(self.best), None)) in self.best
        ]
        own = [name for name in best if name is not None]
        name = next(iter([*own, *self.stopped, *reversed(self.standing)]), None)
        if name is None:
            run.logger.warning("published_keys: no checkpoint stands to be published")
        else:
            self.writer.publish(run, name, saving.published)

    def save_stopped(self, run: Run) -> None:
        """The state at an orderly stop, unless this very iteration was saved already."""
        if run.saved_at == run.completed:
            return
        undo, name = self._as_now(), STOPPED.format(run.completed)
        self.stopped = [name]
        self.save(run, name, run.completed, undo=undo, validated=run.validated, planned=False)

    def settle(self, run: Run) -> None:
        """At the run's end: the last checkpoint, if it stands where the run ended, knows it was validated."""
        if run.validated and self.last is not None and self.last[1] == run.completed:
            self.writer.mark_validated(run, self.last[0])

    def after_val_epoch(self, run: Run, metrics: Mapping[str, float] | None = None, **_: Any) -> None:
        """Only notes what was found: other hooks and the random streams are not yet what they go on as."""
        if run.plan.mode == "train":
            self._found = metrics or {}

    def save_best(self, run: Run) -> None:
        """With an evaluation over for every hook, the checkpoints it was the best for."""
        saving, metrics = run.plan.saving, self._found
        self._found = {}
        if saving is None or not saving.best or not metrics:
            return
        for entry in saving.best:
            key = entry.key or next(iter(metrics))
            rule = entry.rule or inferred_rule(key, saving.greater_keys, saving.less_keys)
            if key not in metrics or rule is None:
                run.logger.warning(
                    "save_best: %s; metrics: %s",
                    "no rule for " + key if key in metrics else f"no metric {key}",
                    ", ".join(metrics),
                )
                continue
            self._consider(run, key, rule, metrics[key])

    def _consider(self, run: Run, key: str, rule: Literal["greater", "less"], score: float) -> None:
        clock = run.plan.timeline
        assert clock is not None
        if self.writer.saves_best:  # what it is compared with must stand
            self.writer.settled(run)
        if not is_better(rule, score, self.best.get(key, (None, None))[0]):
            return
        self.writer.settled(run)
        name_before = self.best.get(key, (None, None))[1]
        units = run.epoch if clock.by_epoch else run.completed
        name = best_name(key, clock.by_epoch, units)
        undo = self._as_now()
        self.best[key] = (score, name)
        retire = [] if name_before in (None, name) else [name_before]
        self.save(run, name, run.completed, undo=undo, validated=True, retire=retire, best=True)

    def state_dict(self) -> dict[str, Any]:
        return {
            "standing": self.standing,
            "timed": self.timed,
            "stopped": self.stopped,
            "best": {k: list(v) for k, v in self.best.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.standing = list(state["standing"])
        self.timed = list(state.get("timed", ()))
        self.stopped = list(state["stopped"])
        self.best = {key: (score, name) for key, (score, name) in state["best"].items()}
