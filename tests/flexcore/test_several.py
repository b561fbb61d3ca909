"""Several optimizers: what is asked, planned and answered of each, and every way in which they do not fit a model."""

import pytest
from attrs import evolve

import flexcore
from flexcore.columns import side_by_side
from flexcore.converting import dump, parse
from flexcore.facts import ParameterFact
from flexcore.plan_files import trajectory
from flexcore.provenance import why
from tests.flexcore.base import KNOWN, base, planned, told

GENERATOR = {
    "type": "OptimWrapper",
    "optimizer": {"type": "Adam", "lr": 1e-3},
    "clip_grad": {"max_norm": 1.0},
}
DISCRIMINATOR = {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}}
BOTH = {"generator": GENERATOR, "discriminator": DISCRIMINATOR}
FALLING = [{"type": "CosineAnnealingLR", "by_epoch": False}]
STEPPED = [{"type": "StepLR", "step_size": 1}]


def parameters(*names, shape=(3,), **more):
    return tuple(ParameterFact(name=name, shape=shape, **more) for name in names)


SEEN = evolve(
    KNOWN, parameters=parameters("generator.w", "discriminator.w", "discriminator.b"), train_step=True
)


def test_each_has_its_own_schedules_and_answers():
    plan = planned(SEEN, optim_wrapper=BOTH, param_scheduler={"generator": FALLING, "discriminator": STEPPED})
    assert [one.name for one in plan.optimizers] == ["generator", "discriminator"]
    assert plan.optimizer is plan.optimizers[0]
    assert plan.schedules == plan.optimizers[0].schedules
    alone = {name: planned(KNOWN, optim_wrapper=BOTH[name], param_scheduler=own)
             for name, own in (("generator", FALLING), ("discriminator", STEPPED))}  # fmt: skip
    for name, plan_alone in alone.items():
        for i in (0, 24, 25, 74):
            assert flexcore.value_at(plan, "lr", i, optimizer=name) == flexcore.value_at(plan_alone, "lr", i)


def test_one_list_of_schedules_is_for_all():
    plan = planned(SEEN, optim_wrapper=BOTH, param_scheduler=STEPPED)
    assert [flexcore.value_at(plan, "lr", 25, optimizer=name).value for name in BOTH] == [
        1e-4,
        pytest.approx(0.01),
    ]


def test_an_optimizer_without_a_list_of_its_own_keeps_its_rate():
    plan = planned(SEEN, optim_wrapper=BOTH, param_scheduler={"generator": STEPPED[0]})
    assert flexcore.value_at(plan, "lr", 74, optimizer="discriminator").value == 0.1
    assert flexcore.value_at(plan, "lr", 25, optimizer="generator").value == pytest.approx(1e-4)


def test_rates_are_scaled_alike():
    plan = planned(SEEN, optim_wrapper=BOTH, auto_scale_lr={"enable": True, "base_batch_size": 2})
    assert [flexcore.value_at(plan, optimizer=name).value for name in BOTH] == [2e-3, 0.2]


def test_which_optimizer_must_be_said():
    several, one = planned(SEEN, optim_wrapper=BOTH), planned(SEEN)
    for plan, name, expected in (
        (several, None, "optimizer=None: the optimizers are generator, discriminator"),
        (several, "critic", "optimizer='critic': the optimizers are generator, discriminator"),
        (one, "critic", "optimizer='critic': there is one optimizer, without a name"),
    ):
        with pytest.raises(KeyError) as caught:
            flexcore.value_at(plan, optimizer=name)
        assert caught.value.args == (expected,)


def test_paramwise_groups_are_of_the_submodule_alone():
    wrapper = {**BOTH, "discriminator": {**DISCRIMINATOR, "paramwise_cfg": {"bias_lr_mult": 2.0}}}
    seen = evolve(SEEN, parameters=parameters("discriminator.weight", "discriminator.bias", "generator.bias"))
    groups = planned(seen, optim_wrapper=wrapper).optimizers[1].groups
    assert [(group.params, group.base("lr")) for group in groups] == [
        (("discriminator.weight",), 0.1), (("discriminator.bias",), 0.2),
    ]  # fmt: skip
    waiting = planned(KNOWN, optim_wrapper=wrapper)
    assert [(u.field, u.fact) for u in waiting.unresolved] == [
        ("optimizers.discriminator.groups", "parameters")
    ]
    reason = flexcore.value_at(waiting, optimizer="discriminator").reason
    assert reason == "the groups of paramwise_cfg need the model's parameters"
    assert flexcore.value_at(waiting, optimizer="generator").value == 1e-3


