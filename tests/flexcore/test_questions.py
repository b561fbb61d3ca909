"""What a plan answers, against lists walked whole."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import flexcore
from flexcore import Facts, Supplied
from flexcore.facts import ParameterFact
from flexcore.questions import (
    Save,
    Value,
    foreseen,
    kept,
    sample_indices,
    saves,
    validations,
    value_at,
    values_at,
    window_samples,
    with_world_size,
)
from flexcore.sampling import indices
from tests.flexcore.base import KNOWN, base, planned, validating
from tests.strategies import checkpoint

TESTING = {
    "model": "pkg:Net", "test_dataloader": {"dataset": "pkg:D", "batch_size": 5}, "test_evaluator": "pkg:M", "test_cfg": {},
}  # fmt: skip
PARAMWISE = {"optimizer": {"type": "SGD", "lr": 0.1}, "paramwise_cfg": {"bias_lr_mult": 2.0}}
WATCHING = {"type": "ReduceOnPlateauLR", "monitor": "acc"}
STEPPED = {"type": "StepLR", "step_size": 1}
UNREAD = {"optimizer": {"type": "pkg:Optimizer"}}


@pytest.mark.parametrize(("made", "reason"), [
    (lambda: flexcore.plan(TESTING, KNOWN, mode="test"), "a test plan has no optimizer"),
    (lambda: planned(KNOWN, optim_wrapper=PARAMWISE), "the groups of paramwise_cfg need the model's parameters"),
    (lambda: planned(KNOWN, optim_wrapper=UNREAD), "lr is not in the config and the optimizer has not been built"),
    (lambda: planned(launcher="pytorch", auto_scale_lr={"enable": True, "base_batch_size": 4}),
     "the LR's scale needs world_size and the batch size"),
    (lambda: planned(param_scheduler={"type": "PolyLR"}),
     "a schedule ends with the run, whose length needs train_samples"),
    (lambda: flexcore.plan(validating(param_scheduler=[STEPPED, WATCHING]), KNOWN),
     "validations of acc decide it (ReduceOnPlateau)"),
])  # fmt: skip
def test_a_value_that_does_not_exist_yet_says_why(made, reason):
    assert value_at(made()) == Value(None, reason)


def test_a_value_is_that_of_its_group_key_and_iteration():
    parameters = (ParameterFact(name="fc.weight", shape=(2, 2)), ParameterFact(name="fc.bias", shape=(2,)))
    wrapper = {**PARAMWISE, "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.8}}
    schedulers = [STEPPED, {"type": "ConstantMomentum", "factor": 0.5, "end": 2}]
    plan = planned(evolve(KNOWN, parameters=parameters), optim_wrapper=wrapper, param_scheduler=schedulers)
    assert value_at(plan) == value_at(plan, "lr", 0, 0) == Value(0.1)
    assert value_at(plan, group=1) == Value(0.2)
    assert value_at(plan, "lr", 25).value == pytest.approx(0.01)
    assert value_at(plan, "lr", 74, 1).value == pytest.approx(0.002)
    assert [value_at(plan, "momentum", i).value for i in (0, 24, 25)] == [0.4, 0.4, 0.8]
    with pytest.raises(KeyError, match="betas"):
        value_at(plan, "betas")
    with pytest.raises(IndexError):
        value_at(plan, group=2)


def test_a_plateau_leaves_other_parameters_planned():
    plan = flexcore.plan(validating(param_scheduler=[WATCHING], optim_wrapper={
        "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}}), KNOWN)  # fmt: skip
    assert value_at(plan).value is None
    steady = flexcore.plan(validating(
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        param_scheduler=[{"type": "ReduceOnPlateauMomentum", "monitor": "acc"}, STEPPED]), KNOWN)  # fmt: skip
    assert value_at(steady).value == 0.1
    assert value_at(steady, "momentum").reason == "validations of acc decide it (ReduceOnPlateau)"


CLASHING = [
    {"type": "CosineAnnealingLR", "eta_min": 0.01, "by_epoch": False},
    {**STEPPED, "by_epoch": False, "step_size": 10},
]


@pytest.mark.parametrize("schedulers", [None, [STEPPED], CLASHING, [WATCHING]])
@given(st.sets(st.integers(0, 74)).map(sorted))
def test_many_values_are_each_ones_own(schedulers, iterations):
    plan = flexcore.plan(validating(param_scheduler=schedulers), KNOWN)
    assert values_at(plan, "lr", iterations) == [value_at(plan, "lr", i).value for i in iterations]


BY_EPOCH = [{"type": "CosineAnnealingLR", "eta_min": 0.01}, {"type": "StepLR", "step_size": 2}]
MIXED = [
    {**BY_EPOCH[0], "end": 1},
    {**STEPPED, "by_epoch": False, "begin": 10},
]  # 25 iterations; from the tenth on
SEVERAL = {name: {"optimizer": {"type": "SGD", "lr": lr}} for name, lr in (("one", 0.1), ("other", 0.3))}


def test_values_of_a_recursion_are_told_in_one_walk():
    """Each alone would walk from the beginning: 2,000 of them millions of steps."""
    longer = {"train_cfg": {"by_epoch": True, "max_epochs": 4000}}
    for schedulers in (CLASHING, MIXED):
        plan = planned(KNOWN, param_scheduler=schedulers, **longer)
        many = values_at(plan, "lr", range(1000, 3000))
        assert many[::500] == [value_at(plan, "lr", i).value for i in range(1000, 3000, 500)]
        assert (len(many), values_at(plan, "lr", [])) == (2000, [])
    assert foreseen(plan, "lr", 10**6) == 100_000
    assert foreseen(plan, "lr", 99_999) == 99_999
    assert foreseen(plan, "momentum", 10**6) == foreseen(planned(KNOWN), "lr", 10**6) == 10**6


def test_values_of_a_recursion_by_epoch_of_one_of_several_or_of_no_base():
    """mmengine's cosine over the epochs 0, 1 and 2, and a tenth of it from epoch 2 on."""
    plan = planned(KNOWN, param_scheduler=BY_EPOCH)
    assert foreseen(plan, "lr", 10**6) == 100_000
    assert values_at(plan, "lr", [0, 24, 25, 74]) == [value_at(plan, "lr", i).value for i in (0, 24, 25, 74)]
    several = planned(
        evolve(KNOWN, train_step=True), optim_wrapper=SEVERAL, param_scheduler={"one": [], "other": CLASHING}
    )
    assert values_at(several, "lr", [0, 1], optimizer="one") == [0.1, 0.1]
    assert values_at(several, "lr", [0, 40], optimizer="other") == [
        0.3, value_at(several, iteration=40, optimizer="other").value,
    ]  # fmt: skip
    assert foreseen(several, "lr", 10**6, "one") == 10**6
    assert foreseen(several, "lr", 10**6, "other") == 10**5
    unread = planned(KNOWN, optim_wrapper=PARAMWISE, param_scheduler=CLASHING)
    assert values_at(unread, "lr", [0, 40]) == [None, None]


