"""Where a run starts, whole: DESIGN's matrix with its reasons, and each class of difference in words."""

import pytest
from attrs import evolve

import flexcore
from flexcore import starting
from flexcore.facts import CheckpointFact, Facts
from flexcore.problems import Problem
from flexcore.run_plan import Fresh, LoadWeights, Resume
from tests.flexcore.base import KNOWN, base


def standing(name="epoch_2", **changes):
    made = CheckpointFact(
        path=f"w/checkpoints/{name}", name=name, epoch=2, iter=50, validated=True, record="first"
    )
    return evolve(made, **changes)


OLD, NEW, THERE = (
    standing("epoch_1", epoch=1, iter=25, validated=False),
    standing(),
    standing("x", path="else/x", record="r"),
)


def chosen(resume, load_from, facts, *, trains=True):
    return starting.chosen(flexcore.parse({"resume": resume, "load_from": load_from}), facts, trains=trains)


def resumed(fact, because, record="first"):
    return Resume(
        path=fact.path,
        epoch=fact.epoch,
        iter=fact.iter,
        validated=fact.validated,
        because=because,
        record=record,
    )


NAMES = "load_from names it and "
MATRIX = [
    (False, None, Facts(checkpoints=(NEW,)), Fresh()),
    (False, "x", Facts(checkpoints=(NEW,)), LoadWeights(path="x")),
    ("x", None, Facts(), Resume(path="x", because="resume names it")),
    (THERE.path, None, Facts(named_checkpoint=THERE), resumed(THERE, "resume names it", None)),
    (NEW.path, None, Facts(named_checkpoint=NEW, checkpoints=(OLD, NEW)), resumed(NEW, "resume names it")),
    (True, None, Facts(), Fresh(because="resume=True, but work_dir has not been looked at")),
    (
        True,
        None,
        Facts(checkpoints=()),
        Fresh(because="resume=True found no complete checkpoint in work_dir"),
    ),
    (True, None, Facts(checkpoints=(NEW, OLD)), resumed(NEW, "newest complete checkpoint in work_dir")),
    (True, "x", Facts(checkpoints=(OLD,)), resumed(OLD, "newest complete checkpoint in work_dir")),
    (True, "x", Facts(checkpoints=()), Resume(path="x", because=NAMES + "work_dir holds none")),
    (True, "x", Facts(), Resume(path="x", because=NAMES + "work_dir has not been looked at")),
    (
        True,
        THERE.path,
        Facts(checkpoints=(), named_checkpoint=THERE),
        resumed(THERE, NAMES + "work_dir holds none", None),
    ),
]


@pytest.mark.parametrize(("resume", "load_from", "facts", "expected"), MATRIX)
def test_the_matrix(resume, load_from, facts, expected):
    assert chosen(resume, load_from, facts) == expected


WEIGHTS = standing("w", iter=99, resumable=False)


def test_training_goes_on_from_what_can_be_continued_and_an_evaluation_from_any():
    facts = Facts(checkpoints=(OLD, WEIGHTS))
    assert chosen(True, None, facts).path == OLD.path
    assert starting.chosen(flexcore.parse({"resume": True}), facts).path == OLD.path
    assert chosen(True, None, facts, trains=False).path == WEIGHTS.path


@pytest.mark.parametrize(
    "lesser",
    [standing("z", iter=49), standing("z", validated=False), standing("z", best=True), standing("a")],
)
def test_of_two_checkpoints_the_later_then_the_validated_then_the_regular_one(lesser):
    assert starting.newest((NEW, lesser)) == starting.newest((lesser, NEW)) == NEW
    assert starting.newest(()) is starting.newest(None) is None


