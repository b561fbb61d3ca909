"""Loops of the user's own: what a plan says of them, and what it says it cannot."""

import pytest
from attrs import evolve

import flexcore
from flexcore.comparing import OWN_LOOPS, Segment, compared
from flexcore.components import Component, freeze
from flexcore.log_points import next_log
from flexcore.loops import OwnTrainLoop
from flexcore.questions import Undecided, window_samples
from flexcore.timeline import SavePoints, due_after_epoch
from tests.flexcore.base import KNOWN, base, told, validating

LOOP = {"type": "pkg.loops:Mine", "max_epochs": 3, "warm": True}


def own(**more):
    return flexcore.plan(validating(**{"train_cfg": LOOP, **more}), KNOWN)


def test_lint_takes_a_loop_by_import_path_and_imports_nothing():
    assert told(validating(train_cfg=LOOP, val_cfg={"type": "pkg.loops:Look", "shift": 1})) == []


def test_its_lengths_are_the_schedules():
    """25 iterations an epoch, three epochs; a loop that says nothing leaves schedules that end with the run open."""
    cosine = [{"type": "CosineAnnealingLR", "by_epoch": False}]
    plan = own(param_scheduler=cosine)
    assert (plan.timeline.opaque, plan.timeline.by_epoch) == (True, True)
    assert (plan.timeline.max_epochs, plan.timeline.epoch_length, plan.timeline.max_iters) == (3, 25, 75)
    known = flexcore.plan(validating(param_scheduler=cosine), KNOWN)
    for i in (0, 10, 74):
        assert flexcore.value_at(plan, "lr", i) == flexcore.value_at(known, "lr", i)
    by_iter = own(train_cfg={"type": "pkg:L", "max_iters": 40}, param_scheduler=cosine)
    assert (by_iter.timeline.by_epoch, by_iter.timeline.max_iters) == (False, 40)
    assert by_iter.schedules[0].end == 40
    silent = own(train_cfg={"type": "pkg:L"}, param_scheduler=cosine)
    assert (silent.timeline.max_iters, silent.schedules) == (None, None)
    assert own(train_cfg={"type": "pkg:L"}).schedules == ()


@pytest.mark.parametrize("ask", [
    flexcore.validations, flexcore.saves, lambda plan: flexcore.kept(plan, 50),
    lambda plan: list(flexcore.sample_indices(plan, epoch=0)),
], ids=["validations", "saves", "saves, kept", "samples"])  # fmt: skip
def test_what_the_loop_decides_is_no_plan(ask, request):
    """A typed answer at once, which names the loop; not an empty one."""
    what = request.node.callspec.id.partition(",")[0]
    with pytest.raises(Undecided) as caught:
        ask(own())
    assert str(caught.value) == f"{what} are not planned: pkg.loops:Mine decides them as it runs."


def test_a_window_of_a_loop_of_ones_own_holds_nobody_knows_what():
    assert window_samples(own(), 3) is None


def test_the_plan_says_so():
    text = flexcore.explain(own(default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 2}}))
    for line in (
        "loop         pkg.loops:Mine(max_epochs=3, warm=True)",
        "length       as its loop decides; schedules take it for 3 epochs x 25 iterations = 75 iterations",
        "validates    when its loop asks",
        "saves        every 2 epochs that its loop ends, at the end",
        "keeps        all",
        (
            "info         train_cfg.type: is a loop of your own: when it validates, ends an epoch and ends is not planned, "
            "nor compared. Use by_epoch=True or False for a run planned whole. [FK025]"
        ),
    ):
        assert line in text.splitlines()
    silent = own(train_cfg={"type": "pkg:L"}, default_hooks={"checkpoint": None}, val_cfg={"type": "pkg:V"})
    text = flexcore.explain(silent)
    assert "length       as its loop decides\n" in text
    assert "             by a loop of its own, pkg:V()\n" in text
    assert "saves" not in text
    never = {"checkpoint": {"type": "CheckpointHook", "interval": -1, "save_last": False, "save_best": "acc"}}
    counted = flexcore.explain(own(train_cfg={"type": "pkg:L", "max_iters": 40}, default_hooks=never))
    assert "length       as its loop decides; schedules take it for 40 iterations\n" in counted
    assert "saves        never\n" in counted


def test_a_loop_survives_the_round_trip():
    plan = own(test_dataloader={"dataset": "pkg:D", "batch_size": 1}, test_evaluator="pkg:M",
               test_cfg={"type": "pkg:T", "deep": {"a": (1, 2)}})  # fmt: skip
    assert flexcore.Plan.from_json(plan.to_json()) == plan
    assert flexcore.parse(flexcore.dump(plan.config)) == plan.config


def test_another_loop_is_another_trajectory():
    assert own().trajectory_digest != own(train_cfg={**LOOP, "type": "pkg.loops:Other"}).trajectory_digest
    assert dict(flexcore.plan_files.trajectory(own()))["loop"] == '"pkg.loops:Mine"'


