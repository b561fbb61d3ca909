"""The training side of a plan: its clock from loops, loaders and facts, whole."""

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts
from flexcore.sampling import Order
from flexcore.timeline import Timeline
from flexcore.training import smoked
from tests.flexcore.base import KNOWN, base, planned, told

EPOCHS = Timeline(by_epoch=True, epoch_length=25, max_epochs=3, max_iters=75)
ITERATIONS = Timeline(by_epoch=False, epoch_length=25, max_epochs=1, max_iters=60, val_interval=1000)
BY_ITERATION = {"by_epoch": False, "max_iters": 60}
LOADER = {"dataset": "pkg:D", "batch_size": 4}
OWN = {**LOADER, "sampler": "pkg:Mine"}


def wrapped(steps, tail="carry"):
    return {"optimizer": {"type": "SGD", "lr": 0.1}, "accumulative_counts": steps, "accumulation_tail": tail}


@pytest.mark.parametrize(("changes", "facts", "expected"), [
    ({}, {}, EPOCHS), ({"train_cfg": BY_ITERATION}, {}, ITERATIONS),
    ({}, {"train_samples": None}, evolve(EPOCHS, epoch_length=None, max_iters=None)),
    ({"train_cfg": BY_ITERATION}, {"train_samples": None}, evolve(ITERATIONS, epoch_length=None)),
    ({"train_dataloader": {**LOADER, "batch_size": 30}}, {}, evolve(EPOCHS, epoch_length=4, max_iters=12)),
    ({"train_dataloader": {**LOADER, "batch_size": 30, "drop_last": True}}, {}, evolve(EPOCHS, epoch_length=3, max_iters=9)),
    ({"train_dataloader": {**LOADER, "num_batch_per_epoch": 10}}, {}, evolve(EPOCHS, epoch_length=10, max_iters=30)),
    ({"train_dataloader": {**LOADER, "num_batch_per_epoch": 99}}, {}, EPOCHS),
    ({"train_dataloader": {**LOADER, "num_batch_per_epoch": 10}}, {"train_samples": None},
     evolve(EPOCHS, epoch_length=None, max_iters=None)),
    ({"train_dataloader": {**LOADER, "num_batch_per_epoch": 10}}, {"train_samples": None, "train_iterable": True},
     evolve(EPOCHS, epoch_length=10, max_iters=30)),
    ({"train_cfg": BY_ITERATION}, {"train_samples": None, "train_iterable": True}, evolve(ITERATIONS, epoch_length=None)),
    ({"train_dataloader": OWN}, {"train_batches": 7}, evolve(EPOCHS, epoch_length=7, max_iters=21)),
    ({"train_dataloader": OWN}, {}, evolve(EPOCHS, epoch_length=None, max_iters=None)),
    ({"train_dataloader": {**OWN, "num_batch_per_epoch": 5}}, {"train_batches": 7}, evolve(EPOCHS, epoch_length=5, max_iters=15)),
    ({}, {"train_batches": 7}, EPOCHS),
    ({}, {"train_samples": None, "train_batches": 7}, evolve(EPOCHS, epoch_length=None, max_iters=None)),
    ({"optim_wrapper": wrapped(7), "train_cfg": BY_ITERATION}, {}, evolve(ITERATIONS, window=7)),
    ({"optim_wrapper": wrapped(4)}, {}, evolve(EPOCHS, window=4)),
    ({"optim_wrapper": wrapped(4, "step")}, {}, evolve(EPOCHS, window=4, tail="step")),
    ({"optim_wrapper": wrapped(4, "drop")}, {}, evolve(EPOCHS, window=4, tail="drop", epoch_length=24, max_iters=72)),
    ({"optim_wrapper": wrapped(7, "drop"), "train_cfg": BY_ITERATION}, {},
     evolve(ITERATIONS, window=7, tail="drop", max_iters=56)),
    ({"optim_wrapper": wrapped(60, "drop"), "train_cfg": BY_ITERATION}, {}, evolve(ITERATIONS, window=60, tail="drop")),
    ({"global_batch_size": 8}, {}, evolve(EPOCHS, epoch_length=13, max_iters=39)),
    ({"global_batch_size": 8, "train_dataloader": {**LOADER, "drop_last": True}}, {}, evolve(EPOCHS, epoch_length=12, max_iters=36)),
    ({"train_cfg": {"by_epoch": True, "max_epochs": 3, "val_begin": 2, "val_interval": 5, "max_time": 9,
                    "dynamic_intervals": [[3, 1]]}}, {},
     evolve(EPOCHS, val_begin=2, val_interval=5, max_seconds=9.0, dynamic_intervals=((3, 1),))),
    ({"val_dataloader": LOADER, "val_evaluator": "pkg:M", "val_cfg": {}}, {}, evolve(EPOCHS, validates=True)),
    ({}, {"train_step": True}, evolve(EPOCHS, updates="model")),
    ({"optim_wrapper": {"a": wrapped(1), "b": wrapped(1)}}, {}, evolve(EPOCHS, updates="model")),
    ({"train_cfg": {"by_epoch": False, "max_iters": 0}}, {}, evolve(ITERATIONS, max_iters=0)),
    ({"global_batch_size": 8, "launcher": "pytorch"}, {"world_size": None}, evolve(EPOCHS, epoch_length=None, max_iters=None)),
    ({"train_dataloader": flexcore.Supplied(), "train_cfg": BY_ITERATION}, {"train_samples": None, "train_iterable": True},
     evolve(ITERATIONS, epoch_length=None)),
    ({"train_cfg": {"type": "pkg:Loop", "max_epochs": 2, "val_interval": 3}}, {},
     evolve(EPOCHS, max_epochs=2, max_iters=50, val_interval=3, opaque=True)),
    ({"train_cfg": {"type": "pkg:Loop", "max_iters": 50}}, {}, evolve(ITERATIONS, max_iters=50, opaque=True)),
    ({"train_cfg": {"type": "pkg:Loop"}}, {}, evolve(EPOCHS, max_epochs=1, max_iters=None, opaque=True)),
])  # fmt: skip
def test_the_clock(changes, facts, expected):
    assert planned(evolve(KNOWN, **facts), **changes).timeline == expected