def test_what_is_known_of_a_start():
    facts = Facts(checkpoints=(OLD, NEW), named_checkpoint=THERE)
    for fact in (OLD, NEW, THERE):
        assert starting.fact_of(Resume(path=fact.path), facts) == fact
    elsewhere = Resume(path="./else/../else/x", iter=THERE.iter)  # another spelling of what was named
    assert starting.fact_of(elsewhere, facts) == THERE
    assert starting.fact_of(evolve(elsewhere, iter=1), facts) is None
    assert starting.fact_of(elsewhere, evolve(facts, named_checkpoint=None)) is None
    assert starting.fact_of(Fresh(), facts) is starting.fact_of(LoadWeights(path=NEW.path), facts) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("0", 0),
        ("1" * 19, int("1" * 19)),
        ("1" * 20, None),
        ("-1", None),
        ("\u0663", None),
        ("x", None),
        ("", None),
    ],
)
def test_the_seed_of_a_run_without_one_is_the_checkpoints(text, expected):
    config = flexcore.parse({"resume": True})
    fact = standing(trajectory=(("clock", "1"), ("seed", text)))
    assert starting.recorded_seed(config, Facts(checkpoints=(fact,))) == expected
    assert (
        starting.recorded_seed(config, Facts(checkpoints=(standing(trajectory=(("clock", "1"),)),))) is None
    )
    assert starting.recorded_seed(config, Facts(checkpoints=())) is None


def test_only_fields_known_on_both_sides_differ():
    then = (("a", "1"), ("data", "2"), ("length", "3"), ("model", "4"), ("seed", "5"))
    now = (("seed", "5"), ("model", "0"), ("length", "0"), ("data", "0"), ("new", "1"), ("a", "0"))
    assert starting.differences(then, now) == (
        ("a", "trajectory-changing", "1", "0"), ("data", "trajectory-changing", "2", "0"),
        ("length", "resume-safe", "3", "0"), ("model", "incompatible", "4", "0"),
    )  # fmt: skip


MEANT = "Nothing to do if meant."
WORDS = [
    ("model", "incompatible", "error", "Restore the setting, or start in another work_dir."),
    ("batches", "incompatible", "error", starting.REMEDIES["batches"]),
    ("data", "trajectory-changing", "warning", MEANT),
    ("length", "resume-safe", "info", MEANT),
]


@pytest.mark.parametrize(("name", "change", "severity", "remedy"), WORDS)
@pytest.mark.parametrize("size", [1, 200, 201])
def test_a_difference_in_words(name, change, severity, remedy, size):
    fact, then = standing(trajectory=((name, "t" * size),)), "t" * size if size < 201 else "t" * 197 + "..."
    plan = flexcore.plan(base(), KNOWN)
    endless = evolve(plan.timeline, max_iters=None)
    (found,) = starting.resume_problems(fact, ((name, "now"),), endless, plan.config)
    text = f"'{fact.path}' was trained with {name} {then}, this run has now ({change})."
    assert found == Problem(code="FC005", path=("resume",), message=text, remedy=remedy, severity=severity)


@pytest.mark.parametrize(("iteration", "told"), [(6, 3), (6, 2), (7, 2)])
def test_mmengines_checkpoints_go_on_by_their_iterations(iteration, told):
    """Its epoch may be one too many; windows that are open lose their gradients."""
    fact = CheckpointFact(path="w/x.pth", name="x.pth", epoch=told, iter=iteration, writer="mmengine")
    wrapper = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1}, "accumulative_counts": 2}
    made = flexcore.plan(
        base(resume="w/x.pth", optim_wrapper=wrapper), evolve(KNOWN, named_checkpoint=fact, train_samples=12)
    )
    assert (made.timeline.epoch_length, made.start.epoch, made.start.iter) == (3, 2, iteration)
    found = {notice.code: str(notice) for notice in made.notices if notice.code in ("FC014", "FC015")}
    expected = {}
    if iteration == 7:
        expected["FC014"] = (
            "resume: 'w/x.pth' was saved inside an accumulation window, whose gradients so far are lost, as when mmengine "
            "resumes it. Resume another checkpoint to lose none. [FC014]"
        )
    if told == 3:
        expected["FC015"] = (
            "resume: 'w/x.pth' tells epoch 3 and 6 iterations, which here are 2 epochs of 3; it goes on by its iterations. "
            "Check the batch size if that is not meant. [FC015]"
        )
    assert found == expected
