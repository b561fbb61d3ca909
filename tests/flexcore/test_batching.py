"""micro x accumulation x ranks = global, against a predicate that tries every value."""

import re

import attrs
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import flexcore
from flexcore import Facts
from flexcore.batching import counted, eval_order, is_opaque, micro_batch_size, settled, solve, train_order
from flexcore.components import Component, Supplied
from flexcore.config import Config, DataLoader, DefaultSampler, InfiniteSampler, NamedLoader
from flexcore.converting import parse
from flexcore.plan_training import Batching
from flexcore.sampling import Order
from tests.flexcore.base import base, planned

sizes = st.none() | st.integers(1, 12)


def asked(micro, steps, total):
    wrapper = {
        "optimizer": {"type": "SGD", "lr": 0.1},
        **({} if steps is None else {"accumulative_counts": steps}),
    }
    return parse({"optim_wrapper": wrapper, **({} if total is None else {"global_batch_size": total})})


def solutions(micro, steps, total, ranks):
    """Every (micro, steps, global) that agrees with what is given; unsaid steps are 1 without a global batch."""
    if total is None:
        return [(micro, steps or 1, micro * (steps or 1) * ranks)]
    return [
        (m, s, m * s * ranks)
        for m in ([micro] if micro else range(1, total + 1))
        for s in ([steps] if steps else range(1, total + 1))
        if m * s * ranks == total
    ]


@given(st.integers(1, 12), sizes, st.none() | st.integers(1, 60), st.integers(1, 5))
def test_two_of_three_fix_the_third_or_there_is_none(micro, steps, total, ranks):
    batching, problems = solve(asked(micro, steps, total), micro, ranks)
    expected = solutions(micro, steps, total, ranks)
    got = (
        []
        if batching is None
        else [(batching.micro_batch_size, batching.gradient_accumulation_steps, batching.global_batch_size)]
    )
    assert got == expected
    assert bool(problems) == (not expected)


@given(st.integers(1, 8), st.integers(1, 60), st.integers(1, 5))
def test_accumulation_and_global_fix_the_micro_batch(steps, total, ranks):
    batching, problems = solve(asked(None, steps, total), None, ranks)
    expected = solutions(None, steps, total, ranks)
    assert ([] if batching is None else [(batching.micro_batch_size, steps, total)]) == expected
    assert bool(problems) == (not expected)


@given(st.integers(1, 12), sizes, st.integers(1, 60), st.integers(1, 5))
def test_the_nearest_valid_values_named_are_valid(micro, steps, total, ranks):
    _, problems = solve(asked(micro, steps, total), micro, ranks)
    for problem in problems:
        named = [int(text) for text in re.findall(r"\d+", problem.remedy)]
        assert named
        for value in named:
            assert solve(asked(micro, steps, value), micro, ranks)[1] == []


def test_unknown_ranks_leave_the_accumulation_open():
    made = planned(global_batch_size=64, launcher="pytorch")
    assert made.batching.gradient_accumulation_steps is None
    assert made.timeline.epoch_length is None
    assert ("batching.gradient_accumulation_steps", "world_size") in [
        (u.field, u.fact) for u in made.unresolved
    ]
    assert "? (needs world_size) accumulation" in str(made)


@given(st.integers(50, 90), st.integers(1, 6), st.sampled_from([1, 2, 4]), st.booleans(), st.none() | st.integers(2, 9),
       st.sampled_from(["carry", "step", "drop"]), st.booleans())  # fmt: skip
def test_dropped_and_repeated_are_counted_as_the_indices_say(n, micro, world, drop_last, limit, tail, whole):
    config = base(
        optim_wrapper={
            "optimizer": {"type": "SGD", "lr": 0.1},
            "accumulation_tail": tail,
            "accumulative_counts": 2,
        }
    )
    config["train_dataloader"] |= {"batch_size": micro, "drop_last": drop_last, "num_batch_per_epoch": limit}
    if whole:
        config["global_batch_size"] = 2 * micro * world
    facts = Facts(world_size=world, train_samples=n, entropy=3)
    made = flexcore.plan(config, facts)
    seen = [i for rank in range(world) for i in flexcore.sample_indices(made, epoch=1, rank=rank)]
    assert made.batching.dropped == n - len(set(seen))
    assert made.batching.repeated == len(seen) - len(set(seen))


