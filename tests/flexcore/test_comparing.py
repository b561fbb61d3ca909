"""A record that is what was planned has no differences; one thing altered is exactly that one difference."""

import pytest
from attrs import evolve

import flexcore
from flexcore.comparing import Comparison, Difference, Segment, compared, planned_samples
from flexcore.facts import ParameterFact
from flexcore.questions import saves, validations, value_at
from flexcore.run_plan import Resume
from tests.flexcore.base import KNOWN, validating

CONFIG = validating(
    train_dataloader={"dataset": {"type": "pkg:D"}, "batch_size": 30},
    param_scheduler=[{"type": "LinearLR", "by_epoch": False, "end": 6}],
    default_hooks={"checkpoint": {"type": "CheckpointHook", "save_best": "acc"}},
)
PLAN = flexcore.plan(CONFIG, KNOWN)  # 4 iterations an epoch (30, 30, 30, 10 samples), 3 epochs


def recorded(plan=PLAN, after=0, upto=12, validated=False, scores=(0.5, 0.7, 0.6)):
    """What a run that keeps to its plan records of the iterations above `after`; best saves follow the scores."""
    steps = [(i, value_at(plan, "lr", i).value, planned_samples(plan, i)) for i in range(after, upto)]
    events, best = [], max((s for s in scores[: after // 4]), default=-1.0)
    due = {save.iter: save.name for save in saves(plan, best=False)}
    for epoch, at in validations(plan):
        if not after < at <= upto:
            continue
        events.append({"event": "save", "iter": at, "name": due[at], "best": False, "planned": True})
        events.append(
            {"event": "validate", "iter": at, "epoch": epoch, "metrics": {"acc": scores[epoch - 1]}}
        )
        if scores[epoch - 1] > best:
            best = scores[epoch - 1]
            name = f"best_acc_epoch_{epoch}"
            events.append({"event": "save", "iter": at, "name": name, "best": True, "planned": True})
    if upto == 12:
        events.append({"event": "stop", "reason": "done", "iter": 12})
    return Segment(plan=plan, resumed=after, validated=validated, steps=tuple(steps), events=tuple(events))


def differences(*segments):
    return [str(difference) for difference in compared(segments).differences]


def test_a_record_that_keeps_to_its_plan_has_none():
    assert compared([recorded()]) == Comparison(
        counts=(("iterations", 12), ("validations", 3), ("saves", 3), ("starts", 1)),
        differences=(), finished=True, reason="done", unplanned=(),
    )  # fmt: skip


@pytest.mark.parametrize("i", range(12))
def test_another_lr_is_that_difference(i):
    whole = recorded()
    at, lr, samples = whole.steps[i]
    altered = (*whole.steps[:i], (at, lr * 2, samples), *whole.steps[i + 1 :])
    assert differences(evolve(whole, steps=altered)) == [
        f"lr at iteration {i}: planned {lr!r}, was {lr * 2!r}"
    ]


@pytest.mark.parametrize("i", range(12))
def test_another_batch_is_that_difference(i):
    whole = recorded()
    at, lr, samples = whole.steps[i]
    altered = (*whole.steps[:i], (at, lr, samples + 1), *whole.steps[i + 1 :])
    expected = [f"samples at iteration {i}: planned {samples}, was {samples + 1}"]
    assert differences(evolve(whole, steps=altered)) == expected


@pytest.mark.parametrize("i", range(11))
def test_a_step_left_out_is_that_difference(i):
    whole = recorded()
    expected = [f"iteration at iteration {i}: planned {i}, was {i + 1}"]
    assert differences(evolve(whole, steps=whole.steps[:i] + whole.steps[i + 1 :])) == expected


EVENTS = [event for event in recorded().events if event["event"] != "stop"]
LEFT_OUT = {
    "validate": lambda e: f"validation at iteration {e['iter']}: planned {e['iter']}, was nothing",
    "save": lambda e: f"save at iteration {e['iter']}: planned {(e['iter'], e['name'])}, was nothing",
}


@pytest.mark.parametrize("n", [n for n, e in enumerate(EVENTS) if e["event"] == "validate" or not e["best"]])
def test_an_event_left_out_is_that_difference(n):
    """A validation that is gone takes with it what it decided: which saves were the best so far."""
    whole, event = recorded(), EVENTS[n]
    events = tuple(e for i, e in enumerate(whole.events) if i != n)
    found = differences(evolve(whole, events=events))
    decided = event["event"] == "validate" and any(
        e.get("best") and e["iter"] == event["iter"] for e in EVENTS
    )
    assert found[0] == LEFT_OUT[event["event"]](event)
    assert bool(found[1:]) == decided
    assert all(text.startswith("best") for text in found[1:])


def test_a_best_save_left_out_or_unearned_is_that_difference():
    whole = recorded()
    without = tuple(e for e in whole.events if e.get("name") != "best_acc_epoch_2")
    assert differences(evolve(whole, events=without)) == [
        "best acc at iteration 8: planned a save, as 0.7 is the best so far, was nothing"
    ]
    more = {"event": "save", "iter": 12, "name": "best_acc_epoch_3", "best": True, "planned": True}
    assert differences(evolve(whole, events=(*whole.events, more))) == [
        "best at iteration 12: planned nothing, was a save as best_acc_epoch_3"
    ]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: f"{e['event']} {e['iter']}")
def test_an_event_done_twice_is_told(event):
    whole = recorded()
    found = differences(evolve(whole, events=(*whole.events, event)))
    if event["event"] == "validate":
        at = event["iter"]
        assert found == [f"validation at iteration {at}: planned once, was {at} 2 times"]
    elif not event["best"]:
        entry = (event["iter"], event["name"])
        assert found == [f"save at iteration {entry[0]}: planned once, was {entry} 2 times"]


def test_an_event_nobody_planned_is_told():
    whole = recorded()
    more = {"event": "save", "iter": 5, "name": "iter_5", "best": False, "planned": True}
    assert differences(evolve(whole, events=(*whole.events, more))) == [
        "save at iteration 5: planned nothing, was (5, 'iter_5')"
    ]


def test_a_save_a_hook_wished_for_is_no_difference():
    whole = recorded()
    more = {"event": "save", "iter": 5, "name": "wished", "best": False, "planned": False}
    assert differences(evolve(whole, events=(*whole.events, more))) == []


def test_a_save_by_wall_time_must_have_waited_for_it():
    """The seconds on record decide whether it was due; a plan without such a condition has none."""
    hooks = {"checkpoint": {"type": "CheckpointHook", "save_best": "acc", "interval_minutes": 2}}
    timed = flexcore.plan({**CONFIG, "default_hooks": hooks}, KNOWN)

    def found(plan, **changes):
        save = {
            "event": "save",
            "iter": 6,
            "name": "timed_iter_6",
            "best": False,
            "planned": False,
            "waited": 121.0,
        }
        whole = recorded(plan if plan.saving is not None else timed)
        events = ({**save, **changes}, *whole.events)
        counts.append(compared([evolve(whole, plan=plan, events=events)]).counts)
        return differences(evolve(whole, plan=plan, events=events))

    counts = []
    assert found(timed) == found(timed, waited=120.0) == []
    unsaved = evolve(timed, saving=None)
    assert "save by wall time at iteration 6: planned nothing, was timed_iter_6 after 121 s" in found(unsaved)
    assert dict(counts[0])["saves"] == 4
    assert found(timed, waited=119.5) == [
        "save by wall time at iteration 6: planned timed_iter_6 after 120 s, was timed_iter_6 after 119.5 s"
    ]
    assert found(timed, name="timed_iter_5") == [
        "save by wall time at iteration 6: planned timed_iter_6 after 120 s, was timed_iter_5 after 121 s"
    ]
    assert found(PLAN) == ["save by wall time at iteration 6: planned nothing, was timed_iter_6 after 121 s"]


def failing(whole, name, **changes):
    """The record, with the save of that name one that failed."""

    def failed(event):
        if event["event"] == "save" and event["name"] == name:
            return {**event, "event": "save_failed", "reason": "No space left on device", **changes}
        return event

    return evolve(whole, events=tuple(map(failed, whole.events)))


def test_a_save_that_was_tried_and_failed_is_as_planned_and_told():
    whole = failing(recorded(), "epoch_1")
    assert differences(whole) == []
    assert compared([whole]).failed == ("epoch_1 at iteration 4: No space left on device",)
    assert differences(failing(recorded(), "epoch_1", iter=5)) == [
        "save at iteration 4: planned (4, 'epoch_1'), was nothing",
        "save at iteration 5: planned nothing, was (5, 'epoch_1')",
    ]
    again = {"event": "save", "iter": 4, "name": "epoch_1", "best": False, "planned": True}
    assert differences(evolve(whole, events=(*whole.events, again))) == []
    assert differences(failing(recorded(upto=7), "epoch_1"), recorded(after=4, validated=True)) == []


def test_a_best_that_failed_leaves_the_one_before_the_best():
    """So what comes after is measured against that: 0.6 is better than 0.5, though 0.7 was seen."""
    whole = failing(recorded(), "best_acc_epoch_2")
    third = {"event": "save", "iter": 12, "name": "best_acc_epoch_3", "best": True, "planned": True}
    assert differences(whole) == [
        "best acc at iteration 12: planned a save, as 0.6 is the best so far, was nothing"
    ]
    assert differences(evolve(whole, events=(*whole.events, third))) == []
    strange = {"event": "save_failed", "iter": 9, "name": "best_acc_epoch_9", "best": True, "reason": "x"}
    assert differences(evolve(recorded(), events=(*recorded().events, strange))) == [
        "best at iteration 9: planned nothing, was a save as best_acc_epoch_9"
    ]


def again(at, failures, waited, **changes):
    made = {"event": "save", "iter": at, "name": f"retried_iter_{at}", "best": False, "planned": False}
    return {**made, "failures": failures, "waited": waited, **changes}


def test_another_attempt_must_follow_a_failure_and_its_pause():
    whole = failing(recorded(), "epoch_1")
    first, rest = whole.events[:1], whole.events[1:]

    def found(*attempts, plan=PLAN):
        return differences(evolve(whole, plan=plan, events=(*first, *attempts, *rest)))

    tried = again(5, 1, 30.0, event="save_failed", reason="y")
    assert found(again(6, 1, 30.0)) == found(tried, again(6, 2, 60.0)) == []
    assert found(again(6, 1, 29.5)) == [
        "save tried again at iteration 6: planned retried_iter_6 30 s after failure 1, was retried_iter_6 29.5 s after failure 1"
    ]
    assert found(tried, again(6, 2, 59.0)) == [
        "save tried again at iteration 6: planned retried_iter_6 60 s after failure 2, was retried_iter_6 59 s after failure 2"
    ]
    assert found(again(6, 1, 30.0, name="retried_iter_7")) == [
        "save tried again at iteration 6: planned retried_iter_6 30 s after failure 1, was retried_iter_7 30 s after failure 1"
    ]
    assert found(again(5, 1, 31.0), again(6, 1, 31.0)) == [
        "save tried again at iteration 6: planned nothing, was retried_iter_6 31 s after failure 1"
    ]
    unasked = evolve(PLAN, saving=evolve(PLAN.saving, retry_seconds=None))
    for plan in (unasked, evolve(PLAN, saving=None)):
        assert (
            "save tried again at iteration 6: planned nothing, was retried_iter_6 31 s after failure 1"
            in found(again(6, 1, 31.0), plan=plan)
        )


def test_a_record_that_says_it_is_incomplete_is_told_and_not_compared_there():
    """Written up to the fifth iteration while the disk was full, and resumed at the eighth."""
    first, second = evolve(recorded(upto=5), incomplete=True), recorded(after=8, validated=True)
    found = compared([first, second])
    assert (found.differences, found.unrecorded) == ((), ("iterations 6 to 8",))
    assert differences(evolve(first, incomplete=False), second) == [
        "iteration at iteration 5: planned 5, was 8",
        "validation at iteration 8: planned 8, was nothing",
        "save at iteration 8: planned (8, 'epoch_2'), was nothing",
        "best acc at iteration 12: planned a save, as 0.6 is the best so far, was nothing",
    ]
    spoilt = evolve(first, steps=((0, 9.0, 30), *first.steps[1:]))
    assert len(differences(spoilt, second)) == 1
    alone = compared([first])
    assert (alone.differences, alone.unrecorded) == ((), ("what followed iteration 5",))
    whole = evolve(recorded(upto=8), incomplete=True)
    assert compared([whole, second]).unrecorded == ()


def test_what_was_executed_twice_counts_by_its_last_execution():
    """Killed after 7 iterations and resumed at 4: the steps and events above 4 of the first start do not count."""
    first, second = recorded(upto=7), recorded(after=4, validated=True)
    spoilt = evolve(first, steps=(*first.steps[:5], (5, 99.0, 1), *first.steps[6:]))
    assert differences(first, second) == []
    assert differences(spoilt, second) == []


def test_a_run_that_ends_early_and_says_done_is_told():
    whole = recorded(upto=8)
    stop = {"event": "stop", "reason": "done", "iter": 8}
    assert differences(evolve(whole, events=(*whole.events, stop))) == [
        "end at iteration 8: planned 12, was 8"
    ]


def test_an_unfinished_run_owes_nothing_but_what_it_reached():
    """What falls on its last step may not have been done; what lies before it must have been."""
    found = compared([recorded(upto=7)])
    assert (found.differences, found.finished, found.reason) == ((), False, None)
    unstarted = compared([Segment(plan=PLAN, resumed=4, validated=True, steps=(), events=())])
    assert (unstarted.differences, dict(unstarted.counts)["iterations"]) == ((), 0)
    silent = evolve(recorded(upto=5), events=())
    assert differences(evolve(recorded(upto=4), events=())) == []
    assert differences(silent) == [
        "validation at iteration 4: planned 4, was nothing",
        "save at iteration 4: planned (4, 'epoch_1'), was nothing",
    ]


def without(plan, **changes):
    return evolve(plan, optimizers=tuple(evolve(one, **changes) for one in plan.optimizers))


def spoilt(whole):
    """Every LR and number of samples is another."""
    return evolve(whole, steps=tuple((i, 7.0, 99) for i, _, _ in whole.steps))


def test_what_no_plan_tells_is_not_compared():
    """A user's own sampler, and an LR that waits for facts: any is as planned."""
    sampler = {"dataset": "pkg:D", "batch_size": 30, "sampler": {"type": "pkg:Mine"}}
    own = flexcore.plan({**CONFIG, "train_dataloader": sampler}, evolve(KNOWN, train_batches=4))
    untold = without(own, lr_scale=None)
    assert differences(spoilt(recorded(untold))) == []
    assert len(differences(spoilt(recorded(own)))) == 12
    assert differences(spoilt(recorded(without(own, schedules=None)))) == []
    groups = (evolve(own.optimizers[0].groups[0], values=(("lr", None),)),)
    assert differences(spoilt(recorded(without(own, groups=groups)))) == []
    assert [planned_samples(own, i) for i in (0, 3)] == [None, None]


def test_samples_of_each_order_on_each_clock():
    """The last of an epoch's 4 batches holds 10 of 100; an endless stream's are full; a rank may have fewer."""
    assert [planned_samples(PLAN, i) for i in range(8)] == [30, 30, 30, 10] * 2
    endless = {"dataset": "pkg:D", "batch_size": 30, "sampler": {"type": "InfiniteSampler"}}
    plan = flexcore.plan({**CONFIG, "train_dataloader": endless}, KNOWN)
    assert [planned_samples(plan, i) for i in (0, 3, 4)] == [30, 30, 30]
    unsized = evolve(PLAN, timeline=evolve(PLAN.timeline, epoch_length=None))
    assert [planned_samples(unsized, i) for i in (0, 3)] == [30, 30]
    assert planned_samples(evolve(PLAN, timeline=None), 0) is None
    assert planned_samples(evolve(PLAN, batching=None), 0) is None
    assert planned_samples(flexcore.plan(CONFIG, KNOWN, mode="val"), 0) is None
    whole = flexcore.plan({**CONFIG, "global_batch_size": 60}, KNOWN)
    assert [planned_samples(whole, i) for i in (0, 1, 2)] == [60, 60, 60]
    assert [planned_samples(whole, 1, rank) for rank in (0, 0)] == [60, 60]


def test_a_run_without_checkpoints_owes_none():
    plan = flexcore.plan({**CONFIG, "default_hooks": {"checkpoint": None}}, KNOWN)
    events = tuple(event for event in recorded().events if event["event"] != "save")
    assert differences(evolve(recorded(), plan=plan, events=events)) == []
    first, second = recorded(upto=7), recorded(after=4, validated=True)
    going_on = evolve(plan, start=Resume(path="w/checkpoints/epoch_1", iter=4))
    parts = [evolve(part, plan=made, events=tuple(e for e in part.events if e["event"] != "save"))
             for part, made in ((first, plan), (second, going_on))]  # fmt: skip
    assert differences(*parts) == []


def best_of(save_best, metrics, **more):
    """A run of 3 validations with these metrics at each, and no best save."""
    hook = {"type": "CheckpointHook", "save_best": save_best}
    plan = flexcore.plan({**CONFIG, "default_hooks": {"checkpoint": hook}, **more}, KNOWN)
    whole = recorded(plan)
    events = tuple(
        {**event, "metrics": metrics} if event["event"] == "validate" else event
        for event in whole.events if not event.get("best")
    )  # fmt: skip
    return [text for text in differences(evolve(whole, events=events)) if text.startswith("best")]


def test_the_best_of_any_metric_is_replayed():
    first = "best {} at iteration 4: planned a save, as {} is the best so far, was nothing"
    assert best_of("auto", {"loss": 0.3, "acc": 0.5}) == [first.format("loss", 0.3)]
    assert best_of("acc", {"loss": 0.3}) == []
    assert best_of("auto", {}) == []
    assert best_of("auto", {"size": 3}) == []  # which way is better is not said
    assert best_of(["acc", "loss"], {"loss": 0.3, "acc": 0.5}) == [
        first.format("acc", 0.5),
        first.format("loss", 0.3),
    ]


def test_the_best_in_the_iteration_loop_is_named_by_iterations():
    loop = {"by_epoch": False, "max_iters": 8, "val_interval": 4}
    plan = flexcore.plan({**CONFIG, "train_cfg": loop}, KNOWN)
    steps = tuple((i, value_at(plan, "lr", i).value, planned_samples(plan, i)) for i in range(8))
    events = []
    for at, score in ((4, 0.5), (8, 0.7)):
        events += [
            {"event": "save", "iter": at, "name": f"iter_{at}", "best": False},
            {"event": "validate", "iter": at, "epoch": 0, "metrics": {"acc": score}},
            {"event": "save", "iter": at, "name": f"best_acc_iter_{at}", "best": True},
        ]
    segment = Segment(plan=plan, resumed=0, validated=False, steps=steps, events=tuple(events))
    assert differences(segment) == []
    renamed = [{**e, "name": e["name"].replace("iter_8", "epoch_0")} if e.get("best") else e for e in events]
    assert differences(evolve(segment, events=tuple(renamed))) == [
        "best acc at iteration 8: planned a save, as 0.7 is the best so far, was nothing",
        "best at iteration 8: planned nothing, was a save as best_acc_epoch_0",
    ]


def test_a_plateau_is_replayed_from_the_metrics_on_record():
    """patience 0: the second and third validations are worse, and each divides the LR by ten."""
    plateau = {"type": "ReduceOnPlateauLR", "monitor": "acc", "rule": "greater", "patience": 0}
    plan = flexcore.plan({**CONFIG, "param_scheduler": plateau}, KNOWN)
    whole = recorded(plan, scores=(0.9, 0.5, 0.4))
    rates = [0.1] * 8 + [0.1 * 0.1] * 4
    steps = tuple((i, lr, samples) for (i, _, samples), lr in zip(whole.steps, rates, strict=True))
    assert differences(evolve(whole, steps=steps)) == []
    assert differences(evolve(whole, steps=(*steps[:8], (8, 0.1, 30), *steps[9:]))) == [
        f"lr at iteration 8: planned {0.1 * 0.1!r}, was 0.1"
    ]


def test_two_optimizers_where_one_is_planned_is_told():
    whole = recorded()
    steps = ((0, (0.1, 0.1), 30), *whole.steps[1:])
    assert differences(evolve(whole, steps=steps)) == ["lr at iteration 0: planned 1 optimizers, was 2"]
    alone = tuple((i, (lr,), samples) for i, lr, samples in whole.steps)
    assert differences(evolve(whole, steps=alone)) == []


def test_a_start_that_a_later_one_goes_back_before_counts_for_nothing():
    """Resumed at 8, killed, and resumed at 4, since the checkpoint at 8 was damaged."""
    parts = recorded(upto=9), recorded(after=8, upto=10, validated=True), recorded(after=4, validated=True)
    assert differences(*parts) == []
    broken = evolve(parts[1], steps=((8, 9.0, 1),))
    assert differences(parts[0], broken, parts[2]) == []


def test_a_checkpoint_that_was_resumed_was_saved_though_nothing_told():
    """Killed between the save at 4 and its event."""
    first = recorded(upto=4)
    untold = evolve(first, events=tuple(e for e in first.events if e["event"] != "save" or e["best"]))
    start = Resume(path="w/checkpoints/epoch_1", epoch=1, iter=4, because="newest")
    second = recorded(evolve(PLAN, start=start), after=4, validated=True)
    assert differences(untold, second) == []
    elsewhere = evolve(second, plan=evolve(PLAN, start=evolve(start, path="w/checkpoints/mine")))
    assert differences(untold, elsewhere) == ["save at iteration 4: planned (4, 'epoch_1'), was nothing"]


NO_SAVES = {"default_hooks": {"checkpoint": None}}


def looped(interval, **more):
    """8 iterations, validated every so many; nothing is saved unless said."""
    loop = {"by_epoch": False, "max_iters": 8, "val_interval": interval}
    return flexcore.plan({**CONFIG, "param_scheduler": [], "train_cfg": loop, **NO_SAVES, **more}, KNOWN)


def part(plan, after, upto, *checks, validated=False, saved=()):
    """A start that took these iterations and told of these validations, and of regular saves by their iterations."""
    steps = tuple((i, 0.1, planned_samples(plan, i)) for i in range(after, upto))
    events = [{"event": "validate", "iter": at, "epoch": 0, "metrics": {"acc": 0.5}} for at in checks]
    events += [{"event": "save", "iter": at, "name": f"iter_{at}", "best": False} for at in saved]
    return Segment(plan=plan, resumed=after, validated=validated, steps=steps, events=tuple(events))


EACH, RARE = looped(1), looped(6)  # after each iteration; after 6 and 8
WHOLE = range(1, 9)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([part(EACH, 0, 8, *WHOLE)], []),
        ([part(EACH, 0, 8, 1, 2, 3, 4, 6, 7, 8)], ["validation at iteration 5: planned 5, was nothing"]),
        ([part(RARE, 0, 8, 6, 8)], []),
        ([part(EACH, 0, 5, 1, 2, 3, 4, 5), part(RARE, 4, 8, 6, 8, validated=True)], []),
        ([part(RARE, 0, 5), part(EACH, 4, 8, 5, 6, 7, 8, validated=True)], []),
        ([part(EACH, 0, 4, 1, 2, 3, 4), part(RARE, 4, 8, 6, 8)], []),
        ([part(EACH, 0, 4, 1, 2, 3), part(EACH, 4, 8, 4, 5, 6, 7, 8)], []),
        ([part(EACH, 0, 5, 1, 2, 3, 4), part(EACH, 4, 8, 4, 5, 6, 7, 8)], []),
        ([part(EACH, 0, 5, 1, 2, 3, 4), part(EACH, 4, 8, 5, 6, 7, 8)], ["validation at iteration 4: planned 4, was nothing"]),
        ([part(EACH, 0, 4, 1, 2, 3), part(EACH, 4, 4, 4), part(EACH, 4, 8, 5, 6, 7, 8, validated=True)], []),
        ([part(flexcore.plan({**CONFIG, "param_scheduler": []}), 0, 8)], []),
    ],
)  # fmt: skip
def test_a_validation_where_one_start_ends_and_the_next_begins_is_whose_did_it_last(parts, expected):
    """The checkpoint says whether it was done before; whoever resumes one without it does it, if its own plan does."""
    assert differences(*parts) == expected


