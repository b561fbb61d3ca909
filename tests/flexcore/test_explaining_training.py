"""Batches, length and curves of a training, in whole lines; an unknown names what it waits for."""

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts, Supplied
from flexcore.explaining_training import batches_of, length_of, rates_of
from flexcore.facts import ParameterFact
from tests.flexcore.base import KNOWN, base, validating

RANKLESS = evolve(KNOWN, world_size=None)
TWO = evolve(KNOWN, world_size=2)
STEPPED = evolve(KNOWN, train_step=True)
AMONG = {"launcher": "pytorch"}
ADAM = {"optimizer": {"type": "AdamW", "lr": 0.1}}
SEVERAL = {
    "one": {"optimizer": {"type": "SGD", "lr": 0.1}},
    "other": {"optimizer": {"type": "SGD", "lr": 0.3}},
}
OWN = {"type": "pkg:L"}
VALIDATION = {key: value for key, value in validating().items() if key.startswith("val")}
MICRO, GLOBAL = "iteration    one micro-batch per rank", "iteration    one global batch"
FOUR = "batch        4 micro x 1 accumulation x 1 rank = 4 samples per optimizer step"


def loader(**more):
    return {"dataset": {"type": "p:D", "k": 1}, "batch_size": 4, **more}


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        ({}, KNOWN, [FOUR, MICRO, "train data   pkg.data:Digits()", "             100 samples, shuffled, 0 dropped and 0 repeated per epoch"]),
        ({"train_dataloader": loader(sampler="pkg:S")}, KNOWN, [FOUR, MICRO, "train data   p:D(k=1)", "             order of its own"]),
        ({"train_dataloader": loader(sampler={"type": "InfiniteSampler", "shuffle": False}),
          "train_cfg": {"by_epoch": False, "max_iters": 9}}, KNOWN,
         [FOUR, MICRO, "train data   p:D(k=1)", "             100 samples, in order"]),
        ({"train_dataloader": loader(batch_size=600), "global_batch_size": 1200}, evolve(KNOWN, train_samples=1100),
         ["batch        600 micro x 2 accumulation x 1 rank = 1,200 samples per optimizer step", GLOBAL,
          "train data   p:D(k=1)", "             1,100 samples, shuffled, 0 dropped and 100 repeated per epoch"]),
        ({"train_dataloader": loader(drop_last=True), "optim_wrapper": {"optimizer": "SGD", "accumulative_counts": 3}},
         evolve(KNOWN, train_samples=1102),
         ["batch        4 micro x 3 accumulation x 1 rank = 12 samples per optimizer step", MICRO,
          "train data   p:D(k=1)", "             1,102 samples, shuffled, 2 dropped and 0 repeated per epoch"]),
        ({"train_dataloader": Supplied()}, Facts(),
         ["batch        ? (needs train_batch_size) micro x 1 accumulation x 1 rank = ? (needs train_batch_size) samples per optimizer step",
          MICRO, "             order of its own"]),
        (AMONG, RANKLESS,
         ["batch        4 micro x 1 accumulation x ? (needs world_size) ranks = ? (needs world_size) samples per optimizer step",
          MICRO, "train data   pkg.data:Digits()"]),
        ({**AMONG, "global_batch_size": 8}, RANKLESS,
         ["batch        4 micro x ? (needs world_size) accumulation x ? (needs world_size) ranks = 8 samples per optimizer step",
          GLOBAL, "train data   pkg.data:Digits()"]),
    ],
)  # fmt: skip
def test_batches(changes, facts, expected):
    assert list(batches_of(flexcore.plan(base(**changes), facts))) == expected


def test_deepspeed_is_told_in_its_own_words():
    changes = {"strategy": "DeepSpeedStrategy", "optim_wrapper": ADAM}
    assert list(batches_of(flexcore.plan(base(**AMONG, **changes), TWO)))[:3] == [
        "batch        4 micro x 1 accumulation x 2 ranks = 8 samples per optimizer step",
        (
            'deepspeed    {"bf16": {"enabled": false}, "fp16": {"enabled": false}, "gradient_accumulation_steps": 1, '
            '"gradient_clipping": 0.0, "steps_per_print": 10000000000000, "timers": {"throughput": {"enabled": false}}, '
            '"torch_autocast": {"enabled": false}, "train_batch_size": 8, "train_micro_batch_size_per_gpu": 4, '
            '"zero_allow_untested_optimizer": true, "zero_force_ds_cpu_optimizer": false, "zero_optimization": {"stage": 0}}'
        ),
        MICRO,
    ]


def windows(tail):
    return {"optim_wrapper": {"optimizer": "SGD", "accumulative_counts": 2, "accumulation_tail": tail}}


def unknown(fact):
    return [
        f"length       3 epochs x ? (needs {fact}) iterations = ? (needs {fact}); ? (needs {fact}) optimizer steps"
    ]


