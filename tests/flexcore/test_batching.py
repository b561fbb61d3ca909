"""micro x accumulation x ranks = global, against a predicate that tries every value."""

import re

from hypothesis import given
from hypothesis import strategies as st

import flexcore
from flexcore import Facts
from flexcore.batching import solve
from flexcore.converting import parse
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
