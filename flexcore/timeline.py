"""When things happen, as arithmetic on completed iterations; never a materialised list.

Iterations are counted from 0 while they run and by how many are completed where events are placed: the event
"at 8" happens after the eighth iteration.
"""

from collections.abc import Iterator
from typing import Literal

from attrs import evolve, frozen

Tail = Literal["carry", "step", "drop"]


@frozen(kw_only=True)
class Timeline:
    """The run's clock.

    Attributes:
        by_epoch: the epoch loop; False is the iteration loop, which runs in one long epoch numbered 0.
        epoch_length: iterations per pass over the data; None while the dataset's length is unknown.
        max_epochs, max_iters: totals; max_epochs is 1 in the iteration loop.
        window: iterations per optimizer update (1 where an iteration is a whole global batch).
        tail: what becomes of a window that an epoch's end cuts.
        val_begin, val_interval, dynamic_intervals: in epochs or iterations, as the loop counts.
        validates: whether there is anything to validate with.
        max_seconds: stop by wall time; None for no limit.
        opaque: a loop of the user's own decides what an epoch is, when to validate and when to end. Totals are
            then what schedules are planned for, as far as the loop says them.
        updates: who makes them: "planned" is one a window; "model" a train_step, as often as it will in a window's
            last iteration.
        optimizer_steps: planned updates in the whole run; None: unknown, or the model's own affair.
    """

    by_epoch: bool
    epoch_length: int | None
    max_epochs: int
    max_iters: int | None
    window: int = 1
    tail: Tail = "carry"
    val_begin: int = 1
    val_interval: int = 1
    dynamic_intervals: tuple[tuple[int, int], ...] = ()
    validates: bool = False
    max_seconds: float | None = None
    opaque: bool = False
    updates: Literal["planned", "model"] = "planned"

    @property
    def optimizer_steps(self) -> int | None:
        if self.max_iters is None or self.updates == "model":
            return None
        if self.flushes and self.epoch_length:
            epochs, rest = divmod(self.max_iters, self.epoch_length)
            return epochs * -(-self.epoch_length // self.window) + -(-rest // self.window)
        return -(-self.max_iters // self.window)

    @property
    def flushes(self) -> bool:
        """Whether every epoch's end closes its window."""
        return self.tail == "step" and self.by_epoch

    def epoch_of(self, iteration: int) -> int:
        """Epochs completed when `iteration` iterations are; always 0 in the iteration loop."""
        return iteration // self.epoch_length if self.by_epoch and self.epoch_length else 0

    def total(self) -> int | None:
        """The run's length in the loop's own unit."""
        return self.max_epochs if self.by_epoch else self.max_iters

    def to_iteration(self, units: int) -> int | None:
        """Completed epochs or iterations, as completed iterations."""
        if not self.by_epoch:
            return units
        return None if self.epoch_length is None else units * self.epoch_length


def window_at(timeline: Timeline, iteration: int) -> tuple[int, int]:
    """(first iteration, size) of the accumulation window that holds this running iteration.

    The loss divisor is the size: the run's last window and, under tail="step", each epoch's may be short.
    """
    k, base, limit = timeline.window, 0, timeline.max_iters
    if timeline.flushes and timeline.epoch_length:
        base = iteration // timeline.epoch_length * timeline.epoch_length
        limit = base + timeline.epoch_length
    first = base + (iteration - base) // k * k
    return first, k if limit is None else min(k, limit - first)


def closes(timeline: Timeline, iteration: int) -> bool:
    """Whether the optimizer steps at the end of this running iteration."""
    first, size = window_at(timeline, iteration)
    return iteration == first + size - 1


def update_at_or_after(timeline: Timeline, completed: int) -> int:
    """The first count of completed iterations >= `completed` (>= 1) that ends on an optimizer update."""
    first, size = window_at(timeline, completed - 1)
    return first + size


def interval_at(timeline: Timeline, units: int) -> int:
    """The validation interval that decides the check after `units` completed; a milestone m rules from m - 1."""
    current = timeline.val_interval
    for milestone, interval in timeline.dynamic_intervals:
        if milestone <= units + 1:
            current = interval
    return current


def validates_after(timeline: Timeline, units: int) -> bool:
    """Whether a validation follows `units` completed epochs (or iterations); the last one always does."""
    if not timeline.validates or units < max(1, timeline.val_begin):
        return False
    return units == timeline.total() or units % interval_at(timeline, units) == 0


def next_validation(timeline: Timeline, after: int) -> int | None:
    """The smallest number of completed units above `after` that is followed by a validation. O(milestones)."""
    total = timeline.total()
    if not timeline.validates:
        return None
    start = max(after + 1, timeline.val_begin)
    found = ((-(-max(start, begin) // interval) * interval, end) for begin, end, interval in _spans(timeline))
    first = next(units for units, end in found if end is None or units < end)
    if total is None:
        return first
    return min(first, total) if start <= total else None


def _spans(timeline: Timeline) -> list[tuple[int, int | None, int]]:
    """(first unit, first unit of the next, interval) of each validation interval; a milestone m rules from m - 1."""
    begins = [1, *(milestone - 1 for milestone, _ in timeline.dynamic_intervals)]
    intervals = [timeline.val_interval, *(interval for _, interval in timeline.dynamic_intervals)]
    return list(zip(begins, [*begins[1:], None], intervals, strict=True))


def validations(timeline: Timeline, after: int = 0) -> Iterator[tuple[int, int | None]]:
    """(epoch, completed iterations) of each validation after `after` completed units, lazily."""
    units = next_validation(timeline, after)
    while units is not None:
        yield (units if timeline.by_epoch else 0), timeline.to_iteration(units)
        units = next_validation(timeline, units)


@frozen(kw_only=True)
class SavePoints:
    """When checkpoints are due: every `interval` units from `save_begin` on, and at the end if save_last.

    by_epoch: counted in epochs; else in iterations. interval <= 0 means never by interval.
    """

    interval: int
    by_epoch: bool
    save_begin: int = 0
    save_last: bool = True


def next_save(timeline: Timeline, points: SavePoints, after: int) -> tuple[int, int] | None:
    """(due units, completed iterations) of the first save at more than `after` completed iterations. O(1).

    A save due inside an accumulation window happens at the window's closing update; several due inside one
    window are one save, named by the last.
    """
    if timeline.opaque and points.by_epoch:
        return None  # its epochs end where the loop says; see due_after_epoch
    timeline = evolve(timeline, max_iters=None) if timeline.opaque else timeline
    length = timeline.epoch_length if points.by_epoch else 1
    if length is None or (timeline.max_iters is not None and after >= timeline.max_iters):
        return None
    opened, _ = window_at(timeline, after)  # whatever is due in this window has not been saved yet
    first = _first_due(timeline, points, opened // length + 1, length)
    if first is None:
        return None
    at = update_at_or_after(timeline, first * length)
    return _named(timeline, points, at, length), at


def due_after_epoch(points: SavePoints, epochs: int) -> bool:
    """Whether a save follows the `epochs`th epoch that a loop of the user's own ends."""
    begun = points.interval > 0 and epochs >= max(1, points.save_begin)
    return points.by_epoch and begun and (epochs - points.save_begin) % points.interval == 0


def last_saves(timeline: Timeline, points: SavePoints, upto: int) -> Iterator[tuple[int, int]]:
    """(due units, completed iterations) of every save at `upto` completed iterations or before, newest first."""
    length = timeline.epoch_length if points.by_epoch else 1
    if length is None:
        return
    end = upto if timeline.max_iters is None else min(upto, timeline.max_iters)
    due = _last_due(timeline, points, end // length, length)
    while due is not None:
        opened, _ = window_at(timeline, due * length - 1)
        at = update_at_or_after(timeline, due * length)
        if at <= end:
            yield _named(timeline, points, at, length), at
        due = _last_due(timeline, points, opened // length, length)


def _named(timeline: Timeline, points: SavePoints, at: int, length: int) -> int:
    """What the save at `at` is named by: the last epoch due there, or the iterations completed."""
    last = _last_due(timeline, points, at // length, length) if points.by_epoch else at
    assert last is not None
    return last


def _units(timeline: Timeline, length: int) -> int | None:
    return None if timeline.max_iters is None else timeline.max_iters // length


def _first_due(timeline: Timeline, points: SavePoints, units: int, length: int) -> int | None:
    """The smallest due count of units >= `units` (>= 1)."""
    total, found = _units(timeline, length), None
    if points.interval > 0:
        steps = max(0, -(-(units - points.save_begin) // points.interval))
        found = points.save_begin + steps * points.interval
        if total is not None and found > total:
            found = None
    if found is None and points.save_last and total is not None and total >= units:
        found = total
    return found


def _last_due(timeline: Timeline, points: SavePoints, units: int, length: int) -> int | None:
    """The largest due count of units in 1..`units`."""
    if points.save_last and units > 0 and units == _units(timeline, length):
        return units
    if points.interval <= 0 or units < points.save_begin:
        return None
    found = units - (units - points.save_begin) % points.interval
    return found if found > 0 else None


def saves(timeline: Timeline, points: SavePoints, after: int = 0) -> Iterator[tuple[int, int]]:
    """(due units, completed iterations) of every save after `after` completed iterations, lazily."""
    found = next_save(timeline, points, after)
    while found is not None:
        yield found
        found = next_save(timeline, points, found[1])