def test_a_named_optimizer_answers_for_itself():
    wrappers = {**SEVERAL, "one": {**SEVERAL["one"], "paramwise_cfg": {"bias_lr_mult": 2.0}}}
    plan = planned(evolve(KNOWN, train_step=True), optim_wrapper=wrappers)
    assert value_at(plan, optimizer="one") == Value(
        None, "the groups of paramwise_cfg need the model's parameters"
    )
    assert value_at(plan, optimizer="other") == Value(0.3)
    with pytest.raises(KeyError, match="optimizer='third': the optimizers are one, other"):
        value_at(plan, optimizer="third")
    with pytest.raises(KeyError, match="optimizer='one': there is one optimizer, without a name"):
        value_at(planned(KNOWN), optimizer="one")
    assert value_at(
        planned(KNOWN, param_scheduler={"type": "LinearLR", "by_epoch": False, "start_factor": 0.5})
    ) == Value(0.05)


def test_many_values_of_another_key_group_or_plan():
    plan = planned(KNOWN, param_scheduler=[*CLASHING, {"type": "ConstantMomentum", "factor": 0.5, "end": 2}],
                   optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.8}})  # fmt: skip
    assert values_at(plan, "momentum", [0, 50]) == [0.4, 0.8]
    watched = flexcore.plan(
        validating(
            param_scheduler=[WATCHING, {"type": "ConstantMomentum", "factor": 1.0}],
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        ),
        KNOWN,
    )
    assert (values_at(watched, "momentum", [0, 5]), values_at(watched, "lr", [0])) == ([0.9, 0.9], [None])
    assert values_at(flexcore.plan(TESTING, KNOWN, mode="test"), "lr", [0, 5]) == [None, None]
    parameters = (ParameterFact(name="fc.weight", shape=(2, 2)), ParameterFact(name="fc.bias", shape=(2,)))
    several = planned(evolve(KNOWN, parameters=parameters), optim_wrapper=PARAMWISE, param_scheduler=CLASHING)
    assert values_at(several, "lr", [3, 40], 1) == [value_at(several, "lr", i, 1).value for i in (3, 40)]
    assert values_at(several, "lr", [3, 40], 1) != values_at(several, "lr", [3, 40])


