"""Plateaus against torch's own ReduceLROnPlateau, stepped on the same scores; and what is theirs of a list of schedules."""

import math

import pytest
import torch
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from flexcore.forms import Step
from flexcore.plan_training import Group
from flexcore.plateaus import PlateauState, Unwatched, begun, scale, stepped, validated
from flexcore.schedules import ReduceOnPlateau

scores = st.lists(st.sampled_from([0.5, 0.9, 0.95, 0.96, 1.0, 1.04, 1.05, 1.1, 2.0, math.nan]), max_size=25)
settings = st.builds(
    ReduceOnPlateau, rule=st.sampled_from(["less", "greater"]), factor_value=st.sampled_from([0.1, 0.5, 0.9]),
    patience=st.integers(0, 3), threshold=st.sampled_from([0.0, 1e-4, 0.04, 0.05]),
    threshold_rule=st.sampled_from(["rel", "abs"]), cooldown=st.integers(0, 3),
    min_value=st.sampled_from([0.0, 0.05, 0.3, 1.0]), eps=st.sampled_from([0.0, 1e-8, 0.05]),
)  # fmt: skip


@given(settings, scores)
def test_a_plateau_is_torchs(schedule, given_scores):
    """Two groups of their own base values, so that a floor is met by one before the other."""
    bases = (1.0, 0.3)
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": base} for base in bases])
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode={"less": "min", "greater": "max"}[schedule.rule], factor=schedule.factor_value,
        patience=schedule.patience, threshold=schedule.threshold, threshold_mode=schedule.threshold_rule,
        cooldown=schedule.cooldown, min_lr=schedule.min_value, eps=schedule.eps,
    )  # fmt: skip
    (state,) = begun([schedule], len(bases))
    for score in given_scores:
        current = [base * own for base, own in zip(bases, state.scales, strict=True)]
        state = stepped(schedule, state, score, current, 0)
        theirs.step(score)
        assert [base * own for base, own in zip(bases, state.scales, strict=True)] == pytest.approx(
            [group["lr"] for group in optimizer.param_groups], rel=1e-12
        )
        assert state.bad == theirs.num_bad_epochs
        assert state.cooldown == theirs.cooldown_counter
        assert state.best == theirs.best or (state.best is None and math.isinf(theirs.best))


def test_the_first_score_that_is_a_number_is_the_best():
    schedule, (fresh,) = ReduceOnPlateau(), begun([ReduceOnPlateau()], 1)
    assert fresh == PlateauState(scales=(1.0,), best=None, bad=0, cooldown=0)
    assert stepped(schedule, fresh, math.nan, [1.0], 0) == evolve(fresh, bad=1)
    assert stepped(schedule, fresh, math.inf, [1.0], 0) == evolve(fresh, best=math.inf)


@pytest.mark.parametrize(("done", "counts"), [(1, False), (2, True), (3, True), (4, False)])
def test_only_validations_within_its_span_count(done, counts):
    schedule = ReduceOnPlateau(begin=2, end=4)
    (fresh,) = begun([schedule], 1)
    assert stepped(schedule, fresh, 0.5, [1.0], done) == (evolve(fresh, best=0.5) if counts else fresh)
    assert stepped(evolve(schedule, end=None), fresh, 0.5, [1.0], 99).best == 0.5


MIXED = [
    Step(end=100, by_epoch=False, step_size=4, gamma=0.5),
    ReduceOnPlateau(monitor="a", patience=0, by_epoch=True, end=9, factor_value=0.5),
    ReduceOnPlateau(monitor="b", patience=0, by_epoch=False, end=8, factor_value=0.25),
    ReduceOnPlateau(monitor="b", patience=0, by_epoch=False, end=100, param="momentum", min_value=0.8),
]
GROUPS = [Group(values=(("lr", 1.0), ("momentum", 0.9))), Group(values=(("lr", 4.0), ("momentum", None)))]


def test_a_parameter_is_scaled_by_its_own_plateaus_together():
    states = [PlateauState((0.5, 0.7)), PlateauState((0.25, 0.3)), PlateauState((0.1, 0.2))]
    assert scale(MIXED, states, "lr", 0) == 0.125
    assert scale(MIXED, states, "lr", 1) == pytest.approx(0.21)
    assert scale(MIXED, states, "momentum", 1) == 0.2
    assert scale(MIXED, states, "weight_decay", 0) == 1
    assert len(begun(MIXED, 2)) == 3
    assert all(state.scales == (1.0, 1.0) for state in begun(MIXED, 2))


def test_one_validation_moves_every_plateau_by_what_it_watches():
    """Of the values planned for the next iteration: 1 and 4, halved from iteration 4 on; the first group's momentum
    may fall to 0.8, and the second has none.
    """
    watched = (evolve(state, best=0.5) for state in begun(MIXED, 2))
    worse, same = {"a": 0.9, "b": 0.9}, {"a": 0.9, "b": 0.1}
    first = validated(MIXED, tuple(watched), GROUPS, worse, epoch=1, iteration=4, epoch_length=4)
    assert [state.scales for state in first] == [(0.5, 0.5), (0.25, 0.25), (pytest.approx(0.8 / 0.9), 1.0)]
    second = validated(MIXED, first, GROUPS, same, epoch=2, iteration=8, epoch_length=4)
    assert [state.scales for state in second] == [(0.25, 0.25), (0.25, 0.25), (pytest.approx(0.8 / 0.9), 1.0)]
    assert [state.best for state in second] == [0.5, 0.5, 0.1]  # the second's span ended with iteration 7


