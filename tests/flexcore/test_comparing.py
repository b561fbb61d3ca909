"""A record that is what was planned has no differences; one thing altered is exactly that one difference."""

import pytest
from attrs import evolve

import flexcore
from flexcore.comparing import Segment, compared, planned_samples
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
    found = compared([recorded()])
    assert (found.differences, found.finished, found.reason) == ((), True, "done")
    assert dict(found.counts) == {"iterations": 12, "validations": 3, "saves": 3, "starts": 1}


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
        whole = recorded(plan)
        return differences(evolve(whole, events=({**save, **changes}, *whole.events)))

    assert found(timed) == []
    assert found(timed, waited=119.5) == [
        "save by wall time at iteration 6: planned timed_iter_6 after 120 s, was timed_iter_6 after 119.5 s"
    ]
    assert found(timed, name="timed_iter_5") == [
        "save by wall time at iteration 6: planned timed_iter_6 after 120 s, was timed_iter_5 after 121 s"
    ]
    assert found(PLAN) == ["save by wall time at iteration 6: planned nothing, was timed_iter_6 after 121 s"]


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
    found = compared([recorded(upto=7)])
    assert (found.differences, found.finished, found.reason) == ((), False, None)


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
    whole = flexcore.plan({**CONFIG, "global_batch_size": 60}, KNOWN)
    assert [planned_samples(whole, i) for i in (0, 1, 2)] == [60, 60, 60]
    assert [planned_samples(whole, 1, rank) for rank in (0, 0)] == [60, 60]


def test_a_run_without_checkpoints_owes_none():
    plan = flexcore.plan({**CONFIG, "default_hooks": {"checkpoint": None}}, KNOWN)
    events = tuple(event for event in recorded().events if event["event"] != "save")
    assert differences(evolve(recorded(), plan=plan, events=events)) == []
    first, second = recorded(upto=7), recorded(after=4, validated=True)
    parts = [evolve(part, plan=plan, events=tuple(e for e in part.events if e["event"] != "save"))
             for part in (first, second)]  # fmt: skip
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