def saving(checkpoint, **changes):
    hooks = {"checkpoint": {"type": "CheckpointHook", **checkpoint}}
    return flexcore.plan(validating(default_hooks=hooks, **changes), KNOWN)


def test_saves_and_best_saves_come_as_they_are_written():
    plan = saving({"interval": 2, "save_best": ["acc", "loss"]})
    best = [
        [Save(e, 25 * e, f"best_{key}_epoch_{e}", conditional=True) for key in ("acc", "loss")]
        for e in (1, 2, 3)
    ]
    second, third = Save(2, 50, "epoch_2"), Save(3, 75, "epoch_3")
    assert list(saves(plan)) == [*best[0], second, *best[1], third, *best[2]]
    assert list(saves(plan, best=False)) == [second, third]
    every = saving({"interval": 20, "by_epoch": False, "save_last": False, "save_best": "auto"})
    assert [(save.iter, save.name, save.conditional) for save in saves(every)] == [
        (20, "iter_20", False), (25, "best_auto_epoch_1", True), (40, "iter_40", False),
        (50, "best_auto_epoch_2", True), (60, "iter_60", False), (75, "best_auto_epoch_3", True),
    ]  # fmt: skip
    assert [save.epoch for save in saves(every)] == [0, 1, 1, 2, 2, 3]


def test_saves_of_the_iteration_loop_are_named_by_iterations():
    loop = {"by_epoch": False, "max_iters": 30, "val_interval": 20}
    plan = saving({"interval": 20, "save_best": "acc"}, train_cfg=loop)
    assert list(saves(plan)) == [
        Save(0, 20, "iter_20"), Save(0, 20, "best_acc_iter_20", conditional=True),
        Save(0, 30, "iter_30"), Save(0, 30, "best_acc_iter_30", conditional=True),
    ]  # fmt: skip
    assert list(validations(plan)) == [(0, 20), (0, 30)]


def test_there_are_no_saves_without_a_length_or_a_hook():
    assert list(saves(planned())) == []
    without = planned(KNOWN, default_hooks={"checkpoint": None})
    assert (list(saves(without)), kept(without, 75)) == ([], ())
    tested = flexcore.plan(TESTING, KNOWN, mode="test")
    assert (list(saves(tested)), kept(tested, 75), list(validations(tested))) == ([], (), [])


@given(st.integers(-1, 4), st.integers(0, 75), st.integers(1, 3))
def test_what_is_kept_is_the_newest_of_what_was_saved(most, after, interval):
    plan = saving({"interval": interval, "max_keep_ckpts": most or -1, "by_epoch": True})
    names = [save.name for save in saves(plan, best=False) if save.iter <= after]
    assert list(kept(plan, after)) == (names[-most:] if most > 0 else names)


@pytest.mark.parametrize(
    ("most", "expected"),
    [(-1, ("epoch_1", "epoch_2", "epoch_3")), (1, ("epoch_3",)), (2, ("epoch_2", "epoch_3"))],
)
def test_the_newest_are_kept_oldest_first(most, expected):
    assert kept(saving({"max_keep_ckpts": most}), 75) == expected


def test_samples_from_any_one_on():
    plan = planned(KNOWN, train_dataloader={"dataset": "pkg:D", "batch_size": 7})
    whole = list(sample_indices(plan, epoch=1))
    assert sorted(whole) == list(range(100))
    assert whole != list(sample_indices(plan, epoch=0))
    for start in (0, 1, 6, 7, 8, 50, 99):
        assert list(sample_indices(plan, epoch=1, start=start)) == whole[start:]


def test_samples_of_an_endless_stream_follow_one_another():
    loader = {"dataset": "pkg:D", "batch_size": 7, "sampler": {"type": "InfiniteSampler"}}
    plan = planned(evolve(KNOWN, world_size=2), train_dataloader=loader, launcher="pytorch")
    length = plan.timeline.epoch_length
    for rank in (0, 1):
        stream = [i for batch in range(3 * length) for i in indices(plan.train.order, 0, batch, rank)]
        assert [i for epoch in range(3) for i in sample_indices(plan, epoch=epoch, rank=rank)] == stream


