"""What a plan tells unasked, whole: every unknown with its fact, in order; what "auto" and a drawn seed came to; slots."""

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts, Supplied
from flexcore.facts import ParameterFact
from tests.flexcore.base import KNOWN, base, planned, validating
from tests.strategies import checkpoint

TEST = {"test_dataloader": {"dataset": "pkg:D", "batch_size": 2}, "test_evaluator": "pkg:M", "test_cfg": {}}
AMP = {"type": "AmpOptimWrapper", "optimizer": "SGD", "paramwise_cfg": {"bias_lr_mult": 2}}
EVERYTHING = validating(
    **TEST, strategy="FSDPStrategy", launcher="pytorch", randomness={}, resume=True, optim_wrapper=AMP,
    global_batch_size=8, custom_hooks=["pkg:H"],
)  # fmt: skip

SURROUNDINGS = (
    ("environment.world_size", "world_size"), ("environment.device_type", "device_type"),
    ("environment.seed", "entropy"), ("names.timestamp", "started_at"),
)  # fmt: skip
LENGTH = ("timeline.epoch_length", "train_samples")
ACCUMULATION = ("batching.gradient_accumulation_steps", "world_size")
SHARES = ("sharding.units", "modules")
TRAINED = (("optimizer.groups", "parameters"), ("optimizer.precision", "device_type"))
FOUND = ("start", "checkpoints")
HOOKS = ("hooks.stages", "hooks")
VALIDATED, TESTED = ("validation.loaders", "val_samples"), ("testing.loaders", "test_samples")


def unknowns(config, facts, **more):
    return tuple((one.field, one.fact) for one in flexcore.plan(config, facts, **more).unresolved)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (*SURROUNDINGS, LENGTH, ACCUMULATION, SHARES, *TRAINED, FOUND, HOOKS, VALIDATED)),
        ({"mode": "val"}, (*SURROUNDINGS, SHARES, FOUND, HOOKS, VALIDATED)),
        ({"mode": "test"}, (*SURROUNDINGS, SHARES, FOUND, HOOKS, TESTED)),
        ({"smoke": True}, (*SURROUNDINGS, ACCUMULATION, SHARES, *TRAINED, HOOKS, VALIDATED, TESTED)),
    ],
    ids=str,
)
def test_every_unknown_of_a_mode_is_told_with_the_fact_that_settles_it(asked, expected):
    """One batch has a length, and a smoke run starts fresh whatever stands in work_dir."""
    assert unknowns(EVERYTHING, Facts(), **asked) == expected


ITERATIONS = {"by_epoch": False, "max_iters": 9}


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        ({}, {}, ()),
        ({}, {"train_samples": None}, (LENGTH,)),
        ({"launcher": "pytorch"}, {"world_size": None},
         (SURROUNDINGS[0], ("timeline.epoch_length", "world_size"))),
        ({"train_dataloader": Supplied()}, {"train_samples": None},
         (("timeline.epoch_length", "train_batches"), ("batching.micro_batch_size", "train_batch_size"))),
        ({"train_cfg": ITERATIONS}, {"train_samples": None, "train_iterable": True}, ()),
        ({"train_cfg": ITERATIONS}, {"train_samples": None, "train_iterable": False}, (LENGTH,)),
        ({"optim_wrapper": {"one": AMP, "other": {**AMP, "dtype": "float16"}}},
         {"train_step": True, "device_type": None},
         (SURROUNDINGS[1], ("optimizers.one.groups", "parameters"), ("optimizers.one.precision", "device_type"),
          ("optimizers.other.groups", "parameters"))),
        ({"optim_wrapper": AMP}, {}, TRAINED[:1]),
        ({"resume": "x"}, {"checkpoints": None}, (("start.iter", "named_checkpoint"),)),
        ({"resume": True, "load_from": "x"}, {}, (("start.iter", "named_checkpoint"),)),
        ({"resume": True, "load_from": "x"}, {"checkpoints": None}, (("start.iter", "named_checkpoint"), FOUND)),
        ({"resume": True}, {}, ()),
        ({"load_from": "x"}, {"checkpoints": None}, ()),
    ],
)  # fmt: skip
def test_what_is_unknown_of_a_training(changes, facts, expected):
    """A length waits for what has not been looked at: samples, a loader's batches, or among how many ranks."""
    assert unknowns(base(**changes), evolve(KNOWN, **facts)) == expected