def test_a_plan_without_training_has_no_clock():
    config = {"model": "pkg:N", "val_dataloader": LOADER, "val_evaluator": "pkg:M", "val_cfg": {}}
    assert flexcore.plan(config, KNOWN, mode="val").timeline is None


@pytest.mark.parametrize(("changes", "facts", "expected"), [
    ({"optim_wrapper": wrapped(61, "drop"), "train_cfg": BY_ITERATION}, {},
     ("train_cfg.max_iters: is 60, less than one accumulation window of 61, and the tail is dropped. "
     "Set max_iters to at least 61, or accumulation_tail to another than drop. [FD003]")),
    ({"optim_wrapper": wrapped(26, "drop")}, {},
     ("train_dataloader: gives epochs of no iterations: 25 micro-batches per rank, 26 an update. "
     "Lower batch_size or accumulation, or keep the short batch. [FD003]")),
    ({"train_dataloader": {**LOADER, "batch_size": 101, "drop_last": True}}, {},
     ("train_dataloader: gives epochs of no iterations: 0 micro-batches per rank, 1 an update. "
     "Lower batch_size or accumulation, or keep the short batch. [FD003]")),
    ({"global_batch_size": 104, "train_dataloader": {**LOADER, "drop_last": True}}, {},
     ("train_dataloader: gives epochs of no iterations: 0 micro-batches per rank, 26 an update. "
     "Lower batch_size or accumulation, or keep the short batch. [FD003]")),
    ({"train_dataloader": {**LOADER, "sampler": {"type": "DefaultSampler", "round_up": False}}, "launcher": "pytorch"},
     {"world_size": 3},
     ("train_dataloader.sampler.round_up: is false with 100 samples on 3 ranks: some ranks would run out first and "
     "the rest hang. Set round_up=True. [FD004]")),
    ({}, {"train_samples": None, "train_iterable": True},
     ("train_dataloader.num_batch_per_epoch: is missing, and the dataset has no length: its epochs have no end to plan. "
     "Set it to micro-batches per rank and epoch, or train by iterations: by_epoch=False. [FK012]")),
    ({"train_cfg": BY_ITERATION, "train_dataloader": {**LOADER, "sampler": {"type": "DefaultSampler"}}},
     {"train_samples": None, "train_iterable": True},
     "train_dataloader.sampler: is given, and the dataset only iterates, in an order of its own. Remove it. [FK019]"),
    ({"train_cfg": BY_ITERATION, "global_batch_size": 4}, {"train_samples": None, "train_iterable": True},
     ("global_batch_size: sets the clock to global batches, and the dataset only iterates, in an order of its own. "
     "Use accumulative_counts. [FD002]")),
    ({"train_cfg": {"type": "pkg:Loop"}, "global_batch_size": 4}, {},
     ("global_batch_size: sets the clock to global batches, and a loop of your own takes batches as it likes. "
     "Use accumulative_counts. [FD002]")),
])  # fmt: skip
def test_what_leaves_no_clock_is_told(changes, facts, expected):
    found = [text for text in told(base(**changes), evolve(KNOWN, **facts)) if "[FK025]" not in text]
    assert found == [expected]


def test_ranks_that_share_evenly_need_no_padding():
    sampler = {"type": "DefaultSampler", "round_up": False}
    for ranks, samples in ((2, 100), (1, 99)):
        facts = evolve(KNOWN, world_size=ranks, train_samples=samples)
        assert told(base(train_dataloader={**LOADER, "sampler": sampler}, launcher="pytorch"), facts) == []
    assert told(base(train_dataloader={**LOADER, "sampler": sampler}), Facts(train_samples=99)) == []


