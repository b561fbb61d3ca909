"""Plans as text and digests: what each difference in a request changes of what decides the weights, field by field."""

import hashlib
import json

import pytest
from attrs import evolve

import flexcore
from flexcore import Facts, Supplied
from flexcore.plan_files import config_digest, plan_digest, to_json, trajectory, trajectory_digest
from flexcore.rules import problem
from flexcore.starting import CHANGES
from tests.flexcore.base import KNOWN, base, planned, validating

LOADER = {"dataset": {"type": "pkg.data:Digits"}, "batch_size": 4}
SGD = {"type": "SGD", "lr": 0.1}
PLAN = planned(KNOWN)


def wrapped(optimizer=SGD, **more):
    return {"optim_wrapper": {"optimizer": optimizer, **more}}


def loaded(**more):
    return {"train_dataloader": {**LOADER, **more}}


@pytest.mark.parametrize(("changes", "facts", "expected"), [
    ({}, {}, set()), ({"work_dir": "elsewhere", "experiment_name": "x", "log_level": "DEBUG"}, {}, set()),
    ({"model": {"type": "pkg.models:Net", "width": 9}}, {}, {"model"}),
    (wrapped({"type": "Adam", "lr": 0.1}), {}, {"optimizer", "optimizer settings"}),
    (wrapped({"type": "SGD", "lr": 0.2}), {}, {"optimizer settings"}), (wrapped(clip_grad={"max_norm": 1}), {}, {"optimizer settings"}),
    ({"auto_scale_lr": {"enable": True, "base_batch_size": 2}}, {}, {"optimizer settings"}),
    ({"randomness": {"seed": 2}}, {}, {"seed", "order"}), (loaded(batch_size=5), {}, {"batches", "length"}),
    (loaded(batch_size=3), {}, {"batches", "length"}), (loaded(num_workers=3), {}, set()), (loaded(drop_last=True), {}, {"order"}),
    (loaded(sampler={"type": "DefaultSampler", "shuffle": False}), {}, {"order"}),
    (loaded(sampler={"type": "DefaultSampler", "seed": 3}), {}, {"order"}), (loaded(sampler="InfiniteSampler"), {}, {"order"}),
    (loaded(dataset="pkg:Other"), {}, {"data"}), ({"loss": "pkg:Loss"}, {}, {"loss"}),
    ({"data_preprocessor": "pkg:Pre"}, {}, {"preprocessor"}), (wrapped(accumulative_counts=5), {}, {"accumulation"}),
    (wrapped(accumulation_tail="step"), {}, {"accumulation"}), ({"param_scheduler": {"type": "StepLR", "step_size": 1}}, {}, {"schedules"}),
    (wrapped(type="AmpOptimWrapper", dtype="bfloat16"), {}, {"precision"}),
    ({"train_cfg": {"by_epoch": True, "max_epochs": 4}}, {}, {"length"}),
    ({"train_cfg": {"by_epoch": False, "max_iters": 75}}, {}, {"length"}),
    ({"train_cfg": {"type": "pkg:Loop", "max_epochs": 3}}, {}, {"loop"}),
    ({"global_batch_size": 4}, {}, {"clock", "batches", "accumulation", "order"}),
    ({"launcher": "pytorch"}, {"world_size": 2}, {"batches", "length"}), ({}, {"train_samples": 99}, {"order"}),
    ({}, {"started_at": "X", "entropy": 9, "device_type": "cuda"}, set()),
])  # fmt: skip
def test_what_a_difference_changes(changes, facts, expected):
    then, now = dict(trajectory(PLAN)), dict(trajectory(planned(evolve(KNOWN, **facts), **changes)))
    assert then.keys() == now.keys() == set(CHANGES)
    assert {name for name in now if now[name] != then[name]} == expected


def test_a_global_batch_is_the_same_on_any_world():
    plans = [
        planned(evolve(KNOWN, world_size=world), global_batch_size=8, launcher="pytorch") for world in (1, 2)
    ]
    assert trajectory(plans[0]) == trajectory(plans[1])
    longer = planned(KNOWN, global_batch_size=8, **wrapped(accumulation_tail="step"))
    assert dict(trajectory(longer))["accumulation"] == '"global"'


@pytest.mark.parametrize(("changes", "facts", "waiting"), [
    ({"randomness": {}}, {"entropy": None}, {"seed", "order"}),
    ({"randomness": {}, **loaded(sampler={"type": "DefaultSampler", "shuffle": False})}, {"entropy": None}, {"seed"}),
    ({}, {"train_samples": None}, {"batches", "order", "length"}),
    ({"param_scheduler": {"type": "PolyLR"}}, {"train_samples": None}, {"batches", "order", "length", "schedules"}),
    ({"launcher": "pytorch", "auto_scale_lr": {"enable": True, "base_batch_size": 2}}, {"world_size": None},
     {"batches", "order", "length", "optimizer settings"}),
    ({"launcher": "pytorch", "global_batch_size": 8}, {"world_size": None}, {"batches", "order", "length"}),
    ({"train_cfg": {"by_epoch": False, "max_iters": 75}}, {"train_samples": None}, {"batches", "order"}),
    (wrapped(paramwise_cfg={"bias_lr_mult": 2}), {}, {"optimizer settings"}),
    (loaded(sampler="pkg:Mine"), {"train_batches": 25}, set()),
])  # fmt: skip
def test_what_waits_for_a_fact_is_left_out(changes, facts, waiting):
    made = planned(evolve(KNOWN, **facts), **changes)
    assert set(CHANGES) - dict(trajectory(made)).keys() == waiting