LOOPED = "length       as its loop decides"


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        ({}, KNOWN, ["length       3 epochs x 25 iterations = 75; 75 optimizer steps"]),
        ({}, STEPPED, ["length       3 epochs x 25 iterations = 75; the model's train_step updates the optimizer"]),
        ({"optim_wrapper": SEVERAL}, STEPPED,
         ["length       3 epochs x 25 iterations = 75; the model's train_step updates the optimizers"]),
        ({"train_cfg": {"by_epoch": True, "max_epochs": 1200}}, evolve(KNOWN, train_samples=9000),
         ["length       1,200 epochs x 2,250 iterations = 2,700,000; 2,700,000 optimizer steps"]),
        ({"train_cfg": {"by_epoch": False, "max_iters": 12000, "max_time": 90.5}, **VALIDATION,
          "custom_hooks": [{"type": "EarlyStoppingHook", "monitor": "acc"}, "NaNGuardHook", "EMAHook"]}, KNOWN,
         ["length       12,000 iterations; 12,000 optimizer steps",
          "             or 90.5 s of wall time, whichever comes first", "             or sooner: loss not finite",
          "             or sooner: acc without +0.1 for 5 validations, or not finite"]),
        (windows("carry"), KNOWN, ["length       3 epochs x 25 iterations = 75; 38 optimizer steps",
                                   "             a step every 2 iterations; windows cross epochs"]),
        (windows("step"), KNOWN, ["length       3 epochs x 25 iterations = 75; 39 optimizer steps",
                                  "             a step every 2 iterations; each epoch's last window may be short"]),
        (windows("drop"), KNOWN, ["length       3 epochs x 24 iterations = 72; 36 optimizer steps",
                                  "             a step every 2 iterations; no short windows"]),
        ({}, Facts(), unknown("train_samples")),
        (AMONG, RANKLESS, unknown("world_size")),
        ({"train_dataloader": Supplied()}, Facts(), unknown("train_batches")),
        ({"train_cfg": OWN}, KNOWN, ["loop         pkg:L()", LOOPED]),
        ({"train_cfg": {**OWN, "max_epochs": 1200}}, KNOWN,
         ["loop         pkg:L(max_epochs=1200)", f"{LOOPED}; schedules take it for 1,200 epochs x 25 iterations = 30,000 iterations"]),
        ({"train_cfg": {**OWN, "max_epochs": 2}}, Facts(),
         ["loop         pkg:L(max_epochs=2)",
          f"{LOOPED}; schedules take it for 2 epochs x ? (needs train_samples) iterations = ? (needs train_samples) iterations"]),
        ({"train_cfg": {**OWN, "max_epochs": 2}}, Facts(train_iterable=True),
         ["loop         pkg:L(max_epochs=2)",
          f"{LOOPED}; schedules take it for 2 epochs x ? (needs an end) iterations = ? (needs an end) iterations"]),
        ({"train_cfg": {**OWN, "max_iters": 4000}}, Facts(),
         ["loop         pkg:L(max_iters=4000)", f"{LOOPED}; schedules take it for 4,000 iterations"]),
    ],
)  # fmt: skip
def test_length(changes, facts, expected):
    assert list(length_of(flexcore.plan(base(**changes), facts))) == expected


def decayed(**paramwise):
    return {"optimizer": {"type": "SGD", "lr": 0.1, "weight_decay": 0.01}, "paramwise_cfg": paramwise}


