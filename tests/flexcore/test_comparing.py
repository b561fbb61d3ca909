"""A record that is what was planned has no differences; one thing altered is exactly that one difference."""

import pytest
from attrs import evolve

import flexcore
from flexcore.comparing import Segment, compared, planned_samples
from flexcore.questions import saves, validations, value_at
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