def test_samples_without_a_length_are_those_of_the_order():
    """A loop of unknown length still has epochs of data."""
    plan = evolve(planned(KNOWN, train_dataloader={"dataset": "pkg:D", "batch_size": 7}), timeline=None)
    assert len(list(sample_indices(plan, epoch=0))) == 100


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("sampler", ["DefaultSampler", "InfiniteSampler"])
@pytest.mark.parametrize("more", [{}, {"global_batch_size": 28}])
def test_the_samples_of_a_window_are_its_micro_batches_up_to_now(world, sampler, more):
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1}, **({} if more else {"accumulative_counts": 3})}
    plan = planned(
        evolve(KNOWN, world_size=world), launcher="pytorch", optim_wrapper=wrapper, **more,
        train_dataloader={"dataset": "pkg:D", "batch_size": 7, "sampler": {"type": sampler}},
    )  # fmt: skip
    for rank in range(world):
        whole = [tuple(sample_indices(plan, epoch=epoch, rank=rank)) for epoch in range(3)]
        stream = [i for epoch in whole for i in epoch]
        clock = plan.timeline
        for iteration in range(clock.max_iters):
            first = flexcore.timeline.window_at(clock, iteration)[0]
            before, upto = (sum(_drawn(plan, i, rank) for i in range(end)) for end in (first, iteration + 1))
            assert list(window_samples(plan, iteration, rank)) == stream[before:upto]


def _drawn(plan, iteration, rank):
    from flexcore.comparing import planned_samples

    return planned_samples(plan, iteration, rank)


def test_a_window_is_the_first_ranks_unless_another_is_named():
    plan = planned(evolve(KNOWN, world_size=2), launcher="pytorch")
    assert window_samples(plan, 3) == window_samples(plan, 3, 0) != window_samples(plan, 3, 1)


def test_no_samples_are_told_of_an_order_of_ones_own():
    assert window_samples(planned(), 0) is None
    assert window_samples(flexcore.plan(TESTING, KNOWN, mode="test"), 0) is None
    supplied = flexcore.plan(
        base(train_dataloader=Supplied()), evolve(KNOWN, train_batches=7, train_batch_size=3)
    )
    assert window_samples(supplied, 0) is None
    assert window_samples(evolve(planned(KNOWN), timeline=None), 0) is None
    assert window_samples(evolve(planned(KNOWN), batching=None), 0) is None
    with pytest.raises(ValueError, match=r"^the order is the loader's own\.$"):
        next(sample_indices(supplied, epoch=0))
    with pytest.raises(ValueError, match=r"^the order needs train_samples and a seed\.$"):
        next(sample_indices(planned(), epoch=0))


def test_another_world_size_is_another_plan_of_the_same_request():
    slurm = (("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "1"), ("SLURM_NTASKS", "4"))
    named = checkpoint(50)
    seen = evolve(KNOWN, environment=slurm, world_size=4, local_world_size=2, named_checkpoint=named)
    plan = planned(seen, launcher="slurm")
    moved = with_world_size(plan, 2)
    assert (moved.environment.world_size, moved.environment.launcher) == (2, "slurm")
    assert moved.facts == evolve(KNOWN, world_size=2, checkpoints=None)
    for launcher in (None, "pytorch"):
        moved = with_world_size(planned(KNOWN, launcher=launcher), 2)
        assert moved.facts == evolve(
            KNOWN, world_size=2, checkpoints=None, environment=(("RANK", "0"), ("WORLD_SIZE", "2"))
        )
        assert moved.environment.launcher == "pytorch"
    smoke = with_world_size(flexcore.plan(base(), KNOWN, smoke=True), 3)
    assert (smoke.smoke, smoke.mode, smoke.config) == (True, "train", flexcore.parse(base()))
    tested = with_world_size(flexcore.plan(TESTING, Facts(test_samples=(10,)), mode="test"), 2)
    assert tested.mode == "test"


def test_values_at_take_iterations_in_any_order_and_twice():
    """Also where each value takes the one before it."""
    clashing = [
        {"type": "CosineAnnealingLR", "T_max": 9, "by_epoch": False},
        {"type": "LinearLR", "by_epoch": False, "end": 9},
    ]
    plan = planned(KNOWN, param_scheduler=clashing)
    asked = (3, 0, 3, 2)
    expected = [flexcore.value_at(plan, "lr", i).value for i in asked]
    assert values_at(plan, "lr", asked) == expected
    assert values_at(plan, "lr", ()) == []
