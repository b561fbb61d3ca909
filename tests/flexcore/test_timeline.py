"""Events by arithmetic against a loop that steps through every iteration."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from flexcore.timeline import (
    SavePoints,
    Timeline,
    closes,
    due_after_epoch,
    interval_at,
    last_saves,
    next_save,
    next_validation,
    saves,
    update_at_or_after,
    validates_after,
    validations,
    window_at,
)
from tests.strategies import save_points, timelines


def stepped(clock: Timeline):
    """(iteration, epoch, windows so far, whether the optimizer steps) of every iteration, one at a time."""
    windows, current = [], []
    for iteration in range(clock.max_iters):
        current.append(iteration)
        epoch_ends = clock.by_epoch and (iteration + 1) % clock.epoch_length == 0
        if (
            len(current) == clock.window
            or iteration + 1 == clock.max_iters
            or (clock.tail == "step" and epoch_ends)
        ):
            windows.append(current)
            current = []
    return windows


def checked(clock: Timeline) -> list[int]:
    """mmengine's rule, step by step: dynamic intervals are looked up before the check after a step."""
    found, total = [], clock.max_epochs if clock.by_epoch else clock.max_iters
    for done in range(1, total + 1):
        interval = clock.val_interval
        for milestone, other in clock.dynamic_intervals:
            if done + 1 >= milestone:
                interval = other
        if clock.validates and done >= clock.val_begin and (done % interval == 0 or done == total):
            found.append(done)
    return found


def saved(clock: Timeline, points: SavePoints) -> list[tuple[int, int]]:
    """Walk the run; what is due waits for the closing update, and the last due there names it."""
    found, due = [], None
    last_of = {window[-1]: window for window in stepped(clock)}
    for done in range(1, clock.max_iters + 1):
        length = clock.epoch_length if points.by_epoch else 1
        if done % length == 0:
            units = done // length
            by_interval = (
                points.interval > 0
                and units >= points.save_begin
                and (units - points.save_begin) % points.interval == 0
            )
            if by_interval or (points.save_last and done == clock.max_iters):
                due = units
        if due is not None and done - 1 in last_of:
            found.append((due if points.by_epoch else done, done))
            due = None
    return found


@given(timelines())
def test_windows_divisors_and_steps_are_those_of_the_loop(clock):
    windows = stepped(clock)
    assert clock.optimizer_steps == len(windows)
    for window in windows:
        for iteration in window:
            assert window_at(clock, iteration) == (window[0], len(window))
            assert closes(clock, iteration) == (iteration == window[-1])
            assert update_at_or_after(clock, iteration + 1) == window[-1] + 1


@given(timelines())
def test_validations_are_those_of_the_stepped_rule(clock):
    expected = checked(clock)
    total = clock.total()
    assert [done for done in range(1, total + 1) if validates_after(clock, done)] == expected
    for after in range(total + 2):
        assert next_validation(clock, after) == next((done for done in expected if done > after), None)
    length = clock.epoch_length if clock.by_epoch else 1
    assert list(validations(clock)) == [(done if clock.by_epoch else 0, done * length) for done in expected]


@given(timelines(), st.data())
def test_saves_are_those_of_the_stepped_rule(clock, data):
    points = data.draw(save_points(st.booleans() if clock.by_epoch else st.just(False)))
    expected = saved(clock, points)
    assert list(saves(clock, points)) == expected
    for done in range(clock.max_iters + 2):
        assert next_save(clock, points, done) == next((save for save in expected if save[1] > done), None)
        assert list(last_saves(clock, points, done)) == [save for save in expected[::-1] if save[1] <= done]


@given(timelines(), st.data())
def test_events_of_a_run_are_those_before_a_stop_and_those_of_its_resume(clock, data):
    points = data.draw(save_points(st.booleans() if clock.by_epoch else st.just(False)))
    stop = data.draw(st.integers(0, clock.max_iters))
    every = list(saves(clock, points))
    assert [save for save in every if save[1] <= stop] + list(saves(clock, points, stop)) == every
    units = data.draw(st.integers(0, clock.total()))
    checks = list(validations(clock))
    before = [check for check in checks if check[0 if clock.by_epoch else 1] <= units]
    assert before + list(validations(clock, units)) == checks


