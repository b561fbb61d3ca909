"""Laws of every plan over jobs of the whole vocabulary, each against an oracle that steps, sorts or counts by hand."""

import hashlib
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import attrs
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

import flexcore
from flexcore import CheckpointFact, ConfigError, Facts, HookFact, Plan
from flexcore.converting import dump, parse
from flexcore.hooks import PRIORITIES, STAGES
from flexcore.plan_files import trajectory
from tests.flexcore.test_laws import reordered
from tests.flexcore.test_timeline import checked, saved
from tests.strategies import jobs

SHORT = 400  # iterations a brute-force loop is stepped through


def made(config, facts, **more):
    try:
        return flexcore.plan(config, facts, **more)
    except ConfigError as error:
        return tuple(str(problem) for problem in error.problems)


@st.composite
def plans(draw, known=False):
    """Jobs that are accepted, planned. known: with every fact the length and the samples of a run need."""
    config, facts = draw(jobs())
    if known:
        own = {
            "train_samples": facts.train_samples or 70,
            "world_size": facts.world_size or 1,
            "entropy": facts.entropy or 9,
        }
        facts = evolve(facts, **own)
    plan = made(config, facts)
    assume(isinstance(plan, Plan))
    return plan


@given(jobs(), st.randoms(use_true_random=False))
def test_the_order_of_keys_means_nothing(job, draw):
    config, facts = job
    one, other = made(config, facts), made(reordered(config, draw, 2), facts)
    if isinstance(one, Plan):
        assert (one.plan_digest, one.trajectory_digest) == (other.plan_digest, other.trajectory_digest)
    else:
        assert sorted(one) == sorted(other)


@given(jobs())
def test_a_config_is_the_same_once_written_and_so_is_its_plan(job):
    config, facts = job
    try:
        parsed = parse(config)
    except ConfigError:
        assert not isinstance(made(config, facts), Plan)
        return
    again = parse(dump(parsed))
    assert again == parsed
    one, other = made(parsed, facts), made(config, facts)
    assert made(again, facts) == one
    assert (
        other == one if isinstance(one, Plan) else sorted(other) == sorted(one)
    )  # in the order of the keys given


@given(plans())
def test_a_plan_is_the_same_once_written(plan):
    text = plan.to_json()
    again = Plan.from_json(text)
    assert (again, again.to_json(), str(again)) == (plan, text, str(plan))
    assert (again.plan_digest, again.trajectory_digest) == (plan.plan_digest, plan.trajectory_digest)


@given(plans())
def test_micro_times_accumulation_times_ranks_is_the_global_batch(plan):
    batch = plan.batching
    parts = (batch.micro_batch_size, batch.gradient_accumulation_steps, batch.data_parallel_size)
    if None not in parts:
        assert parts[0] * parts[1] * parts[2] == batch.global_batch_size
    assert batch.per_iteration == (1 if batch.clock == "micro" else parts[1] or 1)
    assert plan.timeline.window == (parts[1] or 1 if batch.clock == "micro" else 1)