def test_an_order_of_its_own_is_no_unknown():
    own = {"dataset": "pkg:D", "batch_size": 5, "sampler": "pkg:S"}
    facts = evolve(KNOWN, val_samples=None)
    assert unknowns(validating(val_dataloader=own), facts) == ()
    assert unknowns(validating(), facts) == (VALIDATED,)
    assert unknowns(validating(), KNOWN) == ()


WEIGHTS = (ParameterFact(name="w", shape=(2**26,)),)  # with its gradient: 512 MiB
CUDA = {"device_type": "cuda", "device_memory": 2**29, "parameters": WEIGHTS}


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"world_size": None}, "DDPStrategy: launcher pytorch started ranks; memory is not counted on a CPU."),
        ({}, "DDPStrategy: launcher pytorch started 1 rank; memory is not counted on a CPU."),
        ({"world_size": 2, "parameters": WEIGHTS},
         "DDPStrategy: launcher pytorch started 2 ranks; memory is not counted on a CPU."),
        (CUDA, "DDPStrategy: launcher pytorch started 1 rank; model states of 0.5 GiB fit devices of 0.5 GiB."),
        ({**CUDA, "world_size": None, "device_memory": 2**28},
         ("FSDPStrategy: launcher pytorch started ranks; model states of 0.5 GiB need the shares on "
          "devices of 0.25 GiB.")),
        ({**CUDA, "parameters": None},
         "DDPStrategy: launcher pytorch started 1 rank; whether its model states fit is unknown until parameters are there."),
    ],
)  # fmt: skip
def test_auto_tells_what_it_chose_and_why(facts, text):
    made = planned(evolve(KNOWN, **facts), strategy="auto", launcher="pytorch")
    assert [str(notice) for notice in made.notices] == [
        f'strategy: "auto" chose {text} Name the strategy to fix it. [FP009]'
    ]


def test_a_drawn_seed_is_the_low_half_of_the_entropy():
    """Unless it goes on from a checkpoint, whose seed it keeps."""
    drawn = evolve(KNOWN, entropy=2**32 + 5)
    kept = evolve(drawn, checkpoints=(checkpoint(50, trajectory=(("seed", "9"),)),))
    for facts, what in ((drawn, "was drawn: 5"), (kept, "is the checkpoint's: 9")):
        made = planned(facts, randomness={}, resume=facts is kept)
        assert [str(notice) for notice in made.notices if notice.code == "FR001"] == [
            f"randomness.seed: is not given and {what}. Give a seed to repeat runs. [FR001]"
        ]


SLOTTED = {"dataset": Supplied(), "batch_size": 2}
METRICS = {"a": {"type": "pkg:M"}, "b": Supplied()}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ()),
        ({"train_dataloader": Supplied()}, ("train_dataloader",)),
        ({"train_dataloader": SLOTTED}, ("train_dataset",)),
        ({"optim_wrapper": {"optimizer": Supplied()}}, ("optimizer",)),
        ({"val_dataloader": Supplied(), "loss": Supplied()}, ("loss", "val_dataloader")),
        ({"val_dataloader": SLOTTED, "val_evaluator": METRICS}, ("val_dataset", "val_evaluator")),
        ({**TEST, "test_dataloader": {"a": SLOTTED, "b": Supplied()}, "test_evaluator": METRICS, "model": Supplied()},
         ("model", "test_dataloader", "test_dataset", "test_evaluator")),
    ],
)  # fmt: skip
def test_slots_come_in_the_order_of_the_config(changes, expected):
    assert flexcore.plan(validating(**changes)).supplied == expected
