"""When a metric ends a run, by mmengine's recordings and by hand; and that the record of a run is held to it."""

from attrs import evolve

import flexcore
from flexcore.hooks import EarlyStopping
from flexcore.replaying import early_stop_differences
from flexcore.stopping_early import Watched, rule_of, verdict, watched
from tests.flexcore.base import KNOWN, base, told
from tests.flexcore.test_hooks import early
from tests.oracles import claimed


@claimed("o11", lambda case: case["id"].startswith("early stop"))
def test_early_stops_are_mmengines(case):
    given = dict(case["input"])
    scores = [float(score) for score in given.pop("scores")]
    if "error" in case["expected"]:
        assert "[FC002]" in told(early(**{k: v for k, v in given.items() if v is not None}))[0]
        return
    hook, so_far, stop = EarlyStopping(**given), Watched(), None
    for number, score in enumerate(scores, 1):
        so_far = watched(hook, so_far, score)
        if stop is None and verdict(hook, so_far) is not None:
            stop = (number, so_far.best)
    assert stop == (case["expected"]["ok"]["stop_at_validation"], case["expected"]["ok"]["best"])


def after(hook, *scores):
    so_far = Watched()
    for score in scores:
        so_far = watched(hook, so_far, score)
    return verdict(hook, so_far)


def test_what_ends_a_run_and_what_does_not():
    acc = EarlyStopping(monitor="acc", patience=2, min_delta=0.1)
    assert rule_of(acc) == "greater"
    assert after(acc) is None
    assert after(acc, 0.5, 0.55) is None
    assert after(acc, 0.5, 0.55, 0.59) == "acc is no better than 0.5 after 2 validations"
    assert after(acc, 0.5, 0.55, 0.7, 0.75) is None
    assert after(acc, 0.5, float("nan")) == "acc is nan"
    careless = EarlyStopping(monitor="acc", patience=1, check_finite=False)
    assert after(careless, float("nan")) == "acc is no better than none yet after 1 validations"
    loss = EarlyStopping(monitor="loss", stopping_threshold=0.1, min_delta=0.0)
    assert after(loss, 0.2) is None
    assert after(loss, 0.2, 0.05) == "loss is 0.05, past 0.1"


class Part:
    """A start of a run as the replay sees it."""

    def __init__(self, plan, resumed, upto, scores):
        self.plan, self.resumed = plan, resumed
        self.steps = tuple((i, 0.1, 4) for i in range(resumed, upto))
        self.events = tuple(
            {"event": "validate", "iter": at, "metrics": {"acc": score}} for at, score in scores
        )


def test_a_stop_that_the_metrics_call_for_must_have_happened_and_no_other():
    plan = flexcore.plan(early(patience=1), KNOWN)
    patient = flexcore.plan(early(patience=3), KNOWN)
    scores = [(25, 0.5), (50, 0.4)]
    assert list(early_stop_differences([Part(plan, 0, 50, scores)], early=True)) == []
    assert list(early_stop_differences([Part(plan, 0, 75, scores)], early=False)) == [
        (50, "the end, as acc is no better than 0.5 after 1 validations", "75 iterations")
    ]
    assert list(early_stop_differences([Part(plan, 0, 25, scores[:1])], early=True)) == [
        (25, "no early stop by the metrics on record", "one")
    ]
    split = [Part(plan, 0, 30, scores[:1]), Part(plan, 25, 60, scores[1:])]
    assert [at for at, _, _ in early_stop_differences(split, early=False)] == [50]
    assert (
        list(early_stop_differences([Part(plan, 0, 50, scores), Part(patient, 50, 75, [])], early=False))
        == []
    )
    assert list(early_stop_differences([Part(flexcore.plan(base(), KNOWN), 0, 75, [])], early=False)) == []


def ends(*parts, early=False):
    return [(at, actual) for at, _, actual in early_stop_differences(parts, early=early)]


def test_only_validations_with_the_metric_count():
    plan = flexcore.plan(early(patience=1), KNOWN)
    part = Part(plan, 0, 75, [(25, 0.5), (50, 0.4)])
    others = (
        {"event": "save", "iter": 25, "metrics": {"acc": 0.1}},
        {"event": "validate", "iter": 25, "metrics": {"f1": 1.0}},
    )
    part.events = (*others, *part.events[:1], *others, *part.events[1:])
    assert ends(part) == [(50, "75 iterations")]
    part.events = (*others, *part.events[:3])
    assert ends(part) == []