def test_the_fields_as_text():
    found = dict(trajectory(planned(evolve(KNOWN, train_batches=25), **wrapped(Supplied()), train_dataloader={
        "dataset": Supplied(), "batch_size": 4, "sampler": "pkg:Mine"})))  # fmt: skip
    assert found["optimizer"] == '"supplied"'
    assert found["data"] == '{"$supplied":true}'
    assert found["order"] == '"the loader\'s own"'
    assert found["loop"] == '"built in"'
    assert found["batches"] == '{"data_parallel_size":1,"epoch_length":25,"micro_batch_size":4}'
    assert found["accumulation"] == '{"tail":"carry","window":1}'
    assert found["length"] == '{"max_epochs":3,"max_iters":75}'
    assert found["schedules"] == "[]"
    assert (found["seed"], found["clock"]) == ("1", '"micro"')
    whole = flexcore.plan(
        base(train_dataloader=Supplied()), evolve(KNOWN, train_batches=25, train_batch_size=4)
    )
    assert dict(trajectory(whole))["data"] == '{"$supplied":true}'
    assert dict(trajectory(PLAN))["order"] == (
        '{"contiguous":false,"drop_last":false,"endless":false,"samples":100,"seed":1,"shuffle":true}'
    )
    assert dict(trajectory(PLAN))["optimizer"] == '"SGD"'


def test_a_plan_that_does_not_train_is_its_model():
    plan = flexcore.plan(validating(), KNOWN, mode="val")
    assert trajectory(plan) == (("model", '{"type":"pkg.models:Net","width":8}'),)
    for part in ("train", "batching", "timeline"):
        assert trajectory(evolve(PLAN, **{part: None})) == trajectory(plan)
    assert trajectory(evolve(PLAN, optimizers=())) == trajectory(plan)


def test_a_batch_waits_where_it_is_the_ranks_own_and_unknown():
    batching = evolve(PLAN.batching, global_batch_size=None)
    for clock, there in (("micro", False), ("global", True)):
        made = evolve(PLAN, batching=evolve(batching, clock=clock))
        assert ("batches" in dict(trajectory(made))) is there


def test_what_a_global_batch_and_several_optimizers_are_as_text():
    found = dict(trajectory(planned(KNOWN, global_batch_size=8)))
    assert found["batches"] == '{"epoch_length":13,"global_batch_size":8}'
    assert dict(trajectory(PLAN))["optimizer settings"] == (
        '[{"lr":0.1,"type":"SGD"},[{"values":[["lr",0.1]]}],null]'
    )


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_digests():
    """Of the fields; of everything but what it rests on; of the request alone."""
    assert trajectory_digest(PLAN) == sha(json.dumps(trajectory(PLAN)))
    other = evolve(PLAN, facts=Facts(entropy=7), notices=())
    assert plan_digest(other) == plan_digest(PLAN)
    notice = problem("FC008", ("resume",), "found nothing.", "Nothing to do.")
    assert plan_digest(evolve(PLAN, notices=(notice,))) == plan_digest(evolve(PLAN, notices=()))
    assert plan_digest(evolve(PLAN, mode="val")) != plan_digest(PLAN)
    bare = json.loads(to_json(evolve(PLAN, facts=Facts(), notices=())))
    del bare["kind"]
    assert plan_digest(PLAN) == sha(json.dumps(bare, sort_keys=True, separators=(",", ":")))
    config = json.dumps(bare["config"], sort_keys=True, separators=(",", ":"))
    assert config_digest(PLAN) == sha(config + "train" + "False")
    assert config_digest(evolve(PLAN, mode="val", smoke=True)) == sha(config + "val" + "True")


def test_the_text_is_told_apart_and_indented_at_will():
    assert json.loads(to_json(PLAN))["kind"] == "flexcore.plan"
    assert "\n" not in to_json(PLAN)
    assert to_json(PLAN, indent=2).startswith('{\n  "kind": "flexcore.plan"')


@pytest.mark.parametrize(("text", "told"), [
    ("{", "is not JSON: 'Expecting property name enclosed in double quotes: line ...."),
    ("[]", "is not a flexcore plan."), ("{}", "is not a flexcore plan."), ('{"kind": "other"}', "is not a flexcore plan."),
    ('{"kind": "flexcore.plan"}', "has format_version None; this release reads 1."),
    ('{"kind": "flexcore.plan", "format_version": 99}', "has format_version 99; this release reads 1."),
    ('{"kind": "flexcore.plan", "format_version": 1, "mode": {"$set": [[]]}}',
     "holds what no plan can: \"unhashable type: 'list'\"."),
    ('{"kind": "flexcore.plan", "format_version": 1, "mode": {"$float": "x"}}',
     "holds what no plan can: \"could not convert string to float: 'x'\"."),
])  # fmt: skip
def test_what_is_no_plan_is_told(text, told):
    with pytest.raises(flexcore.ConfigError) as caught:
        flexcore.Plan.from_json(text)
    assert [str(p) for p in caught.value.problems] == [
        f"config: {told} Write it anew with `flexcore plan -o`. [FK002]"
    ]


def test_what_is_nested_without_end_is_no_plan():
    with pytest.raises(flexcore.ConfigError) as caught:
        flexcore.Plan.from_json("[" * 100_000)
    assert [problem.message[:13] for problem in caught.value.problems] == ["is not JSON: "]


def test_a_number_no_field_can_hold_is_told_by_its_place():
    data = json.loads(to_json(PLAN))
    data["environment"]["timeout"] = 10**400
    with pytest.raises(flexcore.ConfigError) as caught:
        flexcore.Plan.from_json(json.dumps(data))
    assert str(caught.value) == (
        "environment.timeout: does not fit: 'int too large to convert to float'. Check the value's type. [FK011]"
    )