def test_what_follows_a_save_is_done_again_by_whoever_resumes_it():
    first, whole = recorded(upto=5), recorded()
    going_on = evolve(PLAN, start=Resume(path="w/checkpoints/epoch_1", epoch=1, iter=4))
    later = [e for e in whole.events if e["iter"] >= 4 and e.get("name") != "epoch_1"]
    second = evolve(recorded(after=4), plan=going_on)
    assert differences(first, evolve(second, events=tuple(later))) == []
    assert differences(first, evolve(second, events=tuple(e for e in later if e["iter"] > 4))) == [
        "validation at iteration 4: planned 4, was nothing"
    ]


def test_a_best_checkpoint_that_was_resumed_was_saved_though_nothing_told():
    first = recorded(upto=8)
    untold = evolve(first, events=tuple(e for e in first.events if e.get("name") != "best_acc_epoch_2"))
    start = Resume(path="w/checkpoints/best_acc_epoch_2", epoch=2, iter=8)
    assert (
        differences(untold, evolve(recorded(after=8, validated=True), plan=evolve(PLAN, start=start))) == []
    )
    assert differences(untold, recorded(after=8, validated=True)) == [
        "best acc at iteration 8: planned a save, as 0.7 is the best so far, was nothing"
    ]


def every(interval, **more):
    return {
        "default_hooks": {
            "checkpoint": {"type": "CheckpointHook", "interval": interval, "by_epoch": False, **more}
        }
    }


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_checkpoint_of_any_iteration_that_was_resumed_was_saved(at):
    """At 0 there is none to plan: a stop before the first iteration leaves one."""
    plan = looped(100, **every(1))
    first = part(plan, 0, at, saved=range(1, at))
    going_on = evolve(plan, start=Resume(path=f"w/checkpoints/iter_{at}", epoch=0, iter=at))
    assert differences(first, part(going_on, at, 8, 8, saved=range(at + 1, 9))) == []
    silent = part(going_on, at, 8, 8, saved=range(at + 2, 9))
    assert differences(first, silent) == [
        f"save at iteration {at + 1}: planned {(at + 1, f'iter_{at + 1}')}, was nothing"
    ]


