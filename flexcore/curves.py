"""How schedules of one parameter combine: its value at any iteration, and all values from one on. No state.

Closed forms where schedules only multiply or follow one another. Where one that is anchored (to a floor, to its
base value, to values of its own) overlaps another, the result is defined by mmengine's recursion: each schedule
moves what it finds, in list order, those that count epochs after those that count iterations.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count, islice

from attrs import evolve

from flexcore.forms import ScheduleBase
from flexcore.schedules import Constant, Cosine, Linear, OneCycle, ReduceOnPlateau, Schedule


def resolved(
    schedule: Schedule,
    *,
    by_epoch: bool,
    epoch_length: int | None,
    total_epochs: int | None,
    total: int | None,
) -> Schedule | None:
    """The schedule with every default filled, counted as the loop counts; None while a needed length is unknown.

    An omitted end is the end of the run, as in FlexibleRunner; cosine's T_max and one cycle's total are the span.
    """
    counted_by_epoch = by_epoch if schedule.by_epoch is None else schedule.by_epoch
    end = schedule.end if schedule.end is not None else (total_epochs if counted_by_epoch else total)
    filled = evolve(schedule, by_epoch=counted_by_epoch, end=end)
    if end is None or (counted_by_epoch and epoch_length is None):
        return None
    if schedule.convert_to_iter_based and counted_by_epoch and epoch_length is not None:
        filled = filled.stretched(epoch_length)
    if isinstance(filled, Cosine) and filled.T_max is None and filled.end is not None:
        filled = evolve(filled, T_max=filled.end - filled.begin)
    if isinstance(filled, OneCycle) and filled.total_steps is None and filled.end is not None:
        filled = evolve(filled, total_steps=filled.end - filled.begin)
    return filled


def local_step(schedule: Schedule, iteration: int, epoch_length: int | None) -> int | None:
    """Steps since `begin` at this iteration, held at the span's last; None before it begins."""
    counter = iteration // epoch_length if schedule.by_epoch and epoch_length else iteration
    if counter < schedule.begin:
        return None
    last = counter if schedule.end is None else min(counter, schedule.end - 1)
    return last - schedule.begin


def own(schedules: Sequence[Schedule], param: str) -> tuple[Schedule, ...]:
    """The schedules that move one parameter by the clock; a plateau's part is data's to decide."""
    return tuple(s for s in schedules if s.param == param and not isinstance(s, ReduceOnPlateau))


@lru_cache(maxsize=64)
def course(
    schedules: tuple[Schedule, ...], param: str, epoch_length: int | None
) -> tuple[tuple[Schedule, ...], bool, ReduceOnPlateau | None]:
    """(what moves one parameter, whether it has no closed form, the plateau that leaves it to data): once a plan.

    In the order they begin where there is a closed form, else in list order.
    """
    plateau = next((s for s in schedules if s.param == param and isinstance(s, ReduceOnPlateau)), None)
    moving = own(schedules, param)
    walks = len(moving) > 1 and clashes(moving, epoch_length)
    return (moving if walks else tuple(_by_begin(moving, epoch_length))), walks, plateau


def followed(
    moving: Sequence[Schedule], base: float, iteration: int, epoch_length: int | None, *, walks: bool
) -> float:
    """`value` of a course that is known already."""
    if walks:
        return next(islice(_walked(moving, base, epoch_length), iteration, None))
    return _closed(moving, base, iteration, epoch_length)


def value(schedules: Sequence[Schedule], base: float, iteration: int, epoch_length: int | None) -> float:
    """The parameter in force at `iteration` (0-based), for schedules of one param, from its base value.

    Constant time, unless the schedules clash: then it takes the iterations before.
    """
    if clashes(schedules, epoch_length):
        return next(islice(_walked(schedules, base, epoch_length), iteration, None))
    return _closed(_by_begin(schedules, epoch_length), base, iteration, epoch_length)