@pytest.mark.parametrize(
    "wrapper",
    [
        BOTH,
        {"type": "OptimWrapperDict", **BOTH},
        {"type": "mmengine.optim.OptimWrapperDict", **BOTH},
        {"constructor": "MultiOptimWrapperConstructor", **BOTH},
        {"parts.generator": GENERATOR, "$odd": DISCRIMINATOR},
    ],
)
def test_what_was_asked_survives_every_way_round(wrapper):
    config = parse(base(optim_wrapper=wrapper, param_scheduler={name: FALLING for name in wrapper
                                                                if name not in ("type", "constructor")}))  # fmt: skip
    assert parse(dump(config)) == config
    plan = flexcore.plan(config, KNOWN)
    assert flexcore.Plan.from_json(plan.to_json()) == plan
    assert plan.to_json().count('"lr": 0.1') >= 2


def test_the_text_has_a_row_for_each():
    text = str(planned(SEEN, optim_wrapper=BOTH, param_scheduler={"generator": FALLING}))
    rows = [line for line in text.splitlines() if line.split(" ")[0] in ("length", "optimizer", "lr")]
    assert rows == [
        "length       3 epochs x 25 iterations = 75; the model's train_step updates the optimizers",
        "optimizer    generator: Adam(lr=0.001); clip norm 1.0",
        "lr           generator: Cosine: 0.001 @0  0.0008645 @18  0.0005105 @37  0.0001502 @56  4.386e-07 @74",
        "optimizer    discriminator: SGD(lr=0.1, momentum=0.9)",
        "lr           discriminator: 0.1 throughout",
    ]


def test_a_model_with_a_train_step_counts_its_own_updates():
    alone, several = planned(evolve(KNOWN, train_step=True)), planned(KNOWN, optim_wrapper=BOTH)
    for plan in (alone, several):
        assert (plan.timeline.updates, plan.timeline.optimizer_steps) == ("model", None)
    assert "75; the model's train_step updates the optimizer\n" in str(alone)
    plain = planned(evolve(KNOWN, train_step=False))
    assert (plain.timeline.updates, plain.timeline.optimizer_steps) == ("planned", 75)
    assert trajectory(plain) == trajectory(alone)


def test_columns_and_origins_name_the_optimizer():
    plan = planned(SEEN, optim_wrapper=BOTH)
    rows = [line for line in side_by_side(plan, [1, 2]).splitlines() if "lr" in line]
    assert [" ".join(row.split()) for row in rows] == [
        "generator lr at start 0.001 0.001", "generator lr at the end 0.001 0.001",
        "discriminator lr at start 0.1 0.1", "discriminator lr at the end 0.1 0.1",
    ]  # fmt: skip
    asked = why(plan, "optim_wrapper.generator.optimizer.lr")
    assert (asked.value, asked.kind) == (1e-3, "user")
    assert why(plan, "timeline.updates").value == "model"