def test_an_endless_stream_drops_and_repeats_nothing():
    made = planned(Facts(world_size=1, train_samples=10, entropy=1),
                   train_dataloader={"dataset": "pkg:D", "batch_size": 4, "sampler": {"type": "InfiniteSampler"}})  # fmt: skip
    assert (made.batching.dropped, made.batching.repeated) == (0, 0)
    first, second = (list(flexcore.sample_indices(made, epoch=epoch)) for epoch in (0, 1))
    assert sorted((first + second)[:10]) == list(range(10))


@pytest.mark.parametrize(("micro", "steps", "total", "ranks", "expected"), [
    (4, None, None, 2, (4, 1, 8, 2, "micro", 1)),
    (4, 3, None, 2, (4, 3, 24, 2, "micro", 1)),
    (None, 3, None, 2, (None, 3, None, 2, "micro", 1)),
    (4, 3, None, None, (4, 3, None, None, "micro", 1)),
    (4, None, 24, 2, (4, 3, 24, 2, "global", 3)),
    (4, 3, 24, 2, (4, 3, 24, 2, "global", 3)),
    (None, 3, 24, 2, (4, 3, 24, 2, "global", 3)),
    (None, None, 24, 2, (None, None, 24, 2, "global", 1)),
    (4, None, 24, None, (4, None, 24, None, "global", 1)),
    (4, 3, 24, None, (4, 3, 24, None, "global", 3)),
    (None, 3, 24, None, (None, 3, 24, None, "global", 3)),
])  # fmt: skip
@pytest.mark.parametrize("tail", ["carry", "step", "drop"])
def test_the_whole_identity(micro, steps, total, ranks, expected, tail):
    """(micro, accumulation, global, ranks, clock, per iteration) with what is given and what follows from it."""
    config = asked(micro, steps, total)
    config = evolve(config, optim_wrapper=evolve(config.optim_wrapper, accumulation_tail=tail))
    names = ("micro_batch_size", "gradient_accumulation_steps", "global_batch_size", "data_parallel_size", "clock",
             "per_iteration")  # fmt: skip
    found = solve(config, micro, ranks)
    assert found == (Batching(tail=tail, **dict(zip(names, expected, strict=True))), [])
    assert not any(isinstance(value, float) for value in attrs.astuple(found[0]))


def test_without_an_optimizer_every_micro_batch_is_whole():
    assert solve(Config(), 4, 2)[0] == Batching(
        micro_batch_size=4, gradient_accumulation_steps=1, global_batch_size=8, data_parallel_size=2,
        clock="micro", per_iteration=1, tail="carry",
    )  # fmt: skip


THINGS = Component(type="pkg:Things")


def test_the_micro_batch_is_the_loaders_else_its_batch_samplers_else_what_was_seen():
    seen = Facts(train_batch_size=9)
    written = Component(
        type="pkg:Batches", kwargs=parse({"model": {"type": "a:B", "batch_size": 7}}).model.kwargs
    )
    unwritten = Component(type="pkg:Batches")
    for loader, expected in [
        (Supplied(), 9),
        (DataLoader(dataset=THINGS), None),
        (DataLoader(dataset=THINGS, batch_size=5), 5),
        (DataLoader(dataset=THINGS, batch_size=5, batch_sampler=written), 5),
        (DataLoader(dataset=THINGS, batch_sampler=written), 7),
        (DataLoader(dataset=THINGS, batch_sampler=unwritten), 9),
    ]:
        assert micro_batch_size(loader, seen) == expected


OPAQUE = [
    DataLoader(dataset=THINGS, batch_size=5, batch_sampler=THINGS),
    DataLoader(dataset=THINGS, batch_size=5, sampler=THINGS),
]
KNOWN_BATCHING = Batching(
    micro_batch_size=4, gradient_accumulation_steps=3, global_batch_size=24, data_parallel_size=2, clock="global",
    per_iteration=3, tail="carry",
)  # fmt: skip


def test_an_order_is_ones_own_with_a_supplied_loader_or_a_sampler_of_ones_own():
    assert is_opaque(Supplied())
    assert all(map(is_opaque, OPAQUE))
    for sampler in (None, DefaultSampler(), InfiniteSampler()):
        assert not is_opaque(DataLoader(dataset=THINGS, sampler=sampler))