def values(
    schedules: Sequence[Schedule], base: float, epoch_length: int | None, start: int = 0
) -> Iterator[float]:
    """`value` at iteration `start` and every one after it, bit for bit."""
    if clashes(schedules, epoch_length):
        return islice(_walked(schedules, base, epoch_length), start, None)
    if len(schedules) == 1 and type(schedules[0]).apply is ScheduleBase.apply:
        return _alone(schedules[0], base, epoch_length, start)
    ordered = _by_begin(schedules, epoch_length)
    return (_closed(ordered, base, iteration, epoch_length) for iteration in count(start))


def _alone(schedule: Schedule, base: float, epoch_length: int | None, start: int) -> Iterator[float]:
    """`_closed` for one schedule, with all that stays looked up once: the training loop asks at every step."""
    unit = epoch_length if schedule.by_epoch and epoch_length else 1
    begin, last = schedule.begin, math.inf if schedule.end is None else schedule.end - 1
    floor, factor = schedule.floor(base), schedule.factor
    for iteration in count(start):
        counter = iteration // unit
        if counter < begin:
            yield base
        else:
            yield floor + (base - floor) * factor(int(counter if counter < last else last) - begin)  # noqa: FURB136 - a call a step


def _by_begin(schedules: Sequence[Schedule], epoch_length: int | None) -> Sequence[Schedule]:
    return sorted(schedules, key=lambda schedule: span(schedule, epoch_length)[0])


def _closed(schedules: Sequence[Schedule], base: float, iteration: int, epoch_length: int | None) -> float:
    """Each schedule's map of what came before it, in the order they begin."""
    current = base
    for schedule in schedules:
        t = local_step(schedule, iteration, epoch_length)
        if t is not None:
            current = schedule.apply(current, base, t)
    return current


def _walked(schedules: Sequence[Schedule], base: float, epoch_length: int | None) -> Iterator[float]:
    """The recursion of mmengine from the first iteration on."""
    current = _moved(schedules, base, base, 0)
    by_iteration = [s for s in schedules if not s.by_epoch]
    by_epoch = [s for s in schedules if s.by_epoch]
    for done in count(1):
        yield current
        current = _moved(by_iteration, current, base, done)
        if epoch_length and done % epoch_length == 0:
            current = _moved(by_epoch, current, base, done // epoch_length)


def _moved(schedules: Sequence[Schedule], current: float, base: float, counter: int) -> float:
    for schedule in schedules:
        if schedule.begin <= counter and (schedule.end is None or counter < schedule.end):
            current = schedule.advance(current, base, counter - schedule.begin)
    return current


def span(schedule: Schedule, epoch_length: int | None) -> tuple[float, float]:
    """[begin, end) in iterations; an open end is infinite."""
    unit = epoch_length if schedule.by_epoch and epoch_length else 1
    return schedule.begin * unit, math.inf if schedule.end is None else schedule.end * unit


def clashes(schedules: Sequence[Schedule], epoch_length: int | None) -> bool:
    """Whether an anchored schedule of one param meets another, so that only the recursion tells the value.

    Overlapping is meeting; so is having moved the start of a cosine that turns, which rises to the base value.
    """
    anchored = [schedule for schedule in schedules if schedule.anchored]
    return any(
        one is not other and (_overlap(one, other, epoch_length) or _turned(one, other, epoch_length))
        for one in anchored
        for other in schedules
    )


def _turned(one: Schedule, other: Schedule, epoch_length: int | None) -> bool:
    return isinstance(one, Cosine) and one.turns and span(other, epoch_length) < span(one, epoch_length)


def _overlap(one: Schedule, other: Schedule, epoch_length: int | None) -> bool:
    (one_begin, one_end), (other_begin, other_end) = span(one, epoch_length), span(other, epoch_length)
    return one_begin < other_end and other_begin < one_end


def lost(schedules: Sequence[Schedule], epoch_length: int | None) -> tuple[int, ...]:
    """Indices of schedules that would have to rise from 0 by a factor, in a recursion that has nothing else."""
    found = []
    for i, one in enumerate(schedules):
        start = (
            one.factor_value
            if isinstance(one, Constant)
            else one.start_factor
            if isinstance(one, Linear)
            else 1
        )
        mates = own(schedules, one.param)
        if start == 0 and one.last > 0 and clashes(mates, epoch_length):
            found.append(i)
    return tuple(found)
