"""When a metric ends a run, by mmengine's recordings and by hand; and that the record of a run is held to it."""

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