@given(plans(known=True))
def test_the_samples_of_an_epoch_are_those_a_loop_over_the_dataset_deals(plan):
    """Every rank, every micro-batch, one after another, from the order written out as a list."""
    order, clock, batch = plan.train.order, plan.timeline, plan.batching
    assume(order is not None and clock.epoch_length and not order.endless)
    world, n = batch.data_parallel_size, order.samples
    whole = sorted(range(n), key=_place_in(plan, n))
    per_epoch = clock.epoch_length * batch.per_iteration
    for rank in range(world):
        if order.contiguous:
            size = batch.micro_batch_size
            dealt = [
                whole[((at * world + rank) * size + k) % n] for at in range(per_epoch) for k in range(size)
            ]
        else:
            padded = [whole[i % n] for i in range(-(-n // world) * world)]
            dealt = padded[rank::world][: per_epoch * batch.micro_batch_size]
        assert list(flexcore.sample_indices(plan, epoch=2, rank=rank)) == dealt
    used = {i for rank in range(world) for i in flexcore.sample_indices(plan, epoch=2, rank=rank)}
    assert len(used) == n - batch.dropped or batch.dropped == 0


def _place_in(plan, n):
    """The position of each index in epoch 2, read off a single rank that takes one sample at a time."""
    order = evolve(
        plan.train.order, world_size=1, micro_batch_size=1, accumulation=1, contiguous=False, drop_last=False
    )
    from flexcore.sampling import indices

    place = {indices(order, 2, position, 0)[0]: position for position in range(n)}
    assert sorted(place) == list(range(n))
    return place.__getitem__


@given(plans(known=True))
def test_validations_and_saves_are_those_of_a_loop_that_steps(plan):
    clock = plan.timeline
    assume(clock.max_iters is not None and clock.max_iters <= SHORT)
    length = clock.epoch_length if clock.by_epoch else 1
    expected = [(done if clock.by_epoch else 0, done * length) for done in checked(clock)]
    assert list(flexcore.validations(plan)) == expected
    if plan.saving is not None and (clock.by_epoch or not plan.saving.points.by_epoch):
        found = [(save.name, save.iter) for save in flexcore.saves(plan, best=False)]
        assert found == [
            (plan.saving.template.format(units), at) for units, at in saved(clock, plan.saving.points)
        ]


@given(plans(known=True), st.data())
def test_the_checkpoints_that_stand_are_those_of_a_list_that_is_cut(plan, data):
    clock = plan.timeline
    assume(plan.saving is not None and clock.max_iters is not None and clock.max_iters <= SHORT)
    done = data.draw(st.integers(0, clock.max_iters))
    standing = []
    for save in flexcore.saves(plan, best=False):
        if save.iter <= done:
            standing.append(save.name)
            if plan.saving.max_keep > 0:
                del standing[: -plan.saving.max_keep]
    assert list(flexcore.kept(plan, done)) == standing


@given(plans(known=True), st.data())
def test_a_run_resumed_anywhere_has_the_events_that_were_left(plan, data):
    """Events of a run of N: those before k, and those of its resume at k with the same N."""
    clock = plan.timeline
    assume(plan.mode == "train" and clock.max_iters is not None and 0 < clock.max_iters <= SHORT)
    points = [save.iter for save in flexcore.saves(plan, best=False)]
    assume(points)
    at = data.draw(st.sampled_from(points))
    fact = CheckpointFact(path="w/k", name="k", epoch=clock.epoch_of(at), iter=at, validated=True,
                          trajectory=trajectory(plan))  # fmt: skip
    config = evolve(plan.config, resume=True, load_from=None)
    resumed = flexcore.plan(config, evolve(plan.facts, checkpoints=(fact,)))
    assert resumed.start.iter == at
    assert evolve(resumed, start=plan.start, config=plan.config, facts=plan.facts, notices=plan.notices,
                  unresolved=plan.unresolved) == plan  # fmt: skip
    from flexcore import timeline as arithmetic

    after = list(arithmetic.saves(resumed.timeline, resumed.saving.points, at))
    before = (
        [save for save in saved(clock, plan.saving.points) if save[1] <= at] if _countable(plan) else None
    )
    if before is not None:
        assert before + after == saved(clock, plan.saving.points)
    units = clock.epoch_of(at) if clock.by_epoch else at
    left = [done for done in checked(clock) if done > units]
    length = clock.epoch_length if clock.by_epoch else 1
    assert list(arithmetic.validations(clock, units)) == [
        (d if clock.by_epoch else 0, d * length) for d in left
    ]


def _countable(plan):
    return plan.timeline.by_epoch or not plan.saving.points.by_epoch


@given(jobs(), st.lists(st.sampled_from([*PRIORITIES, None, 0, 50, 70, 100]), max_size=3))
def test_hooks_run_in_the_order_of_a_stable_sort(job, own):
    config, facts = job
    custom = config.get("custom_hooks") or []
    seen = tuple(HookFact(place=i, stages=STAGES[:2], priority=p) for i, p in enumerate(own[: len(custom)])
                 if ":" in custom[i]["type"])  # fmt: skip
    plan = made(config, evolve(facts, hooks=seen))
    assume(isinstance(plan, Plan))
    number = {
        "runtime_info": 10,
        "timer": 50,
        "sampler_seed": 50,
        "logger": 60,
        "param_scheduler": 70,
        "checkpoint": 90,
    }
    slots = dict.fromkeys(number)
    slots.update(config.get("default_hooks") or {})
    removed = {key for key, hook in (config.get("default_hooks") or {}).items() if hook is None}
    places = [*(key for key in slots if key not in removed), *range(len(custom))]

    def priority(place):
        hook = slots[place] if isinstance(place, str) else custom[place]
        given = (hook or {}).get("priority")
        if given is None and isinstance(place, int) and place < len(own) and ":" in hook["type"]:
            given = own[place]
        if given is None and hook is not None and ":" not in hook["type"]:
            given = {"EarlyStoppingHook": 100, "NaNGuardHook": 40, "ProfilerHook": 90, "LoggerHook": 60,
                     "CheckpointHook": 90}.get(hook["type"])  # fmt: skip
        if given is None and hook is None:
            given = number[place]
        return 50 if given is None else PRIORITIES[given] if isinstance(given, str) else given

    assert [hook.place for hook in plan.hooks] == sorted(places, key=priority)


@given(plans())
def test_what_is_unknown_is_listed_and_nothing_else(plan):
    listed = {unknown.field for unknown in plan.unresolved}
    assert ("timeline.epoch_length" in listed) == (plan.timeline.epoch_length is None)
    assert ("environment.seed" in listed) == (plan.environment.seed is None)
    assert ("environment.world_size" in listed) == (plan.environment.world_size is None)
    assert all(attrs.fields_dict(Facts).get(unknown.fact) for unknown in plan.unresolved)


@given(plans())
def test_a_plan_is_no_larger_for_a_longer_run(plan):
    key = "max_epochs" if plan.timeline.by_epoch else "max_iters"
    longer = made(evolve(plan.config, train_cfg=evolve(plan.config.train_cfg, **{key: 10**9})), plan.facts)
    assume(isinstance(longer, Plan))
    assert len(longer.to_json()) < len(plan.to_json()) + 300
    list(islice(flexcore.saves(longer), 3))
    assert str(longer)


PROGRAM = """
import sys; sys.path.insert(0, sys.argv[1])
import hashlib, re, flexcore
from tests.fuzz_inputs import input_of
told = hashlib.sha256()
for i in range(300):
    given = input_of(77, i)
    if given.kind != "config":
        continue
    try:
        plan = flexcore.plan(given.value, given.facts, mode=given.mode, smoke=given.smoke)
        told.update((str(plan) + plan.plan_digest + plan.trajectory_digest).encode("utf-8", "backslashreplace"))
    except flexcore.ConfigError as error:
        text = re.sub("at 0x[0-9a-f]+", "", str(error))  # where a live object stands is no plain data
        told.update(text.encode("utf-8", "backslashreplace"))
print(told.hexdigest())
"""


def test_the_hash_seed_means_nothing_to_any_config():
    root = str(Path(__file__).parents[2])
    told = {
        subprocess.run([sys.executable, "-c", PROGRAM, root], env={**os.environ, "PYTHONHASHSEED": seed},
                       capture_output=True, text=True, check=True).stdout
        for seed in ("0", "4711")
    }  # fmt: skip
    assert len(told) == 1
    assert len(told.pop().strip()) == len(hashlib.sha256().hexdigest())
