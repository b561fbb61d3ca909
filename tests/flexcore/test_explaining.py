"""A plan as text, section by section in whole lines: what it is, evaluations, events, hooks, its start and its notes."""

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts, Supplied, explaining
from flexcore.explaining_rows import row
from flexcore.facts import HookFact
from flexcore.hook_specs import EMA
from tests.flexcore.base import KNOWN, base, validating
from tests.strategies import checkpoint

TEST = {"test_dataloader": {"dataset": "pkg:D", "batch_size": 2}, "test_evaluator": "pkg:M", "test_cfg": {}}
NAME = "base_20260102_030405_156f1d"
SAVES = "saves        epoch_1 (iteration 25), epoch_2 (iteration 50), epoch_3 (iteration 75)"
OWN = {"type": "pkg:L"}


def loader(size=5, **more):
    return {"dataset": "pkg:D", "batch_size": size, **more}


def C(**more):
    return {"default_hooks": {"checkpoint": {"type": "CheckpointHook", **more}}}


def epochs(number):
    return {"train_cfg": {"by_epoch": True, "max_epochs": number}}


@pytest.mark.parametrize(
    ("config", "asked", "expected"),
    [
        (base(), {}, [f"Plan         train: {NAME}", "model        pkg.models:Net(width=8)", "writes to    runs/base"]),
        (base(model=Supplied(), compile=True, loss="pkg:L", data_preprocessor={"type": "pkg:P", "mean": (1, 2)}), {"smoke": True},
         [f"Plan         train, one batch of everything (smoke): {NAME}", "model        supplied at run time (compiled)",
          "loss         pkg:L()", "preprocessor pkg:P(mean=(1, 2))", "writes to    runs/base/smoke"]),
        (validating(), {"mode": "val"},
         [f"Plan         val: {NAME}", "model        pkg.models:Net(width=8)", "writes to    runs/base"]),
    ],
)  # fmt: skip
def test_what_it_is(config, asked, expected):
    text = flexcore.explain(flexcore.plan(config, KNOWN, **asked))
    assert text.splitlines()[: len(expected)] == expected
    assert text.endswith("\n")


TEN = "10 samples in batches of {}, each counted once"
METRIC = "             metrics top_accuracy = pkg.metrics:TopAccuracy()"
SEVERAL = {
    "val_dataloader": {"a": loader(num_batch_per_epoch=1), "b": Supplied()}, "val_cfg": {"dtype": "bfloat16"},
    "val_evaluator": {"a": {"type": "p:M", "k": 1}, "b": {"type": "p:N"}},
}  # fmt: skip
TTA = {"transforms": ["identity", {"type": "pkg:shift", "by": 2}], "merge": "pkg:vote"}
PREDICTIONS = {"val_cfg": {"fp16": True, "predictions": "p"}}