@pytest.mark.parametrize(("clock", "expected"), [
    (EPOCHS, evolve(EPOCHS, max_epochs=1, max_iters=1, epoch_length=1)),
    (evolve(EPOCHS, window=4), evolve(EPOCHS, window=4, max_epochs=1, max_iters=4, epoch_length=4)),
    (evolve(EPOCHS, window=40), evolve(EPOCHS, window=40, max_epochs=1, max_iters=25, epoch_length=25)),
    (evolve(EPOCHS, window=4, epoch_length=None, max_iters=None),
     evolve(EPOCHS, window=4, max_epochs=1, max_iters=4, epoch_length=4)),
    (evolve(ITERATIONS, window=4), evolve(ITERATIONS, window=4, max_iters=4, val_interval=1)),
    (evolve(ITERATIONS, window=99, epoch_length=50, max_iters=20),
     evolve(ITERATIONS, window=99, epoch_length=50, max_iters=20, val_interval=1)),
    (evolve(EPOCHS, val_begin=3, val_interval=2, dynamic_intervals=((2, 1),), validates=True),
     evolve(EPOCHS, max_epochs=1, max_iters=1, epoch_length=1, validates=True)),
])  # fmt: skip
def test_a_smoke_run_is_one_update_and_one_validation(clock, expected):
    assert smoked(clock) == expected


def test_schedules_last_as_long_as_the_run():
    both = [{"type": "PolyLR", "by_epoch": False}, {"type": "ExponentialLR", "gamma": 0.9}]
    found = planned(KNOWN, param_scheduler=both).schedules
    assert [(one.by_epoch, one.end) for one in found] == [(False, 75), (True, 3)]


@pytest.mark.parametrize(("schedule", "expected"), [
    ({"begin": 3}, "param_scheduler.0.begin: is epoch 3, and the run ends at 3. Begin it before the run ends. [FS001]"),
    ({"begin": 75, "by_epoch": False},
     "param_scheduler.0.begin: is iteration 75, and the run ends at 75. Begin it before the run ends. [FS001]"),
    ({"begin": 3, "end": 5},
     "param_scheduler.0.begin: is epoch 3, and the run ends at 3. Train for longer, begin it earlier or remove it. [FS007]"),
])  # fmt: skip
def test_a_schedule_begins_within_the_run(schedule, expected):
    assert told(base(param_scheduler=[{"type": "StepLR", "step_size": 1, **schedule}])) == [expected]
    late = {"type": "StepLR", "step_size": 1, **schedule}
    fine = {"type": "StepLR", "step_size": 1, "begin": 2}
    assert told(base(param_scheduler=[fine, late])) == [expected.replace(".0.", ".1.")]


def test_lists_of_several_optimizers_are_all_told():
    late = [{"type": "StepLR", "step_size": 1, "begin": 4}]
    config = base(optim_wrapper={"a": wrapped(1), "b": wrapped(1)}, param_scheduler={"a": late, "b": late})
    assert told(config) == [
        f"param_scheduler.{name}.0.begin: is epoch 4, and the run ends at 3. Begin it before the run ends. [FS001]"
        for name in "ab"
    ]


def test_a_run_of_no_length_has_no_end_to_begin_before():
    schedules = [{"type": "ConstantLR", "by_epoch": False, "end": 5}]
    assert told(base(train_cfg={"by_epoch": True, "max_epochs": 0}, param_scheduler=schedules)) == []


def test_epochs_and_iterations_meet_by_the_epochs_length():
    """From 0 at iteration 25 while the cosine goes down through epoch 1."""
    rising = {"type": "LinearLR", "start_factor": 0, "by_epoch": False, "begin": 25, "end": 50}
    falling = {"type": "CosineAnnealingLR", "eta_min": 0.1, "begin": 1, "end": 2}
    text = (
        "starts at a factor of 0 while it meets a schedule that steps from value to value: no factor leads up "
        "from 0. Start above 0, or let one end where the other begins. [FS002]"
    )
    assert told(base(param_scheduler=[rising, falling])) == [f"param_scheduler.0: {text}"]
    assert told(base(param_scheduler=[rising, {**falling, "begin": 2, "end": 3}])) == []


def test_an_order_without_a_seed_is_settled_if_it_is_not_shuffled():
    facts = Facts(train_samples=100, world_size=1)
    still, moved = (
        planned(facts, randomness=None, train_dataloader={**LOADER, "sampler": {"type": "DefaultSampler", "shuffle": shuffle}})
        for shuffle in (False, True)
    )  # fmt: skip
    assert still.train.order == Order(samples=100, shuffle=False, seed=0, world_size=1, micro_batch_size=4)
    assert moved.train.order is None