def test_the_trajectory_holds_every_optimizer():
    plan = planned(SEEN, optim_wrapper=BOTH)
    slower = {**BOTH, "discriminator": {"optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9}}}
    other = {**BOTH, "discriminator": {"optimizer": {"type": "Adam", "lr": 0.1}}}
    for wrapper, changed in ((slower, {"optimizer settings"}), (other, {"optimizer", "optimizer settings"})):
        now = dict(trajectory(planned(SEEN, optim_wrapper=wrapper)))
        assert {name for name, value in trajectory(plan) if now[name] != value} == changed
    assert planned(SEEN, optim_wrapper=BOTH).trajectory_digest == plan.trajectory_digest


NAMED = (
    "Give them an optimizer of their own: several, named by submodule, and a model with train_step. [FO006]"
)
G, D = BOTH["generator"], BOTH["discriminator"]
MUON = {"optimizer": {"type": "Muon"}}
SPARSE = {"optimizer": {"type": "SparseAdam"}}
ZERO = {"type": "ZeroRedundancyOptimizer", "lr": 0.1}
W2 = evolve(KNOWN, world_size=2)
WRONG = {
    "nobody's": ({"optim_wrapper": BOTH}, evolve(SEEN, parameters=(*SEEN.parameters, *parameters("head.w", "head.b"))), [
        "optim_wrapper: no optimizer trains head.w, head.b. Add an optimizer for that submodule, or freeze it. [FO001]"]),
    "two's": ({"optim_wrapper": {**BOTH, "generator.head": D}}, evolve(SEEN, parameters=(*SEEN.parameters, *parameters("generator.head.w"))), [
        "optim_wrapper: generator and generator.head both train generator.head.w. Let one of them have it: name submodules that share none. [FO002]"]),
    "shared": ({"optim_wrapper": BOTH}, evolve(SEEN, parameters=(*SEEN.parameters, ParameterFact(name="discriminator.same", shape=(3,), alias="generator.w"))), [
        "optim_wrapper: generator and discriminator both train generator.w. Let one of them have it: name submodules that share none. [FO002]"]),
    "misspelt": ({"optim_wrapper": {"generatr": G, "discriminator": D}}, SEEN, [
        'optim_wrapper.generatr: is not a submodule of the model with parameters. Did you mean "generator"? [FO003]',
        "optim_wrapper: no optimizer trains generator.w. Add an optimizer for that submodule, or freeze it. [FO001]"]),
    "frozen": ({"optim_wrapper": BOTH}, evolve(SEEN, parameters=(*parameters("generator.w"), *parameters("discriminator.w", requires_grad=False))), [
        "optim_wrapper.discriminator: has no parameter that trains. Unfreeze some, or remove it. [FO003]"]),
    "no name": ({"optim_wrapper": {"a..b": G, "": D}}, KNOWN, [
        "optim_wrapper.a..b: 'a..b' cannot be the name of a submodule. Write \"generator\", or \"parts.generator\". [FO003]",
        "optim_wrapper.: '' cannot be the name of a submodule. Write \"generator\", or \"parts.generator\". [FO003]"]),
    "no train_step": ({"optim_wrapper": BOTH}, evolve(SEEN, train_step=False), [
        "model: has no train_step, and the config has several optimizers: nothing says which is updated when. Give it train_step(data, optim_wrapper), or use one optimizer. [FO004]"]),
    "windows": ({"optim_wrapper": {"a": {**G, "accumulative_counts": 2}, "b": {**D, "accumulation_tail": "drop"}}}, KNOWN, [
        "optim_wrapper: accumulative_counts differs: a 2, b 1; all optimizers share the run's accumulation windows. Give all the same; train_step decides how often each is updated. [FO005]",
        "optim_wrapper: accumulation_tail differs: a carry, b drop; all optimizers share the run's accumulation windows. Give all the same; train_step decides how often each is updated. [FO005]"]),
    "schedules": ({"optim_wrapper": BOTH, "param_scheduler": {"generatr": FALLING, "zzz": []}}, KNOWN, [
        'param_scheduler.generatr: is not the name of an optimizer. Did you mean "generator"? [FO009]',
        "param_scheduler.zzz: is not the name of an optimizer. Optimizers: generator, discriminator. [FO009]"]),
    "schedules of one": ({"param_scheduler": {"generator": FALLING}}, KNOWN, [
        "param_scheduler.generator: names an optimizer, and there is just one, without a name. Write one list of schedules. [FO009]"]),
    "inside": ({"optim_wrapper": {"a": {"optimizer": {"type": "LBFGS"}}, "b": {"optimizer": {"type": "SGD", "lr": -1}, "clip_grad": {}}}}, KNOWN, [
        "optim_wrapper.b.optimizer.lr: must be a finite number >= 0, got -1. Correct the LR. [FK020]",
        'optim_wrapper.b.clip_grad: lacks the key "max_norm". Add "max_norm" for type="norm". [FK012]',
        "optim_wrapper.a.optimizer.type: 'LBFGS' is known but not built: it evaluates the loss several times a step, through a closure, so no plan can count its steps. Use AdamW or SGD. [FK014]"]),
    "misfits": ({"optim_wrapper": {"a": {"optimizer": {"type": "SGD"}, "clip": 1}, "b": {}, "constructor": 3}}, KNOWN, [
        "optim_wrapper.constructor: must be text, got 3. Correct the value. [FK011]"]),
    "misfits within": ({"optim_wrapper": {"a": {"optimizer": {"type": "SGD"}, "clip": 1}, "b": {}}}, KNOWN, [
        "optim_wrapper.a.clip: is not a setting of OptimWrapper. Did you mean \"clip_grad\"? [FK010]",
        'optim_wrapper.b: lacks the key "optimizer". Add "optimizer". [FK012]']),
    "none": ({"optim_wrapper": {"type": "OptimWrapperDict"}}, KNOWN, [
        "optim_wrapper: names no optimizer. Add one by its submodule: generator=dict(optimizer=...). [FK012]"]),
    "constructor": ({"optim_wrapper": {**BOTH, "constructor": "Mine"}}, KNOWN, [
        "optim_wrapper.constructor: 'Mine' is a constructor of your own, and none is called here. Remove it: each optimizer takes the parameters of the submodule it is named after. [FK014]"]),
    "supplied": ({"optim_wrapper": {"a": {"optimizer": flexcore.Supplied()}, "b": D}}, KNOWN, [
        "optim_wrapper.a.optimizer: is one of several and supplied; several are built from the config. Write dict(type=..., lr=...). [FK014]"]),
    "muon": ({"optim_wrapper": MUON}, evolve(KNOWN, parameters=(*parameters("w", shape=(2, 3)), *parameters("b"))), [
        f"optim_wrapper.optimizer: Muon takes matrices alone, and b is not of two dimensions. {NAMED}"]),
    "sparse": ({"optim_wrapper": SPARSE}, evolve(KNOWN, parameters=(*parameters("e.w", kind="sparse"), *parameters("l.w", owner="Linear"), *parameters("own.w", owner="Mine"))), [
        f"optim_wrapper.optimizer: SparseAdam takes sparse gradients alone, and those of l.w are dense. {NAMED}"]),
    "dense": ({"optim_wrapper": G}, evolve(KNOWN, parameters=parameters("e.w", kind="sparse")), [
        "optim_wrapper.optimizer: Adam takes dense gradients alone, and those of e.w are sparse. Use SGD, Adagrad or SparseAdam for them, or sparse=False. [FO006]"]),
    "sparse over ranks": (
        {"optim_wrapper": {"optimizer": {"type": "SGD"}}},
        evolve(W2, parameters=parameters("e.w", kind="sparse"), train_step=True),
        [
            "model: steps itself, and over ranks that takes dense gradients; those of e.w are sparse. Use sparse=False, or one rank. [FO006]"
        ],
    ),
    "shards of none": ({"optim_wrapper": {"optimizer": ZERO}}, W2, [
        'optim_wrapper.optimizer: lacks the key "optimizer_type". Add optimizer_type="AdamW". [FK012]']),
    "shards of two": ({"optim_wrapper": {"optimizer": {**ZERO, "optimizer_type": "SGD", "optimizer_class": "SGD"}}}, W2, [
        'optim_wrapper.optimizer: has both "optimizer_type" and "optimizer_class". Keep one of them. [FK019]']),
    "shards of shards": ({"optim_wrapper": {"optimizer": {**ZERO, "optimizer_type": "ZeroRedundancyOptimizer"}}}, W2, [
        'optim_wrapper.optimizer.optimizer_type: is a ZeroRedundancyOptimizer itself. Write "AdamW". [FK013]']),
    "shards of 3": ({"optim_wrapper": {"optimizer": {**ZERO, "optimizer_class": 3, "overlap_with_ddp": True}}}, W2, [
        'optim_wrapper.optimizer.optimizer_class: must be text, got 3. Write "AdamW". [FK011]',
        "optim_wrapper.optimizer.overlap_with_ddp: True is understood but not built yet. Remove it; nothing is silently ignored. [FK014]"]),
    "shards alone": ({"optim_wrapper": {"optimizer": {**ZERO, "optimizer_type": "SGD"}}}, KNOWN, [
        "optim_wrapper.optimizer: spreads optimizer state over ranks, and this run has one. Run with --nproc N or torchrun under DDPStrategy, or use 'SGD'. [FO007]"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_told(name):
    changes, facts, expected = WRONG[name]
    assert told(base(**changes), facts) == expected


def test_many_names_are_cut_short():
    facts = evolve(SEEN, parameters=(*SEEN.parameters, *parameters(*(f"head.w{i}" for i in range(7)))))
    (text,) = told(base(optim_wrapper=BOTH), facts)
    assert "head.w0, head.w1, head.w2, head.w3, head.w4 and 2 more." in text


@pytest.mark.parametrize("inner", ["SGD", "torch.optim:SGD", "torch.optim.sgd:SGD"])
@pytest.mark.parametrize("key", ["optimizer_type", "optimizer_class"])
def test_a_sharded_optimizer_is_planned_as_the_one_inside(inner, key):
    """So its checkpoints go on under it, and under a ZeroRedundancyOptimizer of it."""
    zero = planned(W2, optim_wrapper={"optimizer": {**ZERO, key: inner, "momentum": 0.5}})
    plain = planned(W2, optim_wrapper={"optimizer": {"type": inner, "lr": 0.1, "momentum": 0.5}})
    assert (zero.optimizer.sharded, plain.optimizer.sharded) == (True, False)
    assert evolve(zero.optimizer, sharded=False) == plain.optimizer
    assert zero.trajectory_digest == plain.trajectory_digest
    assert zero.plan_digest != plain.plan_digest
    assert "lr=0.1, momentum=0.5); state spread over the ranks\n" in str(zero)