def test_a_run_of_a_billion_steps_answers_at_once():
    clock = Timeline(
        by_epoch=True,
        epoch_length=1,
        max_epochs=10**9,
        max_iters=10**9,
        window=10**6,
        validates=True,
        val_interval=7,
    )
    points = SavePoints(interval=1, by_epoch=True)
    assert next_save(clock, points, 123) == (10**6, 10**6)
    assert next(last_saves(clock, points, 10**9 - 1)) == (999 * 10**6, 999 * 10**6)
    assert next_validation(clock, 10**9 - 3) == 10**9  # the end; 10**9 - 6 was the last multiple of 7
    assert clock.optimizer_steps == 1000


def test_an_unknown_length_is_unknown_everywhere():
    clock = Timeline(
        by_epoch=True, epoch_length=None, max_epochs=3, max_iters=None, validates=True, window=2, tail="step"
    )
    assert clock.optimizer_steps is None
    assert clock.epoch_of(5) == 0
    assert list(validations(clock)) == [(1, None), (2, None), (3, None)]
    assert next_save(clock, SavePoints(interval=1, by_epoch=True), 0) is None
    assert list(last_saves(clock, SavePoints(interval=1, by_epoch=True), 9)) == []
    assert window_at(clock, 5) == (4, 2)


EPOCHS = Timeline(by_epoch=True, epoch_length=10, max_epochs=9, max_iters=90, validates=True)
RISING = evolve(EPOCHS, val_interval=2, dynamic_intervals=((5, 3), (8, 1)))


def test_epochs_close_their_windows_in_a_run_of_any_length():
    clock = evolve(EPOCHS, max_iters=None, window=4, tail="step")
    assert [window_at(clock, i) for i in (3, 7, 8, 9, 10, 29)] == [
        (0, 4), (4, 4), (8, 2), (8, 2), (10, 4), (28, 2),
    ]  # fmt: skip


def test_a_milestone_rules_from_the_check_before_it():
    assert [interval_at(RISING, done) for done in (1, 3, 4, 6, 7, 9)] == [2, 2, 3, 3, 1, 1]
    assert [done for done in range(10) if validates_after(RISING, done)] == [2, 6, 7, 8, 9]
    assert [next_validation(RISING, done) for done in range(10)] == [2, 2, 6, 6, 6, 6, 7, 8, 9, None]
    assert [next_validation(EPOCHS, done) for done in (0, 1, 8, 9)] == [1, 2, 9, None]
    assert [validates_after(EPOCHS, done) for done in (0, 1, 9)] == [False, True, True]


def test_the_end_validates_unless_it_comes_before_the_first():
    sparse = evolve(EPOCHS, val_interval=7)
    assert [next_validation(sparse, done) for done in (0, 6, 7, 8, 9)] == [7, 7, 9, 9, None]
    assert next_validation(evolve(sparse, val_begin=9), 0) == 9
    assert next_validation(evolve(sparse, val_begin=10), 0) is None
    endless = evolve(sparse, by_epoch=False, max_iters=None)
    assert [next_validation(endless, done) for done in (0, 7, 9)] == [7, 14, 14]


@pytest.mark.parametrize(
    ("interval", "begin", "due"), [(1, 0, [1, 2, 3, 4, 5]), (2, 0, [2, 4]), (2, 1, [1, 3, 5]), (1, 4, [4, 5]), (0, 0, []), (-1, 0, [])]
)  # fmt: skip
def test_saves_after_epochs_of_a_loop_of_ones_own(interval, begin, due):
    points = SavePoints(interval=interval, by_epoch=True, save_begin=begin)
    assert [epochs for epochs in range(6) if due_after_epoch(points, epochs)] == due
    assert not any(due_after_epoch(evolve(points, by_epoch=False), epochs) for epochs in range(6))


def test_saves_of_a_run_without_an_end_and_of_one_without_a_step():
    points = SavePoints(interval=4, by_epoch=False)
    endless = Timeline(by_epoch=False, epoch_length=None, max_epochs=1, max_iters=None)
    assert list(last_saves(endless, points, 9)) == [(8, 8), (4, 4)]
    still = evolve(endless, max_iters=0)
    assert (list(last_saves(still, points, 0)), list(saves(still, points))) == ([], [])