@pytest.mark.parametrize(
    ("config", "facts", "asked", "expected"),
    [
        (base(), {}, {}, []),
        (validating(**SEVERAL), {"val_samples": None}, {},
         ["validation   a: ? samples, at most 1 batch on each rank", "validation   b: its own loader",
          "             metrics a = p:M(k=1), b = p:N()", "             autocast bfloat16"]),
        (validating(**SEVERAL, **{**TEST, "test_cfg": {"tta": TTA}}), {"val_samples": (1000, None)}, {"smoke": True},
         ["validation   a: 1,000 samples in batches of 5, each counted once, at most 1 batch on each rank",
          "validation   b: its own loader, at most 1 batch on each rank", "             metrics a = p:M(k=1), b = p:N()",
          "             autocast bfloat16", f"test         {TEN.format(2)}, at most 1 batch on each rank",
          "             metrics m = pkg:M()", "             each batch as identity, pkg:shift(by=2); outputs merged by pkg:vote"]),
        (validating(val_dataloader=loader(1, num_batch_per_epoch=2000)), {}, {},
         [f"validation   {TEN.format(1)}, at most 2,000 batches on each rank", METRIC]),
        (base(**{**TEST, "test_cfg": {"type": "pkg:Loop", "k": 1}}), {}, {"mode": "test"},
         [f"test         {TEN.format(2)}", "             metrics m = pkg:M()", "             by a loop of its own, pkg:Loop(k=1)"]),
        (base(**{**TEST, "test_cfg": {"tta": {"type": "pkg:T"}},
                 "test_evaluator": {"type": "DumpResults", "out_file_path": "q"}}), {}, {"mode": "test"},
         [f"test         {TEN.format(2)}", "             each batch augmented and merged by pkg:T()",
          "             predictions to q, in dataset order"]),
        (validating(**PREDICTIONS), {}, {},
         [f"validation   {TEN.format(5)}", METRIC, "             autocast float16",
          "             predictions to p, in dataset order, _iter_<n> in each validation's name"]),
        (validating(**PREDICTIONS), {}, {"mode": "val"},
         [f"validation   {TEN.format(5)}", METRIC, "             autocast float16", "             predictions to p, in dataset order"]),
        (validating(**{**TEST, "test_cfg": {"predictions": "p"}}), {}, {"smoke": True},
         [f"validation   {TEN.format(5)}, at most 1 batch on each rank", METRIC,
          f"test         {TEN.format(2)}, at most 1 batch on each rank", "             metrics m = pkg:M()",
          "             predictions to p, in dataset order"]),
    ],
)  # fmt: skip
def test_evaluations(config, facts, asked, expected):
    plan = flexcore.plan(config, evolve(KNOWN, **facts), **asked)
    assert list(explaining._evaluations(plan)) == expected


LOOKS = "validates    when its loop asks"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (base(default_hooks={"checkpoint": None}), []),
        (base(), [SAVES, "keeps        all"]),
        (validating(), ["validates    after epoch 1, epoch 2, epoch 3", SAVES, "keeps        all"]),
        (validating(**epochs(4), **C(max_keep_ckpts=2)),
         ["validates    after epoch 1, epoch 2, epoch 3, epoch 4", f"{SAVES}, epoch_4 (iteration 100)", "keeps        the newest 2"]),
        (validating(**epochs(0)), ["validates    never", "saves        never", "keeps        all"]),
        (validating(**epochs(5), **C(interval=1, max_keep_ckpts=1, interval_minutes=90, save_best=["acc", "loss"],
                                     save_optimizer=False, published_keys="meta")),
         ["validates    after epoch 1, epoch 2, epoch 3, epoch 4, ...", f"{SAVES}, epoch_4 (iteration 100), ...",
          "             and at the first update when the last one is 90 minutes old",
          "keeps        the newest 1 and the best by acc (greater) and the best by loss (less)",
          "             weights only: none of them can be resumed",
          "publishes    meta of the best, else the last, checkpoint at the end"]),
        (validating(**C(async_save=True)),
         ["validates    after epoch 1, epoch 2, epoch 3", SAVES, "keeps        all",
          "             each written while training goes on, from a copy in host memory"]),
        (validating(**C(published_keys=["model", "meta"], save_best="auto", interval=-1, save_last=False)),
         ["validates    after epoch 1, epoch 2, epoch 3", "saves        never",
          "keeps        all and the best by the first metric (rule by its name)",
          "publishes    model, meta of the best, else the last, checkpoint at the end"]),
        (base(**C(published_keys="model")), [SAVES, "keeps        all", "publishes    model of the last checkpoint at the end"]),
        (validating(train_cfg={"by_epoch": False, "max_iters": 50, "val_interval": 9}, **C(interval=9, by_epoch=False)),
         ["validates    after iteration 9, iteration 18, iteration 27, iteration 36, ...",
          "saves        iter_9 (iteration 9), iter_18 (iteration 18), iter_27 (iteration 27), iter_36 (iteration 36), ...",
          "keeps        all"]),
        (validating(train_cfg={**OWN, "max_iters": 40}), [LOOKS, "saves        every 1000 iterations, at the end", "keeps        all"]),
        (base(train_cfg=OWN, default_hooks={"checkpoint": None}), []),
        (base(train_cfg=OWN, **C(interval=-1, save_last=False)), ["saves        never", "keeps        all"]),
        (base(train_cfg=OWN, **C(interval=0)), ["saves        at the end", "keeps        all"]),
        (base(train_cfg=OWN, **C(interval=1, save_last=False, by_epoch=False)), ["saves        every 1 iterations", "keeps        all"]),
        (base(train_cfg={**OWN, "max_epochs": 2}, **C(interval=2)),
         ["saves        every 2 epochs that its loop ends, at the end", "keeps        all"]),
    ],
)  # fmt: skip
def test_events(config, expected):
    again = row("", "after one that failed another 30 s later, each next twice as late")
    lines = [line for one in expected for line in ((again, one) if one.startswith("keeps") else (one,))]
    assert list(explaining._events(flexcore.plan(config, KNOWN))) == lines


