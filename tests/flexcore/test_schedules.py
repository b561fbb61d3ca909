"""Closed forms against torch's own schedulers, stepped, and against the recursion they replace."""

import math
from itertools import islice, pairwise

import pytest
import torch
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import flexcore
from flexcore import Facts
from flexcore.converting import structure
from flexcore.curves import clashes, local_step, lost, own, resolved, span, value, values
from flexcore.schedules import (
    FORMS,
    Constant,
    Cosine,
    CosineRestart,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    Poly,
    ReduceOnPlateau,
    Schedule,
    Step,
)
from tests.flexcore.base import KNOWN, planned

TOTAL = 40


def made(*configs, total=TOTAL, epoch_length=1, by_epoch=False) -> tuple[Schedule, ...]:
    from flexcore.config import Config  # the vocabulary is read the way a config is

    config = structure({"param_scheduler": [dict(c) for c in configs]}, Config)
    return tuple(
        resolved(s, by_epoch=by_epoch, epoch_length=epoch_length, total_epochs=total, total=total)
        for s in config.param_scheduler
    )


def of_torch(base, *factories):
    """The LR in force at every step under torch's schedulers, stepped together (each is chainable)."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    steppers = [factory(optimizer) for factory in factories]
    values = []
    for _ in range(TOTAL):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for stepper in steppers:
            stepper.step()
    return values


T = torch.optim.lr_scheduler
factor = st.floats(0.05, 1.0)
twins = st.one_of(
    st.builds(lambda f, n: ({"type": "ConstantLR", "factor": f, "end": n + 1},
                            lambda o: T.ConstantLR(o, factor=f, total_iters=n)), factor, st.integers(1, 50)),
    st.builds(lambda a, b, n: ({"type": "LinearLR", "start_factor": a, "end_factor": b, "end": n + 1},
                               lambda o: T.LinearLR(o, a, b, n)), factor, factor, st.integers(1, 50)),
    st.builds(lambda g: ({"type": "ExponentialLR", "gamma": g}, lambda o: T.ExponentialLR(o, g)), st.floats(0.7, 1)),
    st.builds(lambda n, g: ({"type": "StepLR", "step_size": n, "gamma": g}, lambda o: T.StepLR(o, n, g)),
              st.integers(1, 20), factor),
    st.builds(lambda m, g: ({"type": "MultiStepLR", "milestones": m, "gamma": g}, lambda o: T.MultiStepLR(o, m, g)),
              st.lists(st.integers(1, 45), max_size=4).map(sorted), factor),
    st.builds(lambda n, p: ({"type": "PolyLR", "power": p, "end": n + 1}, lambda o: T.PolynomialLR(o, n, p)),
              st.integers(TOTAL, 90), st.floats(0.5, 3)),
    st.builds(lambda n: ({"type": "CosineAnnealingLR", "T_max": n, "end": TOTAL}, lambda o: T.CosineAnnealingLR(o, n)),
              st.integers(TOTAL, 90)),
)  # fmt: skip


@given(st.lists(twins, min_size=1, max_size=3), st.floats(1e-4, 10))
def test_chains_follow_torch(chain, base):
    ours = made(*(config for config, _ in chain))
    theirs = of_torch(base, *(factory for _, factory in chain))
    for step in range(TOTAL):
        assert value(ours, base, step, 1) == pytest.approx(theirs[step], rel=1e-9)


@given(st.integers(2, 90), st.floats(0, 0.5), st.floats(0.6, 10))
def test_a_floored_cosine_follows_torch_even_past_its_turn(t_max, eta_min, base):
    ours = made({"type": "CosineAnnealingLR", "T_max": t_max, "eta_min": eta_min, "end": TOTAL})
    theirs = of_torch(base, lambda o: T.CosineAnnealingLR(o, t_max, eta_min))
    for step in range(TOTAL):
        assert value(ours, base, step, 1) == pytest.approx(theirs[step], rel=1e-9, abs=1e-12)


@given(st.integers(2, 15), factor, st.floats(0.001, 0.1), st.floats(0.5, 2))
def test_warmup_then_cosine_follows_torchs_sequence(warm, start, eta_min, base):
    ours = made({"type": "LinearLR", "start_factor": start, "end": warm},
                {"type": "CosineAnnealingLR", "begin": warm, "eta_min": eta_min})  # fmt: skip
    for step in range(TOTAL):
        if step < warm:
            expected = base * (start + (1 - start) * step / (warm - 1))
        else:
            expected = (
                eta_min + (base - eta_min) * (1 + math.cos(math.pi * (step - warm) / (TOTAL - warm))) / 2
            )
        assert value(ours, base, step, 1) == pytest.approx(expected, rel=1e-9)


@given(st.sampled_from(["ConstantLR", "LinearLR", "ExponentialLR", "StepLR", "CosineAnnealingLR", "PolyLR"]),
       st.integers(1, 6), st.integers(0, 3), st.integers(2, 9))  # fmt: skip
def test_by_epoch_holds_within_an_epoch(kind, length, begin, epochs):
    end = begin + epochs
    (ours,) = made({"type": kind, "by_epoch": True, "begin": begin, "end": end}, epoch_length=length)
    (steps,) = made({"type": kind, "by_epoch": False, "begin": begin, "end": end})
    for iteration in range(length * (end + 2)):
        assert value([ours], 1.0, iteration, length) == value([steps], 1.0, iteration // length, 1)


@given(
    st.sampled_from(["ConstantLR", "LinearLR", "StepLR", "CosineAnnealingLR"]),
    st.integers(1, 6),
    st.integers(2, 9),
)
def test_converted_to_iterations_spans_the_same_time(kind, length, epochs):
    (ours,) = made(
        {"type": kind, "by_epoch": True, "end": epochs, "convert_to_iter_based": True}, epoch_length=length
    )
    (steps,) = made(
        {"type": kind, "end": epochs * length, **({"step_size": length} if kind == "StepLR" else {})}
    )
    for iteration in range(length * epochs + 3):
        assert value([ours], 1.0, iteration, length) == pytest.approx(
            value([steps], 1.0, iteration, 1), rel=1e-12
        )


def test_other_forms_convert_too():
    (ours,) = made(
        {"type": "ExponentialLR", "gamma": 0.25, "convert_to_iter_based": True, "by_epoch": True},
        epoch_length=2,
    )
    assert [value([ours], 1.0, i, 2) for i in range(4)] == [1.0, 0.5, 0.25, 0.125]
    (ours,) = made(
        {"type": "MultiStepLR", "milestones": [1, 2], "convert_to_iter_based": True, "by_epoch": True},
        epoch_length=3,
    )
    assert ours.milestones == (3, 6)
    (ours,) = made(
        {"type": "CosineAnnealingLR", "T_max": 5, "convert_to_iter_based": True, "by_epoch": True},
        epoch_length=3,
    )
    assert ours.T_max == 15


def test_a_ratio_of_the_base_is_the_floor():
    (ours,) = made({"type": "CosineAnnealingLR", "eta_min_ratio": 0.1, "end": 11, "T_max": 10})
    assert value([ours], 2.0, 10, 1) == pytest.approx(0.2)
    (ours,) = made({"type": "PolyLR", "eta_min_ratio": 0.5, "end": 11})
    assert value([ours], 2.0, 10, 1) == 1.0


def test_the_span_is_held_and_nothing_moves_before_it():
    ours = made({"type": "LinearLR", "start_factor": 0.5, "begin": 5, "end": 8, "end_factor": 0.25})
    assert [value(ours, 1.0, i, 1) for i in (0, 4, 5, 6, 7, 8, 39)] == [1, 1, 0.5, 0.375, 0.25, 0.25, 0.25]


def test_factors_beyond_floats_are_infinite_and_not_an_error():
    ours = made({"type": "ExponentialLR", "gamma": 1e300})
    assert value(ours, 1.0, 30, 1) == math.inf


def test_maps_apply_in_the_order_they_begin_whatever_their_unit():
    """A floored epoch schedule from iteration 20 and a halving at iteration 30."""
    poly = {"type": "PolyLR", "by_epoch": True, "begin": 2, "end": 3, "eta_min": 0.5}
    step = {"type": "ConstantLR", "by_epoch": False, "begin": 30, "end": 99, "factor": 0.5}
    ours = made(step, poly, epoch_length=10)
    assert value(ours, 1.0, 35, 10) == 0.5 * value(made(poly, epoch_length=10), 1.0, 35, 10)
    assert [span(s, 10) for s in ours] == [(30, 99), (20, 30)]
    assert not clashes(ours, 10)
    assert clashes(ours, 11)


def test_an_open_end_is_infinite():
    (ours,) = made({"type": "ConstantLR"})
    assert span(evolve(ours, end=None), 1) == (0, math.inf)
    assert evolve(ours, end=None).last == 0


@given(st.sampled_from(FORMS[:7]))
def test_forms_have_no_floor_unless_given_one(form):
    assert form().floor(1.0) == 0.0
    assert not form().anchored


@given(st.integers(1, TOTAL), st.floats(0.01, 0.99), st.booleans(), st.sampled_from(["cos", "linear"]),
       st.floats(1.1, 40), st.floats(1, 1e5), st.floats(1e-3, 5))  # fmt: skip
def test_one_cycle_follows_torch(total, rise, three, strategy, div, final, top):
    ours = made({"type": "OneCycleLR", "eta_max": top, "total_steps": total, "pct_start": rise, "three_phase": three,
                 "anneal_strategy": strategy, "div_factor": div, "final_div_factor": final})  # fmt: skip
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=9.0)
    if rise * total == 1.0 or (three and 2 * rise * total == 2.0):
        return  # torch divides by zero
    stepper = T.OneCycleLR(optimizer, top, total_steps=total, pct_start=rise, anneal_strategy=strategy, div_factor=div,
                           final_div_factor=final, three_phase=three, cycle_momentum=False)  # fmt: skip
    for step in range(total):
        assert value(ours, 9.0, step, 1) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-12, abs=1e-15
        )
        if step < total - 1:
            optimizer.step()
            stepper.step()
    last = value(ours, 9.0, total - 1, 1)
    assert value(ours, 9.0, total + 7, 1) == last


@given(st.integers(1, 12), st.integers(1, 4), st.floats(0, 0.5), st.floats(0.6, 5))
def test_equal_restarts_follow_torchs_warm_restarts(period, number, eta_min, base):
    ours = made({"type": "CosineRestartLR", "periods": [period] * number, "restart_weights": [1.0] * number,
                 "eta_min": eta_min})  # fmt: skip
    theirs = of_torch(base, lambda o: T.CosineAnnealingWarmRestarts(o, period, eta_min=eta_min))
    held = min(TOTAL, period * number)
    found = [value(ours, base, step, 1) for step in range(TOTAL)]
    assert found[:held] == pytest.approx(theirs[:held], rel=1e-12)
    assert found[held:] == [found[held - 1]] * (TOTAL - held)


def test_a_cycle_that_turns_at_once_stands_at_its_top():
    (ours,) = made({"type": "OneCycleLR", "eta_max": 2.0, "total_steps": 4, "pct_start": 0.25})
    assert value([ours], 9.0, 0, 1) == 2.0


overlapping = st.lists(
    st.one_of(
        st.builds(lambda b, e, m: {"type": "CosineAnnealingLR", "begin": b, "end": b + e, "eta_min": m},
                  st.integers(0, 30), st.integers(1, 40), st.floats(0, 0.2)),
        st.builds(lambda t: {"type": "CosineAnnealingLR", "T_max": t}, st.integers(1, 60)),
        st.builds(lambda b, p, m: {"type": "PolyLR", "begin": b, "power": p, "eta_min_ratio": m},
                  st.integers(0, 30), st.floats(0.5, 2), st.floats(0, 0.2)),
        st.builds(lambda b, n: {"type": "StepLR", "begin": b, "step_size": n}, st.integers(0, 30), st.integers(1, 9)),
        st.builds(lambda b, f: {"type": "LinearLR", "begin": b, "start_factor": f}, st.integers(0, 30), factor),
        st.builds(lambda b, n: {"type": "CosineRestartLR", "begin": b, "periods": [n], "eta_min": 0.01},
                  st.integers(0, 30), st.integers(1, 9)),
    ), min_size=1, max_size=4,
)  # fmt: skip


@given(overlapping, st.integers(1, 7), st.data())
def test_values_from_any_iteration_on_are_the_same_bits(configs, length, data):
    total = TOTAL * length
    ours = tuple(
        made({**config, "by_epoch": data.draw(st.booleans())}, total=TOTAL, epoch_length=length)[0]
        for config in configs
    )
    whole = list(islice(values(ours, 0.7, length), total))
    start = data.draw(st.integers(0, total - 1))
    assert list(islice(values(ours, 0.7, length, start), total - start)) == whole[start:]
    assert value(ours, 0.7, start, length) == whole[start]


def test_a_floor_beside_steps_is_not_their_product():
    """mmengine at 950 of 1,000: .0077, where the product would be 1.6e-5."""
    ours = made(
        {"type": "CosineAnnealingLR", "eta_min": 0.01}, {"type": "StepLR", "step_size": 100}, total=1000
    )
    assert value(ours, 1.0, 950, 1) == pytest.approx(0.0077, abs=5e-5)


def test_every_scheduled_key_has_its_own_value():
    plan = planned(KNOWN, optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.8}}, param_scheduler=[
        {"type": "ConstantMomentum", "factor": 0.5, "end": 9},
        {"type": "ExponentialParamScheduler", "param_name": "weight_decay", "gamma": 0.5},
        {"type": "StepParamScheduler", "param_name": "lr", "step_size": 1, "gamma": 0.5},
    ])  # fmt: skip
    assert flexcore.value_at(plan, "momentum", 1).value == 0.4
    assert flexcore.value_at(plan, "lr", 26).value == 0.05
    assert flexcore.value_at(plan, "weight_decay", 1).value == 0.0


def test_values_that_wait_for_facts_say_so():
    plan = planned(param_scheduler={"type": "PolyLR"}, auto_scale_lr={"enable": True, "base_batch_size": 4},
                   launcher="pytorch")  # fmt: skip
    assert flexcore.value_at(plan).reason == "the LR's scale needs world_size and the batch size"
    plan = planned(param_scheduler={"type": "PolyLR"})
    assert flexcore.value_at(plan).reason == "a schedule ends with the run, whose length needs train_samples"
    assert "lr           ? (needs train_samples)" in str(plan)


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 4), st.integers(1, 64))
def test_lr_is_scaled_by_the_global_batch(micro, steps, world, reference):
    plan = planned(
        Facts(world_size=world), launcher="pytorch", auto_scale_lr={"enable": True, "base_batch_size": reference},
        train_dataloader={"dataset": "pkg:D", "batch_size": micro},
        optim_wrapper={"optimizer": {"type": "Adam"}, "accumulative_counts": steps},
    )  # fmt: skip
    assert plan.optimizer.groups[0].base("lr") == pytest.approx(1e-3 * micro * steps * world / reference)


def test_curves_of_warmup_rise_and_decay_falls():
    ours = made({"type": "LinearLR", "end": 10}, {"type": "PolyLR", "begin": 10})
    values = [value(ours, 1.0, i, 1) for i in range(TOTAL)]
    assert all(a < b for a, b in pairwise(values[:10]))
    assert all(a > b for a, b in pairwise(values[10:]))


LOOP = {"epoch_length": 5, "total_epochs": 3, "total": 15}
UNTIMED = {"epoch_length": None, "total_epochs": 3, "total": None}


@pytest.mark.parametrize(("schedule", "by_epoch", "loop", "expected"), [
    (Step(), True, LOOP, Step(by_epoch=True, end=3)),
    (Step(), False, LOOP, Step(by_epoch=False, end=15)),
    (Step(by_epoch=False), True, LOOP, Step(by_epoch=False, end=15)),
    (Step(by_epoch=True), False, LOOP, Step(by_epoch=True, end=3)),
    (Step(end=2), True, LOOP, Step(by_epoch=True, end=2)),
    (Step(by_epoch=False), False, UNTIMED, None),
    (Step(by_epoch=False, end=9), False, UNTIMED, Step(by_epoch=False, end=9)),
    (Step(end=2), True, UNTIMED, None),
    (Step(), True, {**LOOP, "total_epochs": None}, None),
    (Step(begin=1, convert_to_iter_based=True, step_size=2), True, LOOP,
     Step(begin=5, by_epoch=False, end=15, step_size=10)),
    (Step(convert_to_iter_based=True), False, LOOP, Step(convert_to_iter_based=True, by_epoch=False, end=15)),
    (Cosine(begin=1), True, LOOP, Cosine(begin=1, by_epoch=True, end=3, T_max=2)),
    (Cosine(begin=1, T_max=7), True, LOOP, Cosine(begin=1, by_epoch=True, end=3, T_max=7)),
    (Cosine(begin=1, convert_to_iter_based=True), True, LOOP, Cosine(begin=5, by_epoch=False, end=15, T_max=10)),
    (OneCycle(begin=1, eta_max=1.0), False, LOOP, OneCycle(begin=1, eta_max=1.0, by_epoch=False, end=15, total_steps=14)),
    (OneCycle(eta_max=1.0, total_steps=9), False, LOOP,
     OneCycle(eta_max=1.0, by_epoch=False, end=15, total_steps=9)),
])  # fmt: skip
def test_what_is_left_out_is_the_runs(schedule, by_epoch, loop, expected):
    assert resolved(schedule, by_epoch=by_epoch, **loop) == expected


@pytest.mark.parametrize(("longer", "expected"), [
    (Step(begin=2, end=None, step_size=3), Step(begin=10, by_epoch=False, step_size=15)),
    (Cosine(end=4), Cosine(end=20, by_epoch=False)),
    (MultiStep(milestones=(1, 3), end=4), MultiStep(milestones=(5, 15), end=20, by_epoch=False)),
    (OneCycle(eta_max=1.0, end=4), OneCycle(eta_max=1.0, end=20, by_epoch=False)),
    (OneCycle(eta_max=1.0, end=4, total_steps=4), OneCycle(eta_max=1.0, end=20, by_epoch=False, total_steps=20)),
    (CosineRestart(periods=(1, 2), end=4), CosineRestart(periods=(5, 10), end=20, by_epoch=False)),
    (Exponential(gamma=32.0), Exponential(gamma=2.0, by_epoch=False)),
])  # fmt: skip
def test_a_curve_stretches_with_all_it_counts(longer, expected):
    assert evolve(longer, by_epoch=True, convert_to_iter_based=True).stretched(5) == expected


def test_the_shortest_curves():
    """One step, two steps, and those whose period nobody said."""
    assert [Poly(end=2).factor(t) for t in (0, 1)] == [1, 0]
    assert Poly(end=1).factor(0) == 1
    assert [Linear(end=2, start_factor=0.5).factor(t) for t in (0, 1)] == [0.5, 1]
    assert Linear(end=1, start_factor=0.5).factor(0) == 0.5
    assert [Constant(end=2, factor_value=0.5).factor(t) for t in (0, 1)] == [0.5, 1]
    assert Constant(end=1, factor_value=0.5).factor(0) == 0.5
    assert [Cosine().factor(t) for t in (0, 1)] == [1, 0]
    assert [Cosine(eta_min=0.5).advance(1.0, 1.0, t) for t in (0, 1)] == [1, 0.5]


@pytest.mark.parametrize(("schedule", "iteration", "length", "expected"), [
    (Step(begin=2, end=5), 1, 10, None), (Step(begin=2, end=5), 2, 10, 0), (Step(begin=2, end=5), 4, 10, 2),
    (Step(begin=2, end=5), 5, 10, 2), (Step(begin=2, end=5), 99, 10, 2), (Step(begin=2), 99, 10, 97),
    (Step(begin=2, end=5, by_epoch=True), 19, 10, None), (Step(begin=2, end=5, by_epoch=True), 20, 10, 0),
    (Step(begin=2, end=5, by_epoch=True), 39, 10, 1), (Step(begin=2, end=5, by_epoch=True), 60, 10, 2),
    (Step(begin=2, end=5, by_epoch=True), 3, None, 1),
])  # fmt: skip
def test_a_step_is_counted_from_the_begin_and_held_at_the_last(schedule, iteration, length, expected):
    assert local_step(schedule, iteration, length) == expected


@pytest.mark.parametrize(("schedule", "length", "expected"), [
    (Step(begin=2, end=5), 10, (2, 5)), (Step(begin=2), 10, (2, math.inf)),
    (Step(begin=2, end=5, by_epoch=True), 10, (20, 50)), (Step(begin=2, end=5, by_epoch=True), None, (2, 5)),
])  # fmt: skip
def test_a_span_is_told_in_iterations(schedule, length, expected):
    assert span(schedule, length) == expected


FLOORED = Cosine(begin=4, end=8, T_max=4, eta_min=0.1)


@pytest.mark.parametrize(("other", "clash"), [
    (Step(end=4), False), (Step(end=5), True), (Step(begin=7), True), (Step(begin=8), False),
    (Step(begin=5, end=6), True), (Step(begin=1, end=2, by_epoch=True), False), (Step(begin=0, end=1, by_epoch=True), True),
])  # fmt: skip
def test_an_anchored_schedule_clashes_with_what_it_overlaps(other, clash):
    assert clashes([FLOORED, other], 8) is clash
    assert clashes([other, FLOORED], 8) is clash
    assert not clashes([FLOORED], 8)
    assert not clashes([evolve(FLOORED, eta_min=None), other], 8)


def test_a_cosine_that_turns_clashes_with_all_that_came_before():
    turning = Cosine(begin=10, end=20, T_max=5)
    assert clashes([turning, Step(end=3)], 1)
    assert not clashes([turning, Step(begin=20, end=30)], 1)
    assert not clashes([evolve(turning, T_max=10), Step(end=3)], 1)
    assert not clashes([Step(end=3), Step(begin=5, end=6)], 1)


@pytest.mark.parametrize(("schedules", "expected"), [
    ([Constant(end=5, factor_value=0.0), FLOORED], (0,)),
    ([FLOORED, Linear(end=5, start_factor=0.0)], (1,)),
    ([Linear(end=5, start_factor=0.1), FLOORED], ()),
    ([Constant(end=5, factor_value=0.5), FLOORED], ()),
    ([Linear(end=4, start_factor=0.0), FLOORED], ()),
    ([Linear(begin=4, end=5, start_factor=0.0), FLOORED], ()),
    ([Linear(begin=4, end=6, start_factor=0.0), FLOORED], (0,)),
    ([Linear(end=5, start_factor=0.0, param="momentum"), FLOORED], ()),
    ([Linear(end=5, start_factor=0.0), Step(end=5)], ()),
    ([Linear(end=5, start_factor=0.0), Constant(end=5, factor_value=0.0), FLOORED], (0, 1)),
])  # fmt: skip
def test_what_starts_at_zero_is_lost_in_a_recursion_of_factors(schedules, expected):
    assert lost(schedules, 1) == expected


def test_a_parameters_own_are_those_the_clock_moves():
    mine, other, watched = Step(), Step(param="momentum"), ReduceOnPlateau()
    assert own([mine, other, watched], "lr") == (mine,)
    assert own([mine, other, watched], "momentum") == (other,)


HALVED = Step(begin=30, end=41, step_size=5, gamma=0.5, by_epoch=False)
LATE = Poly(begin=5, end=8, eta_min=0.5, by_epoch=True)


@pytest.mark.parametrize("length", [4, 10, 11])
@pytest.mark.parametrize("schedules", [
    (Step(step_size=3),), (Step(begin=2, end=5, by_epoch=True),), (Cosine(end=20, T_max=19, eta_min=0.1),),
    (Cosine(begin=3, end=9, T_max=6, eta_min_ratio=0.1, by_epoch=True),), (Poly(begin=1, end=6, eta_min=0.3),),
    (OneCycle(eta_max=1.0, begin=2, end=30, total_steps=28),), (CosineRestart(periods=(3, 4), restart_weights=(1.0, 0.5), end=9, eta_min=0.1),),
    (FLOORED, Step(begin=5, step_size=2)), (Step(begin=5, step_size=2, by_epoch=True), FLOORED),
    (evolve(FLOORED, by_epoch=True), Step(begin=5, step_size=9)), (HALVED, LATE), (LATE, HALVED),
    (Constant(begin=30, end=99, factor_value=0.5), Poly(begin=2, end=3, eta_min=0.5, by_epoch=True)),
    (Linear(end=9), Step(begin=3, end=20), Exponential(begin=4, end=30, gamma=0.9)),
    (Cosine(begin=10, end=40, T_max=9), Step(end=3)),
])  # fmt: skip
def test_values_are_each_iterations_value_to_the_bit(schedules, length):
    whole = [value(schedules, 0.7, i, length) for i in range(60)]
    for start in (0, 1, 23):
        assert list(islice(values(schedules, 0.7, length, start), 60 - start)) == whole[start:]


def test_maps_that_do_not_overlap_start_where_the_last_one_ended():
    """Halved at iterations 35 and 40, then down to 0.5 in epochs 5, 6 and 7 of ten iterations."""
    assert [value((LATE, HALVED), 4.0, i, 10) for i in (29, 30, 35, 49)] == [4, 4, 2, 1]
    assert [value((LATE, HALVED), 4.0, i, 10) for i in (50, 60, 70, 99)] == [1, 0.75, 0.5, 0.5]


def test_what_has_a_closed_form_is_answered_at_once():
    far = 10**15
    assert value((Linear(end=10, start_factor=0.5), Step(begin=10, end=far, gamma=1.0)), 3.0, far, 7) == 3.0
    assert next(values((Linear(end=10), Step(begin=10, end=far, gamma=1.0)), 3.0, 7, far)) == 3.0


def test_what_turns_comes_after_or_before_in_iterations():
    turning = Cosine(begin=2, end=5, T_max=1, by_epoch=True)
    assert clashes([turning, Step(begin=5, end=10, by_epoch=False)], 10)
    later = Cosine(begin=10, end=20, T_max=5, by_epoch=False)
    assert not clashes([later, Step(begin=2, end=3, by_epoch=True)], 10)
    floored = Cosine(begin=1, end=2, T_max=1, eta_min=0.1, by_epoch=True)
    assert lost([Linear(end=5, start_factor=0.0, by_epoch=False), floored], 10) == ()
    assert lost([Linear(end=11, start_factor=0.0, by_epoch=False), floored], 10) == (0,)


def test_values_of_their_own_ignore_what_they_find_and_are_held_at_the_end():
    restart = CosineRestart(periods=(2, 2), restart_weights=(1.0, 0.5), eta_min_ratio=0.25)
    assert restart.floor(4.0) == 1.0
    assert [restart.apply(9.0, 4.0, t) for t in range(6)] == pytest.approx([4, 2.5, 2, 1.5, 1.5, 1.5])
    assert [
        restart.advance(c, 4.0, t) for t, c in ((0, 9.0), (1, 4.0), (2, 7.0), (3, 2.0), (4, 7.0), (5, 7.0))
    ] == (pytest.approx([4, 2.5, 2, 1.5, 7, 7]))
    cycle = OneCycle(eta_max=1.0, total_steps=4)
    assert cycle.advance(0.5, 9.0, 4) == cycle.advance(0.5, 9.0, 5) == 0.5
    assert cycle.advance(0.5, 9.0, 3) == cycle.apply(0.5, 9.0, 3) != 0.5
    assert OneCycle(eta_max=1.0).advance(0.5, 9.0, 1) == 0.5
    assert OneCycle(eta_max=1.0, pct_start=1.0).apply(0.5, 9.0, 0) == 1.0