def test_a_checkpoint_that_no_plan_names_may_be_resumed():
    plan = looped(100, **every(-1, save_last=False))
    going_on = evolve(plan, start=Resume(path="w/checkpoints/wished", epoch=0, iter=4))
    assert differences(part(plan, 0, 5), part(going_on, 4, 8, 8)) == []


def test_a_loop_of_ones_own_owes_no_saves():
    own = flexcore.plan({**CONFIG, "param_scheduler": [], "train_cfg": {"type": "pkg:L"}, **every(4)}, KNOWN)
    going_on = evolve(own, start=Resume(path="w/checkpoints/iter_4", epoch=0, iter=4))
    parts = [part(own, 0, 5, 3), part(going_on, 4, 8)]
    assert compared(parts) == Comparison(
        counts=(("iterations", 8), ("validations", 1), ("saves", 0), ("starts", 2)), differences=(), finished=False,
        reason=None, unplanned=("samples", "validations", "saves", "end"),
    )  # fmt: skip


def test_an_early_stop_is_held_to_the_scores():
    hook = {"type": "EarlyStoppingHook", "monitor": "acc", "patience": 1}
    plan = flexcore.plan({**CONFIG, "custom_hooks": [hook]}, KNOWN)
    stop = {"event": "stop", "reason": "early_stopping", "iter": 8}

    def ended(scores):
        part = recorded(plan, upto=8, scores=scores)
        return compared([evolve(part, events=(*part.events, stop))])

    called_for = ended((0.5, 0.4))
    assert (called_for.differences, called_for.finished, called_for.reason) == ((), True, "early_stopping")
    assert ended((0.5, 0.9)).differences == (
        Difference(what="early stop", at=8, planned="no early stop by the metrics on record", actual="one"),
    )
    assert compared([recorded(plan, scores=(0.5, 0.4, 0.3))]).differences == (
        Difference(
            what="early stop", at=8, planned="the end, as acc is no better than 0.5 after 1 validations",
            actual="12 iterations",
        ),
    )  # fmt: skip