NAMED = evolve(
    KNOWN,
    parameters=tuple(
        ParameterFact(name=f"a.{i}.{n}", shape=(1,)) for i in range(600) for n in ("weight", "bias")
    ),
)
PARTED = evolve(
    KNOWN,
    parameters=tuple(ParameterFact(name=n, shape=(1,)) for n in ("one.weight", "one.bias", "other.weight")),
)
LINEAR = {"type": "LinearLR", "by_epoch": False, "end": 10}  # from a third
PLATEAU = {"type": "ReduceOnPlateauLR", "monitor": "acc"}
RAISED = {"type": "CosineAnnealingLR", "by_epoch": False, "eta_min": 0.01, "end": 5 * 10**8, "T_max": 10**8}
SGD = "optimizer    SGD(lr=0.1)"


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        ({}, KNOWN, [SGD, "lr           0.1 throughout"]),
        ({"auto_scale_lr": {"enable": True, "base_batch_size": 4}}, KNOWN, [SGD, "lr           0.1 throughout"]),
        ({"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.5}},
          "param_scheduler": {"type": "ConstantMomentum", "factor": 0.5, "end": 2, "by_epoch": False}}, KNOWN,
         ["optimizer    SGD(lr=0.1, momentum=0.5)", "momentum     Constant: 0.25 @0  0.5 @18  0.5 @37  0.5 @56  0.5 @74",
          "lr           0.1 throughout"]),
        ({"auto_scale_lr": {"enable": True, "base_batch_size": 8}}, KNOWN,
         [f"{SGD}; LR scaled by 0.5", "lr           0.05 throughout"]),
        ({"optim_wrapper": SEVERAL, "param_scheduler": {"one": LINEAR, "other": []}}, STEPPED,
         ["optimizer    one: SGD(lr=0.1)", "lr           one: Linear: 0.03333 @0  0.1 @18  0.1 @37  0.1 @56  0.1 @74",
          "optimizer    other: SGD(lr=0.3)", "lr           other: 0.3 throughout"]),
        ({"optim_wrapper": {**ADAM, "type": "AmpOptimWrapper", "dtype": "bfloat16", "clip_grad": {"max_norm": 2}}}, KNOWN,
         ["optimizer    AdamW(lr=0.1); clip norm 2.0; autocast bfloat16", "lr           0.1 throughout"]),
        ({"optim_wrapper": {"optimizer": Supplied(), "clip_grad": {"type": "value", "clip_value": 0.5}},
          "param_scheduler": [{"type": "LinearLR", "end": 2}, {"type": "LinearMomentum", "end": 2}]}, KNOWN,
         ["optimizer    supplied at run time; clip value 0.5",
          "lr           Linear: lr is not in the config and the optimizer has not been built",
          "momentum     Linear: momentum is not in the config and the optimizer has not been built"]),
        ({"optim_wrapper": decayed(bias_decay_mult=0)}, NAMED,
         ["optimizer    SGD(lr=0.1, weight_decay=0.01)",
          "groups       1,200: 600 with lr 0.1 weight_decay 0.01, 600 with lr 0.1 weight_decay 0", "lr           0.1 throughout"]),
        ({"strategy": {"type": "DeepSpeedStrategy", "zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}, **AMONG,
          "optim_wrapper": ADAM}, TWO, ["optimizer    AdamW(lr=0.1); model in bfloat16", "lr           0.1 throughout"]),
        ({"optim_wrapper": {"optimizer": {"type": "ZeroRedundancyOptimizer", "optimizer_class": "AdamW", "lr": 0.1}}, **AMONG}, TWO,
         ["optimizer    AdamW(lr=0.1); state spread over the ranks", "lr           0.1 throughout"]),
        ({"param_scheduler": [LINEAR, {"type": "PolyLR"}]}, KNOWN,
         [SGD, "lr           Linear, then Poly: 0.03333 @0  0.1 @18  0.05 @37  0 @56  0 @74"]),
        ({"param_scheduler": {"type": "PolyLR"}, "train_cfg": {"by_epoch": True, "max_epochs": 1}}, evolve(KNOWN, train_samples=7),
         [SGD, "lr           Poly: 0.1 @0  0.1 @1"]),
        ({"param_scheduler": {"type": "PolyLR"}, "train_cfg": {"by_epoch": True, "max_epochs": 0}}, KNOWN, [SGD, "lr           Poly: ?"]),
        ({"param_scheduler": {"type": "PolyLR"}}, Facts(), [SGD, "lr           ? (needs train_samples)"]),
        ({"param_scheduler": {"type": "PolyLR"}, **AMONG}, RANKLESS, [SGD, "lr           ? (needs world_size)"]),
        ({"param_scheduler": PLATEAU, **VALIDATION}, KNOWN,
         [SGD, "lr           ReduceOnPlateau: validations of acc decide it (ReduceOnPlateau)"]),
        ({"param_scheduler": {"one": [], "other": PLATEAU}, **VALIDATION,
          "optim_wrapper": {"one": decayed(bias_lr_mult=2), "other": SEVERAL["other"]}}, evolve(PARTED, train_step=True),
         ["optimizer    one: SGD(lr=0.1, weight_decay=0.01)",
          "groups       one: 2: 1 with lr 0.1 weight_decay 0.01, 1 with lr 0.2 weight_decay 0.01", "lr           one: 0.1 throughout",
          "optimizer    other: SGD(lr=0.3)", "lr           other: ReduceOnPlateau: validations of acc decide it (ReduceOnPlateau)"]),
        ({"param_scheduler": LINEAR, "train_cfg": OWN}, KNOWN, [SGD, "lr           Linear: ?"]),
        ({"param_scheduler": [RAISED, {**LINEAR, "end": 10**9}], "train_cfg": {"by_epoch": False, "max_iters": 10**9}}, KNOWN,
         [SGD, "lr           Cosine, then Linear: 0.03333 @0  0.03333 @25000  0.03334 @50000  0.03334 @75000  0.03334 @99999  then by the recursion"]),
    ],
)  # fmt: skip
def test_rates(changes, facts, expected):
    assert list(rates_of(flexcore.plan(base(**changes), facts))) == expected


@pytest.mark.parametrize("lines", [batches_of, length_of, rates_of])
def test_an_evaluation_has_none_of_these(lines):
    assert list(lines(flexcore.plan(validating(), KNOWN, mode="val"))) == []