@pytest.mark.parametrize(("sampler", "drop_last", "clock"), [
    (None, False, "micro"), (DefaultSampler(shuffle=False), True, "micro"), (DefaultSampler(seed=11), False, "global"),
    (InfiniteSampler(shuffle=False, seed=0), True, "global"), (InfiniteSampler(), False, "micro"),
])  # fmt: skip
def test_how_training_samples_are_dealt(sampler, drop_last, clock):
    loader = DataLoader(dataset=THINGS, batch_size=4, sampler=sampler, drop_last=drop_last)
    batching = evolve(KNOWN_BATCHING, clock=clock)
    own = sampler or DefaultSampler()
    assert train_order(loader, batching, 50, 5) == Order(
        samples=50, shuffle=own.shuffle, seed=5 if own.seed is None else own.seed, drop_last=drop_last,
        endless=isinstance(own, InfiniteSampler), contiguous=clock == "global", padded=True,
        world_size=2, micro_batch_size=4, accumulation=3,
    )  # fmt: skip


@pytest.mark.parametrize("loader", OPAQUE)
def test_no_order_is_told_of_what_is_ones_own(loader):
    assert train_order(loader, KNOWN_BATCHING, 50, 5) is None
    assert eval_order(NamedLoader(loader=loader), 50, 2, 5) is None


def test_no_order_is_told_before_the_batch_identity_is_solved():
    loader = DataLoader(dataset=THINGS, batch_size=4)
    assert train_order(loader, evolve(KNOWN_BATCHING, micro_batch_size=None), 50, 5) is None
    assert train_order(loader, evolve(KNOWN_BATCHING, data_parallel_size=None), 50, 5) is None
    assert eval_order(NamedLoader(loader=Supplied()), 50, 2, 5) is None


@pytest.mark.parametrize(("sampler", "size", "drop_last"), [
    (None, None, False), (DefaultSampler(), 5, True), (DefaultSampler(shuffle=False, seed=0), 1, False),
])  # fmt: skip
def test_how_evaluation_samples_are_dealt(sampler, size, drop_last):
    loader = DataLoader(dataset=THINGS, batch_size=size, sampler=sampler, drop_last=drop_last)
    own = sampler or DefaultSampler(shuffle=False)
    assert eval_order(NamedLoader(loader=loader), 50, 2, 5) == Order(
        samples=50, shuffle=own.shuffle, seed=5 if own.seed is None else own.seed, drop_last=drop_last,
        padded=False, endless=False, contiguous=False, world_size=2, micro_batch_size=size or 1, accumulation=1,
    )  # fmt: skip


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("own", [None, 0, 3])
def test_an_order_waits_for_its_seed_alone(shuffle, seed, own):
    order = Order(samples=9, shuffle=shuffle, seed=0, world_size=1, micro_batch_size=1)
    loader = DataLoader(dataset=THINGS, sampler=DefaultSampler(shuffle=shuffle, seed=own))
    waits = shuffle and seed is None and own is None
    assert settled(order, loader, seed) == (None if waits else order)
    assert settled(None, loader, seed) is None


def test_an_order_of_a_supplied_loader_or_the_usual_sampler_waits_for_the_runs_seed():
    order = Order(samples=9, shuffle=True, seed=0, world_size=1, micro_batch_size=1)
    for loader in (Supplied(), DataLoader(dataset=THINGS)):
        assert settled(order, loader, None) is None
        assert settled(order, loader, 0) == order


@pytest.mark.parametrize(("changes", "micro_batches", "dropped", "repeated"), [
    ({}, 3, 0, 2),  # 22 samples for 3 ranks: 8 each, of which the third batch holds 2, and the pads repeat
    ({}, 2, 4, 0),
    ({"drop_last": True}, 2, 4, 0),
    ({"contiguous": True}, 3, 0, 5),
    ({"contiguous": True, "drop_last": True}, 2, 4, 0),
    ({"endless": True}, 3, 0, 0),
    ({"samples": 18}, 2, 0, 0),
])  # fmt: skip
def test_what_an_epoch_drops_and_repeats(changes, micro_batches, dropped, repeated):
    order = evolve(Order(samples=22, shuffle=False, seed=0, world_size=3, micro_batch_size=3), **changes)
    assert counted(KNOWN_BATCHING, order, micro_batches) == evolve(
        KNOWN_BATCHING, dropped=dropped, repeated=repeated
    )