def test_each_reduction_sees_the_value_as_it_stands():
    """Base 1, halved by a step schedule by then: one reduction to a quarter of 0.5 would pass the least value, 0.3."""
    schedules = [MIXED[0], evolve(MIXED[2], min_value=0.3), evolve(MIXED[2], min_value=0.2, end=None)]
    states = tuple(evolve(state, best=0.5) for state in begun(schedules, 1))
    after = validated(schedules, states, GROUPS[:1], {"b": 0.9}, epoch=1, iteration=4, epoch_length=4)
    assert [state.scales for state in after] == [(pytest.approx(0.6),), (pytest.approx(0.2 / 0.3),)]


def test_a_missing_metric_is_named():
    with pytest.raises(Unwatched) as caught:
        validated(MIXED, begun(MIXED, 2), GROUPS, {"a": 0.9, "c": 1.0}, epoch=1, iteration=4, epoch_length=4)
    assert (caught.value.index, caught.value.monitor, caught.value.metrics) == (2, "b", ("a", "c"))
    assert caught.value.args == ("b",)


@pytest.mark.parametrize(("rule", "kind", "threshold", "limit"), [
    ("less", "rel", 0.25, 3.0), ("less", "abs", 0.25, 3.75), ("greater", "rel", 0.25, 5.0), ("greater", "abs", 0.25, 4.25),
])  # fmt: skip
def test_how_much_better_than_four_counts(rule, kind, threshold, limit):
    schedule = ReduceOnPlateau(rule=rule, threshold=threshold, threshold_rule=kind)
    state, step = PlateauState((1.0,), best=4.0), -0.01 if rule == "less" else 0.01
    assert stepped(schedule, state, limit, [1.0], 0) == evolve(state, bad=1)
    assert stepped(schedule, state, limit - step, [1.0], 0) == evolve(state, bad=1)
    assert stepped(schedule, state, limit + step, [1.0], 0) == evolve(state, best=limit + step)


def test_after_a_reduction_none_counts_as_bad_for_a_while():
    schedule = ReduceOnPlateau(patience=1, cooldown=2, factor_value=0.5)
    states = [PlateauState((1.0, 1.0), best=1.0)]
    for _ in range(6):
        current = list(states[-1].scales)
        states.append(stepped(schedule, states[-1], 9.0, current, 0))
    assert [(state.scales[0], state.bad, state.cooldown) for state in states] == [
        (1.0, 0, 0), (1.0, 1, 0), (0.5, 0, 2), (0.5, 0, 1), (0.5, 0, 0), (0.5, 1, 0), (0.25, 0, 2),
    ]  # fmt: skip
    assert stepped(schedule, evolve(states[2], bad=1), 0.5, [1.0, 1.0], 0) == evolve(
        states[2], best=0.5, cooldown=1
    )


@pytest.mark.parametrize(("least", "eps", "current", "share"), [
    (0.0, 0.0, 1.0, 0.5), (0.75, 0.0, 1.0, 0.75), (0.5, 0.0, 1.0, 0.5), (2.0, 0.0, 1.0, 1.0), (0.0, 0.5, 1.0, 1.0),
    (0.0, 0.49, 1.0, 0.5), (0.3, 0.0, 0.4, 0.3 / 0.4), (0.0, 0.0, 0.0, 1.0), (0.1, 0.0, 0.3, 0.5),
])  # fmt: skip
def test_a_reduction_stops_at_the_least_value_and_is_not_worth_less_than_eps(least, eps, current, share):
    schedule = ReduceOnPlateau(patience=0, factor_value=0.5, min_value=least, eps=eps)
    state = PlateauState((1.0,), best=1.0)
    assert stepped(schedule, state, 9.0, [current], 0).scales == (share,)


def test_states_and_values_are_one_each():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        scale(MIXED, begun(MIXED, 2)[:1], "lr", 0)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        stepped(ReduceOnPlateau(patience=0), PlateauState((1.0, 1.0), best=1.0), 9.0, [1.0], 0)


def test_the_value_to_be_reduced_is_that_of_its_epoch():
    """Halved after each of epochs of 4 iterations: at 8 it is a quarter, of which 0.2 is the least."""
    schedules = [
        Step(end=100, by_epoch=True, step_size=1, gamma=0.5),
        ReduceOnPlateau(monitor="b", patience=0, min_value=0.2, end=99),
    ]
    states = (PlateauState((1.0,), best=0.5),)
    after = validated(schedules, states, GROUPS[:1], {"b": 0.9}, epoch=2, iteration=8, epoch_length=4)
    assert after[0].scales == (pytest.approx(0.8),)


def test_a_whole_reduction_is_the_factor_to_the_bit():
    schedule, state = ReduceOnPlateau(patience=0, factor_value=0.1), PlateauState((1.0,), best=1.0)
    assert 0.05 * 0.1 / 0.05 != 0.1
    assert stepped(schedule, state, 9.0, [0.05], 0).scales == (0.1,)