def test_the_first_score_that_ends_it_is_the_end():
    plan = flexcore.plan(early(patience=1), KNOWN)
    assert ends(Part(plan, 0, 75, [(25, 0.5), (50, 0.4), (75, 0.3)])) == [(50, "75 iterations")]
    assert ends(Part(plan, 0, 75, [(25, 0.5), (50, 0.4), (75, 0.9)])) == [(50, "75 iterations")]


def test_a_later_start_is_bound_by_the_scores_before_it():
    """It had to end where it resumed, or, resumed from nothing, after one update."""
    plan = flexcore.plan(early(patience=1), KNOWN)
    first = Part(plan, 0, 50, [(25, 0.5), (50, 0.4)])
    assert ends(first, Part(plan, 50, 60, [])) == [(50, "60 iterations")]
    assert ends(first, Part(plan, 50, 50, []), early=True) == []
    assert ends(first, Part(plan, 0, 2, [])) == [(1, "2 iterations")]
    assert ends(first, Part(plan, 0, 1, [])) == []
    assert ends(first, Part(plan, 0, 0, []), early=True) == []


def test_the_end_is_the_update_that_closes_the_window():
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1}, "accumulative_counts": 4}
    plan = flexcore.plan({**early(patience=1), "optim_wrapper": wrapper}, KNOWN)
    scores = [(25, 0.5), (50, 0.4)]
    assert ends(Part(plan, 0, 52, scores)) == []
    assert ends(Part(plan, 0, 53, scores)) == [(52, "53 iterations")]


def test_an_early_end_needs_a_reason_on_record():
    plan = flexcore.plan(early(patience=1), KNOWN)
    assert ends(Part(plan, 0, 0, []), early=True) == [(0, "one")]
    assert ends(Part(plan, 0, 30, [(25, 0.5)]), Part(plan, 30, 40, []), early=True) == [(40, "one")]
    untimed = Part(plan, 0, 75, [(25, 0.5), (50, 0.4)])
    untimed.plan = evolve(plan, timeline=None)
    assert ends(untimed) == []
    assert ends(untimed, early=True) == [(75, "one")]


def test_a_score_past_the_threshold_is_better_whatever_the_best():
    """And the comparison is strict, as is patience: as many validations without a better one as it says."""
    acc = EarlyStopping(monitor="acc", patience=1, min_delta=0.5, stopping_threshold=0.9)
    assert watched(acc, Watched(best=0.8), 0.95) == Watched(best=0.95, waited=0, last=0.95)
    assert watched(acc, Watched(best=0.8, waited=2), 0.9) == Watched(best=0.8, waited=3, last=0.9)
    assert watched(acc, Watched(best=0.2), 0.7) == Watched(best=0.2, waited=1, last=0.7)
    assert watched(acc, Watched(best=0.2), 0.71) == Watched(best=0.71, last=0.71)
    assert watched(acc, Watched(best=0.2, waited=3), float("inf")) == Watched(
        best=0.2, waited=3, last=float("inf")
    )
    loss = EarlyStopping(monitor="loss", min_delta=0.5, check_finite=False)
    assert watched(loss, Watched(best=1.0), 0.5) == Watched(best=1.0, waited=1, last=0.5)
    assert watched(loss, Watched(best=1.0), 0.49) == Watched(best=0.49, last=0.49)
    assert watched(loss, Watched(), float("inf")).waited == 0
    unnamed = EarlyStopping(monitor="size", min_delta=0.0)
    assert watched(unnamed, Watched(best=1.0), 2.0).best == 2.0
    assert (
        verdict(EarlyStopping(monitor="size", stopping_threshold=1.0), Watched(last=2.0))
        == "size is 2, past 1"
    )
    assert verdict(acc, Watched(last=0.9, waited=0)) is None
    assert (
        verdict(acc, Watched(best=0.25, last=0.1, waited=1))
        == "acc is no better than 0.25 after 1 validations"
    )


def test_a_start_without_the_hook_is_passed_over():
    plan, without = flexcore.plan(early(patience=1), KNOWN), flexcore.plan(base(), KNOWN)
    scores = [(25, 0.5), (50, 0.4)]
    assert ends(Part(without, 0, 10, []), Part(plan, 10, 75, scores)) == [(50, "75 iterations")]