def test_events_of_no_length_and_of_no_training():
    """Saves wait for the length; an evaluation has none."""
    unasked = base(**C(retry_minutes=None))
    assert list(explaining._events(flexcore.plan(unasked))) == ["keeps        all"]
    assert list(explaining._events(flexcore.plan(validating(), KNOWN, mode="val"))) == []


def test_hooks_with_their_priorities_and_stages():
    removed = dict.fromkeys(("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler"))
    custom = ["EMAHook", {"type": "pkg:H"}, {"type": "pkg:ANameThatIsLongerThanItsColumn"}]
    facts = evolve(KNOWN, hooks=(HookFact(place=1, stages=("after_run", "before_run"), priority=5),))
    plan = flexcore.plan(base(default_hooks=removed, custom_hooks=custom), facts)
    assert plan.hooks[1].hook == EMA()
    assert list(explaining._hooks(plan)) == [
        "hooks          5 H                    before_run, after_run",
        (
            "              50 EMAHook              before_run, after_train_iter, before_val_epoch, after_val_epoch, "
            "before_test_epoch, after_test_epoch"
        ),
        "                 exponential average, momentum 0.0002, every iteration; evaluations use the average",
        "              50 ANameThatIsLongerThanItsColumn ? (needs --probe)",
        "              90 CheckpointHook       after_train_epoch, after_train_iter, after_val_epoch",
    ]


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        ({}, KNOWN, "fresh: nothing was asked to be loaded"),
        ({"load_from": "w.pth"}, KNOWN, "from the weights of w.pth"),
        ({"load_from": {"path": "w.pth", "strict": False}}, KNOWN,
         "from the weights of w.pth; what does not fit is left out"),
        ({"resume": "x"}, KNOWN, "by resuming x: resume names it"),
        ({"resume": True}, evolve(KNOWN, checkpoints=(evolve(checkpoint(50), writer="mmengine", epoch=9),)),
         "by resuming mmengine's w/checkpoints/iter_50 at epoch 2, iteration 50: newest complete checkpoint in work_dir"),
        ({"resume": True}, evolve(KNOWN, checkpoints=(evolve(checkpoint(50), epoch=2),)),
         "by resuming w/checkpoints/iter_50 at epoch 2, iteration 50: newest complete checkpoint in work_dir"),
    ],
)  # fmt: skip
def test_starts(changes, facts, expected):
    assert list(explaining._start(flexcore.plan(base(**changes), facts))) == [f"starts       {expected}"]


def test_notes_are_what_is_unknown_and_what_was_noticed():
    """The start's own time is no news in a plan made before it."""
    assert list(explaining._notes(flexcore.plan(base(runner_type="x"), Facts(world_size=1)))) == [
        "unknown      environment.device_type until the fact device_type is there",
        "unknown      timeline.epoch_length until the fact train_samples is there",
        (
            "info         runner_type: is 'x' and changes nothing: there are no registries, types are import paths. "
            "Nothing to do. [FK023]"
        ),
    ]


def test_revised_names_are_told_one_a_line():
    config = base(load_from={"path": "w.pth", "revise_keys": [["^a", "b"], ["c$", ""]]})
    assert list(explaining._start(flexcore.plan(config, KNOWN))) == [
        "starts       from the weights of w.pth",
        "             names: '^a' becomes 'b'",
        "             names: 'c$' becomes ''",
    ]
