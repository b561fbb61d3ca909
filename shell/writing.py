"""Checkpoints on their way to the disk, before training goes on or behind it; at most one is on its way.

Of a checkpoint that goes in the background a copy is taken at once, in host memory; ranks send their pieces of it to
rank 0 through a process group of their own, and what became of it is agreed when the next is due, or at the end.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import perf_counter
from typing import Any

import torch
from attrs import evolve

from shell.attempts import Attempt
from shell.checkpoints import DamagedCheckpoint, RemoveFailed, SaveFailed, Store, pieces
from shell.locking import WorkDirLost
from shell.pieces import AnyTensor, Channel, Files, Piece
from shell.run import Run
from shell.saving import Order, about, contents, hook_states, metric_states
from shell.settling import raise_together
from shell.state_tensors import split

PATIENCE = 60.0
"""Seconds that a run which failed waits for its last checkpoint; ranks that are gone send no more pieces."""

Undo = Callable[[], None]


class _OnItsWay:
    """One checkpoint: whether it stands is known once `thread`, if there is one, has ended."""

    def __init__(self, run: Run, order: Order, undo: Undo) -> None:
        self.order, self._undo = order, undo
        self._before = run.saved_at, run.saved_clock
        self.thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        self.path: str | None = None

    def undo(self, run: Run) -> None:
        """As if it had never been due."""
        self._undo()
        run.saved_at, run.saved_clock = self._before


class CheckpointWriter:
    """Writes from rank 0 what every rank contributes. A failed save is logged and training goes on.

    store: rank 0's. background: whether training goes on meanwhile.
    """

    def __init__(self, store: Store | None, *, background: bool = False) -> None:
        self.store, self.background = store, background
        self._pending: _OnItsWay | None = None
        self._channel: Channel | None = None
        self._about: dict[str, Any] = {}

    def save(self, run: Run, order: Order, undo: Undo) -> None:
        """Every rank calls it, after `settled`. undo: called on every rank if the checkpoint turns out not to stand."""
        run.stages.call(
            "before_save_checkpoint",
            checkpoint={
                "name": order.name,
                "iter": order.done,
                "validated": order.validated,
                "best": order.best,
            },
        )
        due = _OnItsWay(run, order, undo)
        if order.resumable or (run.plan.saving is not None and run.plan.saving.weights_only):
            run.saved_at, run.saved_clock = order.done, perf_counter()
        tensors, fields = contents(run, order, writes=self.store is not None)
        if self.store is not None:
            self._about = self._about or about(run)
            fields = {**self._about, **fields}
            run.recorder.hand_over()
        self._pending = due
        if not self.background:
            self._write(run, due, tensors, fields)
            self.settled(run)
        elif self.store is not None or run.strategy.shards:
            self._channel_of(run)
            copies = staged(tensors, plain=self.store is not None)
            due.thread = threading.Thread(
                target=self._write, args=(run, due, copies, fields), name="checkpoint", daemon=True
            )
            due.thread.start()

    def _write(self, run: Run, due: _OnItsWay, tensors: Files, fields: dict[str, Any]) -> None:
        """What this rank does for it: everything on rank 0; others send the pieces they hold."""
        try:
            with self._incoming(run, tensors) as received:
                if self.store is not None:
                    self._commit(run, due, self.store, tensors, fields, received)
        except BaseException as error:
            due.failure = error

    def _commit(
        self, run: Run, due: _OnItsWay, store: Store, tensors: Files, fields: dict[str, Any],
        received: Iterator[torch.Tensor],
    ) -> None:  # fmt: skip
        order = due.order
        again = {"failures": order.failures} if order.failures else {}
        timed = {} if order.waited is None else {"waited": order.waited, **again}
        try:
            due.path = str(store.save(order.name, tensors, fields, received))
        except SaveFailed as error:
            run.logger.error("%s", error)
            run.recorder.aside("save_failed", name=order.name, iter=order.done, best=order.best, planned=order.planned,
                               reason=error.reason, **timed)  # fmt: skip
            if due.thread is not None and not order.best:
                run.attempts.noticed()
                run.deadline = min(run.deadline, run.attempts.retry_at)
            return
        run.recorder.aside("save", name=order.name, iter=order.done, epoch=fields["epoch"], best=order.best,
                           validated=order.validated, planned=order.planned, **timed)  # fmt: skip
        for name in order.retire:
            try:
                store.remove(name)
            except (RemoveFailed, WorkDirLost) as error:  # which the next save ends the run with
                run.logger.warning("%s", error)
                continue
            run.recorder.aside("remove", name=name)

    @contextmanager
    def _incoming(self, run: Run, tensors: Files) -> Iterator[Iterator[torch.Tensor]]:
        """On rank 0, its pieces made whole, in the order of the files; to the end, for the others send them all."""
        held = pieces(tensors)
        channel = self._channel_of(run) if held else None
        received: Iterator[torch.Tensor] = iter(())
        if channel is not None and run.rank:
            channel.send(held)
        elif channel is not None:
            received = channel.receive(held)
        yield received
        deque(received, maxlen=0)

    def _channel_of(self, run: Run) -> Channel | None:
        """The group is made when the first checkpoint is due, by all ranks at once and before any thread needs it."""
        if self._channel is None and run.strategy.shards:
            group = None
            if run.world_size > 1:
                import torch.distributed as dist

                group = dist.new_group(
                    backend="gloo", timeout=timedelta(seconds=run.plan.environment.timeout)
                )
            self._channel = Channel(run.rank, group)
        return self._channel

    @property
    def saves_best(self) -> bool:
        """Whether the one on its way is a best one."""
        return self._pending is not None and self._pending.order.best

    def settled(self, run: Run) -> None:
        """Wait for the one on its way, and have every rank know what became of it.

        Raises:
            WorkDirLost: another run has the work_dir now. PeerFailed: so rank 0 found.
        """
        due, self._pending = self._pending, None
        if due is None:
            return
        if due.thread is not None:
            due.thread.join()
        if due.failure is not None and not isinstance(due.failure, WorkDirLost):
            raise due.failure
        raise_together(run.group, due.failure)
        stands = due.path is not None
        if run.world_size > 1:
            stands = bool(run.group.broadcast(stands))
        order = due.order
        attempt = Attempt(
            name=order.name, done=order.done, best=order.best, regular=order.planned and not order.best
        )
        run.attempts.settled(attempt, stands=stands)
        run.deadline = min(run.deadline, run.attempts.retry_at)
        if not stands:
            due.undo(run)
        elif due.path is not None:
            gone = tuple(f"/{name}" for name in due.order.retire)
            run.checkpoints[:] = [path for path in run.checkpoints if not path.endswith(gone)] + [due.path]

    def close(self) -> None:
        """Where a run ends in any way, even by a failure: what is on its way still gets there, if it can."""
        due, self._pending = self._pending, None
        if due is not None and due.thread is not None:
            due.thread.join(PATIENCE)

    def publish(self, run: Run, name: str, stems: tuple[str, ...]) -> None:
        """Tensor files of one checkpoint as one beside it, named after it and the file's own SHA-256."""
        if self.store is None:
            return
        try:
            path = self.store.publish(name, stems)
            run.recorder.event("publish", name=name, file=path.name)
            run.logger.info("published %s", path)
        except (SaveFailed, DamagedCheckpoint, WorkDirLost, OSError) as error:
            run.save_failed = True
            run.logger.error("%s", error)

    def mark_validated(self, run: Run, name: str) -> None:
        """Tell the run's last checkpoint that its validation is done, so that running again does not repeat it."""
        if self.store is None and not run.strategy.shards:
            return
        hooks, tensors = split(run.strategy.in_pieces(hook_states(run)))
        metrics, kept = split(metric_states(run))
        told = {"hooks": hooks, "metrics": metrics}
        with self._incoming(run, {"hooks": tensors}) as received:
            if self.store is None:
                return
            try:
                # to change a tensor would be another save
                if self.store.holds(name, "hooks", tensors, received) and self.store.holds(
                    name, "metrics", kept, iter(())
                ):
                    self.store.amend(
                        name,
                        lambda fields: {**fields, "validated": True, "state": {**fields["state"], **told}},
                    )
            except (SaveFailed, WorkDirLost) as error:
                run.logger.warning("%s", error)


def staged(files: Files, *, plain: bool) -> Files:
    """A copy in host memory of this rank's pieces, and of plain tensors if asked for; made when this returns."""
    copies: dict[int, AnyTensor] = {}

    def copied(tensor: AnyTensor) -> AnyTensor:
        if id(tensor) not in copies:
            copies[id(tensor)] = _copied(tensor, plain=plain)
        return copies[id(tensor)]

    made = {stem: {name: copied(one) for name, one in part.items()} for stem, part in files.items()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().synchronize()
    return made


def _copied(tensor: AnyTensor, *, plain: bool) -> AnyTensor:
    if isinstance(tensor, Piece):
        return tensor if tensor.held is None else evolve(tensor, held=_on_host(tensor.held))
    return _on_host(tensor) if plain else tensor


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cuda":
        return tensor.detach().to("cpu", copy=True)
    there = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return there.copy_(tensor.detach(), non_blocking=True)