def test_each_of_several_best_metrics_is_replayed():
    """At 8 the accuracy is no better and the loss is."""
    hook = {"type": "CheckpointHook", "save_best": ["acc", "loss"]}
    plan = flexcore.plan({**CONFIG, "default_hooks": {"checkpoint": hook}}, KNOWN)
    metrics = {4: {"acc": 0.9, "loss": 0.9}, 8: {"acc": 0.5, "loss": 0.5}, 12: {"acc": 0.4, "loss": 0.6}}
    whole = recorded(plan)
    events = [e for e in whole.events if not e.get("best")]
    events = [{**e, "metrics": metrics[e["iter"]]} if e["event"] == "validate" else e for e in events]
    best = [(4, "best_acc_epoch_1"), (4, "best_loss_epoch_1"), (8, "best_loss_epoch_2")]
    saved = [{"event": "save", "iter": at, "name": name, "best": True} for at, name in best]
    assert differences(evolve(whole, events=(*events, *saved))) == []
    assert differences(evolve(whole, events=(*events, *saved[:2]))) == [
        "best loss at iteration 8: planned a save, as 0.5 is the best so far, was nothing"
    ]


def test_the_rates_of_several_optimizers_are_told_by_name():
    several = {name: {"optimizer": {"type": "SGD", "lr": lr}} for name, lr in (("one", 0.1), ("other", 0.3))}
    facts = evolve(KNOWN, train_step=True)
    plan = flexcore.plan({**CONFIG, "param_scheduler": [], "optim_wrapper": several, **NO_SAVES}, facts)
    steps = [(i, (0.1, 0.3), planned_samples(plan, i)) for i in range(3)]
    part = Segment(plan=plan, resumed=0, validated=False, steps=tuple(steps), events=())
    assert differences(part) == []
    steps[1] = (1, (0.2, 0.4), 30)
    assert differences(evolve(part, steps=tuple(steps))) == [
        "one.lr at iteration 1: planned 0.1, was 0.2", "other.lr at iteration 1: planned 0.3, was 0.4",
    ]  # fmt: skip