WRONG = {
    "a length": ({"train_cfg": {**LOOP, "max_epochs": 0}}, [
        ("train_cfg.max_epochs: is the length that schedules are planned for, so it must be at least 1, got 0. "
        "Correct the value, or rename the argument. [FK020]")]),
    "no number": ({"train_cfg": {"type": "pkg:L", "max_iters": "many"}}, [
        ("train_cfg.max_iters: is the length that schedules are planned for, so it must be at least 1, got 'many'. "
        "Correct the value, or rename the argument. [FK020]")]),
    "both": ({"train_cfg": {**LOOP, "max_iters": 9}}, [
        "train_cfg.max_iters: is given with max_epochs, and schedules can be planned for one length. Keep one of them. [FK019]"]),
    "two ways": ({"train_cfg": {**LOOP, "by_epoch": True}}, [
        'train_cfg: has both "type" and "by_epoch". Keep one of them. [FK019]']),
    "a registry": ({"train_cfg": {"type": "MyLoop"}}, [
        ("train_cfg.type: 'MyLoop' is not a known training loop. Known: EpochBasedTrainLoop, IterBasedTrainLoop, or "
        '"pkg.module:Name". [FK013]')]),
    "an evaluation": ({"train_cfg": {"type": "ValLoop"}}, [
        ("train_cfg.type: 'ValLoop' is not a known training loop. Known: EpochBasedTrainLoop, IterBasedTrainLoop, or "
        '"pkg.module:Name". [FK013]')]),
    "a registry's validation": ({"val_cfg": {"type": "MyVal"}}, [
        "val_cfg.type: 'MyVal' is not a known validation loop. Known: ValLoop, or \"pkg.module:Name\". [FK013]"]),
    "global batches": ({"train_cfg": LOOP, "global_batch_size": 8}, [
        ("global_batch_size: sets the clock to global batches, and a loop of your own takes batches as it likes. "
        "Use accumulative_counts. [FD002]")]),
    "a dump": ({"val_cfg": {"type": "pkg:V"}, "val_evaluator": {"type": "DumpResults", "out_file_path": "p"}}, [
        ("val_evaluator.0.out_file_path: asks for predictions to be written, and val_cfg evaluates by a loop of its own. "
        "Remove it, and write them in the loop. [FK019]")]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_loop_is_told(name):
    changes, expected = WRONG[name]
    assert told(validating(**changes)) == expected


def test_saves_and_log_lines_of_a_loop_that_counts_for_itself():
    """Epochs by the number that ended; iterations without end, whatever length was told."""
    points = SavePoints(interval=3, by_epoch=True, save_begin=2)
    assert [e for e in range(12) if due_after_epoch(points, e)] == [2, 5, 8, 11]
    assert not due_after_epoch(evolve(points, interval=0), 3)
    assert not due_after_epoch(evolve(points, by_epoch=False), 2)
    plan = own()
    assert flexcore.timeline.next_save(plan.timeline, points, 0) is None
    every = SavePoints(interval=30, by_epoch=False)
    assert list(iter_saves(plan.timeline, every, 100)) == [30, 60, 90, 120]
    assert next_log(plan.timeline, plan.logging, 74) == 80
    assert next_log(plan.timeline, evolve(plan.logging, interval=None), 74) is None


def iter_saves(clock, points, upto):
    at = 0
    while at < upto:
        _, at = flexcore.timeline.next_save(clock, points, at)
        yield at


def test_what_is_planned_is_compared_and_the_rest_is_named():
    """Another LR is a difference; a validation anywhere, a save, a batch of any size and the end are not."""
    plan = own()
    steps = tuple((i, 0.1, 99) for i in range(7))
    events = (
        {"event": "validate", "iter": 3, "epoch": 0, "metrics": {"acc": 1.0}},
        {"event": "save", "iter": 5, "name": "mine", "best": False, "planned": True},
        {"event": "stop", "reason": "done", "iter": 7},
    )
    segment = Segment(plan=plan, resumed=0, validated=False, steps=steps, events=events)
    found = compared([segment])
    assert (found.differences, found.finished, found.unplanned) == ((), True, OWN_LOOPS)
    odd = evolve(segment, steps=(*steps[:3], (3, 0.2, 99), *steps[4:]))
    assert [str(d) for d in compared([odd]).differences] == ["lr at iteration 3: planned 0.1, was 0.2"]


def test_checkpoints_of_an_own_iteration_loop_fall_back_on_its_val_interval():
    for args, interval in (({"val_interval": 7}, 7), ({}, 1000)):
        plan = own(train_cfg={"type": "pkg:L", "max_iters": 40, **args})
        assert plan.saving.points == SavePoints(interval=interval, by_epoch=False)


def test_a_smoke_run_of_one_is_one_update():
    plan = flexcore.plan(base(train_cfg=LOOP), KNOWN, smoke=True)
    assert (plan.timeline.max_iters, plan.timeline.opaque) == (1, True)


def test_a_loop_of_ones_own_may_never_validate():
    plan = flexcore.plan(base(train_cfg={"type": "pkg:Loop", "max_epochs": 2}), KNOWN)
    assert "\nvalidates " not in str(plan)
    assert "saves        every 1 epochs that its loop ends, at the end\n" in str(plan)


@pytest.mark.parametrize(
    ("given", "expected"), [(3, 3), (3.0, None), ("3", None), (True, None), (None, None)]
)
def test_a_length_that_is_no_integer_is_the_loops_own_affair(given, expected):
    loop = OwnTrainLoop(
        component=Component(type="pkg.loops:Mine", kwargs=freeze({"max_epochs": given, "max_iters": given}))
    )
    assert (loop.max_epochs, loop.max_iters) == (expected, expected)