def test_a_plateau_is_replayed_over_schedules_groups_and_starts():
    """The LR halves after an epoch; after the second, no better than the first, it is cut to the least it may be."""
    schedules = [
        {"type": "MultiStepLR", "milestones": [1, 5], "gamma": 0.5, "end": 10},
        {"type": "ReduceOnPlateauLR", "monitor": "acc", "rule": "greater", "patience": 0, "min_value": 0.02},
    ]
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1}, "paramwise_cfg": {"bias_lr_mult": 2}}
    parameters = tuple(ParameterFact(name=name, shape=(1,)) for name in ("a.weight", "a.bias"))
    plan = flexcore.plan(
        {**CONFIG, "param_scheduler": schedules, "optim_wrapper": wrapper},
        evolve(KNOWN, parameters=parameters),
    )
    assert len(plan.optimizer.groups) == 2
    going_on = evolve(plan, start=Resume(path="w/checkpoints/epoch_2", epoch=2, iter=8))
    rates = [0.1] * 4 + [0.05] * 4 + [0.05 * (0.02 / 0.05)] * 4

    def following(part):
        return evolve(part, steps=tuple((i, rates[i], samples) for i, _, samples in part.steps))

    scores = (0.9, 0.5, 0.95)
    assert differences(following(recorded(plan, scores=scores))) == []
    parts = recorded(plan, upto=9, scores=scores), recorded(going_on, after=8, validated=True, scores=scores)
    assert differences(*map(following, parts)) == []
