"""Each optimizer of a plan, whole: base values, LR scale, precision, and what it trains."""

import pytest
from attrs import evolve

from flexcore import Facts, GroupFact, Supplied
from flexcore.components import Component, Data
from flexcore.config import AmpOptim
from flexcore.converting import parse
from flexcore.facts import ParameterFact
from flexcore.optimizing import any_waits, lr_scale, optimizers, precision, waits_for_parameters
from flexcore.plan_training import Batching, Group, Optimizer, Precision
from flexcore.schedules import Step
from flexcore.wrappers import asked, is_zero, owned, schedule_lists, scheduled_names, unwrapped

SGD = Component(type="SGD", kwargs=Data((("lr", 0.1), ("momentum", 0.9))))
BATCH = Batching(
    micro_batch_size=4, gradient_accumulation_steps=1, global_batch_size=8, data_parallel_size=2, clock="micro",
    per_iteration=1, tail="carry",
)  # fmt: skip
PLACE = ("param_scheduler",)


def config(optimizer=None, scheduler=None, scale=None, **wrapper):
    asked_for = {
        "optim_wrapper": {"optimizer": optimizer or {"type": "SGD", "lr": 0.1, "momentum": 0.9}, **wrapper}
    }
    asked_for |= {} if scheduler is None else {"param_scheduler": scheduler}
    return parse(asked_for | ({} if scale is None else {"auto_scale_lr": scale}))


USUAL = Optimizer(
    name=None, component=SGD, groups=(Group(values=(("lr", 0.1),)),), lr_scale=1.0, clip_grad=None,
    precision=Precision(), schedules=(), sharded=False,
)  # fmt: skip
MOMENTUM = {"type": "StepMomentum", "step_size": 3}


@pytest.mark.parametrize(("made", "facts", "schedules", "expected"), [
    (config(), {}, {}, USUAL),
    (config(), {}, {PLACE: None}, evolve(USUAL, schedules=None)),
    (config(), {}, {PLACE: (Step(),)}, evolve(USUAL, schedules=(Step(),))),
    (config(scheduler=MOMENTUM), {}, {}, evolve(USUAL, groups=(Group(values=(("lr", 0.1), ("momentum", 0.9))),))),
    (config(optimizer={"type": "Adam"}), {}, {},
     evolve(USUAL, component=Component(type="Adam"), groups=(Group(values=(("lr", 1e-3),)),))),
    (config(optimizer={"type": "pkg:Own"}), {}, {},
     evolve(USUAL, component=Component(type="pkg:Own"), groups=(Group(values=(("lr", None),)),))),
    (config(optimizer=Supplied()), {}, {},
     evolve(USUAL, component=Supplied(), groups=(Group(values=(("lr", None),)),))),
    (config(optimizer=Supplied(), scale={"enable": True, "base_batch_size": 4}),
     {"parameter_groups": (GroupFact(values=(("lr", 0.5), ("eps", 1.0))), GroupFact(values=()))}, {},
     evolve(USUAL, component=Supplied(), lr_scale=2.0,
            groups=(Group(values=(("lr", 1.0),)), Group(values=(("lr", None),))))),
    (config(scheduler=MOMENTUM, scale={"enable": True, "base_batch_size": 16}),
     {"parameter_groups": (GroupFact(values=(("momentum", 0.5), ("lr", 0.3))),)}, {},
     evolve(USUAL, lr_scale=0.5, groups=(Group(values=(("lr", 0.15), ("momentum", 0.5))),))),
    (config(paramwise_cfg={"bias_lr_mult": 2}, scheduler=MOMENTUM), {}, {},
     evolve(USUAL, groups=(Group(values=(("lr", None), ("momentum", None))),))),
    (config(paramwise_cfg={}), {}, {}, USUAL),
    (config(clip_grad={"max_norm": 2}), {}, {},
     evolve(USUAL, clip_grad=parse({"optim_wrapper": {"optimizer": "SGD", "clip_grad": {"max_norm": 2}}}).optim_wrapper.clip_grad)),
    (config(optimizer={"type": "ZeroRedundancyOptimizer", "optimizer_type": "SGD", "lr": 0.1, "momentum": 0.9}), {}, {},
     evolve(USUAL, sharded=True)),
])  # fmt: skip
def test_an_optimizer_as_planned(made, facts, schedules, expected):
    assert optimizers(made, BATCH, Facts(**facts), schedules) == (expected,)


def test_none_without_a_wrapper_and_one_each_of_several():
    assert optimizers(parse({}), BATCH, Facts(), {}) == ()
    several = parse(
        {
            "optim_wrapper": {
                "g": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
                "d": {"optimizer": "Adam"},
            }
        }
    )
    first, second = optimizers(several, BATCH, Facts(), {PLACE: ()})
    assert first == evolve(USUAL, name="g")
    assert (second.name, second.component) == ("d", Component(type="Adam"))


def test_groups_of_a_paramwise_setting_come_from_the_parameters_of_their_own():
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1}, "paramwise_cfg": {"bias_lr_mult": 2}}
    facts = Facts(
        parameters=tuple(ParameterFact(name=n, shape=(1,)) for n in ("g.weight", "g.bias", "d.bias"))
    )
    made = parse(
        {
            "optim_wrapper": {"g": wrapper, "d": {"optimizer": "Adam"}},
            "auto_scale_lr": {"enable": True, "base_batch_size": 4},
        }
    )
    first, _ = optimizers(made, BATCH, facts, {})
    assert [(group.values, group.params) for group in first.groups] == [
        ((("lr", 0.2),), ("g.weight",)), ((("lr", 0.4),), ("g.bias",)),
    ]  # fmt: skip
    unscaled, _ = optimizers(made, None, facts, {})
    assert [group.values for group in unscaled.groups] == [(("lr", 0.1),), (("lr", 0.2),)]
    assert any_waits(made, Facts())
    assert not any_waits(made, facts)
    assert [waits_for_parameters(one.wrapper, Facts()) for one in asked(made)] == [True, False]
    assert not waits_for_parameters(config(paramwise_cfg={}).optim_wrapper, Facts())


@pytest.mark.parametrize(("scale", "batching", "expected"), [
    (None, BATCH, 1.0), ({"enable": False, "base_batch_size": 4}, BATCH, 1.0), ({"enable": True, "base_batch_size": 16}, BATCH, 0.5),
    ({"enable": True, "base_batch_size": 2}, None, None), ({"enable": True}, BATCH, 1.0), (None, None, 1.0),
    ({"enable": True, "base_batch_size": 2}, evolve(BATCH, global_batch_size=None), None),
])  # fmt: skip
def test_the_lr_scale_is_the_global_batch_over_its_reference(scale, batching, expected):
    assert lr_scale(config(scale=scale), batching) == expected


def amp(**settings):
    return parse({"optim_wrapper": {"type": "AmpOptimWrapper", "optimizer": "SGD", **settings}}).optim_wrapper


@pytest.mark.parametrize(("wrapper", "device", "expected"), [
    (config().optim_wrapper, "cuda", Precision()),
    (amp(), "cuda", Precision(dtype="float16", loss_scale="dynamic")), (amp(), "cpu", Precision(dtype="bfloat16")),
    (amp(), None, Precision(dtype="bfloat16")), (amp(dtype="bfloat16"), "cuda", Precision(dtype="bfloat16")),
    (amp(dtype="float16"), "cpu", Precision(dtype="float16", loss_scale="dynamic")),
    (amp(dtype="float16", loss_scale=512), None, Precision(dtype="float16", loss_scale=512.0)),
    (amp(dtype="float16", loss_scale={"init_scale": 4, "growth_interval": 7}), None,
     Precision(dtype="float16", loss_scale="dynamic", init_scale=4.0, growth_interval=7)),
    (amp(dtype="bfloat16", loss_scale=512), None, Precision(dtype="bfloat16")),
])  # fmt: skip
def test_autocast_and_loss_scale(wrapper, device, expected):
    found = precision(wrapper, Facts(device_type=device))
    assert found == expected
    assert (type(found.growth_interval), type(found.init_scale)) == (int, float)
    assert isinstance(wrapper, AmpOptim) is (expected != Precision())


ZERO = {"type": "ZeroRedundancyOptimizer", "lr": 0.1, "parameters_as_bucket_view": True}


def component(data):
    return config(optimizer=data).optim_wrapper.optimizer


@pytest.mark.parametrize(("written", "inner", "sharded"), [
    ({"type": "SGD", "lr": 0.1}, component({"type": "SGD", "lr": 0.1}), False),
    ({**ZERO, "optimizer_type": "Adam"}, component({"type": "Adam", "lr": 0.1}), True),
    ({**ZERO, "optimizer_class": "Adam"}, component({"type": "Adam", "lr": 0.1}), True),
    ({**ZERO, "type": "torch.distributed.optim.ZeroRedundancyOptimizer", "optimizer_class": "Adam"},
     component({"type": "Adam", "lr": 0.1}), True),
    ({**ZERO, "type": "mmengine.optim:ZeroRedundancyOptimizer", "optimizer_type": "Adam"},
     component({"type": "Adam", "lr": 0.1}), True),
    ({**ZERO, "type": "pkg:ZeroRedundancyOptimizer", "optimizer_type": "Adam"},
     component({**ZERO, "type": "pkg:ZeroRedundancyOptimizer", "optimizer_type": "Adam"}), False),
    ({**ZERO, "optimizer_type": 3}, component({**ZERO, "optimizer_type": 3}), True),
])  # fmt: skip
def test_the_optimizer_inside_a_sharded_one(written, inner, sharded):
    made = component(written)
    assert unwrapped(made) == (inner, sharded)
    assert is_zero(made) is sharded
    assert unwrapped(Supplied()) == (Supplied(), False)


def test_schedules_go_to_all_or_by_name():
    plain = parse(
        {
            "optim_wrapper": {"a": {"optimizer": "SGD"}, "b": {"optimizer": "SGD"}},
            "param_scheduler": [{"type": "StepLR"}],
        }
    )
    (own,) = plain.param_scheduler
    assert schedule_lists(plain) == ((PLACE, (own,)),)
    assert scheduled_names(plain) == ()
    assert [(one.schedules_place, one.schedules) for one in asked(plain)] == [(PLACE, (own,))] * 2
    assert [(one.name, one.place) for one in asked(plain)] == [
        ("a", ("optim_wrapper", "a")),
        ("b", ("optim_wrapper", "b")),
    ]
    named = evolve(
        plain, param_scheduler=parse({"param_scheduler": {"b": [{"type": "StepLR"}]}}).param_scheduler
    )
    assert schedule_lists(named) == (((*PLACE, "b"), (own,)),)
    assert scheduled_names(named) == ("b",)
    assert [(one.schedules_place, one.schedules) for one in asked(named)] == [
        ((*PLACE, "a"), ()),
        ((*PLACE, "b"), (own,)),
    ]
    assert schedule_lists(config()) == ((PLACE, ()),)
    assert [(one.name, one.place, one.schedules_place) for one in asked(config())] == [
        (None, ("optim_wrapper",), PLACE)
    ]


def test_parameters_are_owned_once_by_their_first_name():
    facts = (
        ParameterFact(name="g.w", shape=(1,)), ParameterFact(name="d.tied", shape=(1,), alias="g.w"),
        ParameterFact(name="d.own", shape=(1,)), ParameterFact(name="dx.other", shape=(1,)),
        ParameterFact(name="d.frozen", shape=(1,), requires_grad=False),
    )  # fmt: skip
    assert [p.name for p in owned(None, facts)] == ["g.w", "d.own", "dx.other"]
    assert [p.name for p in owned("d", facts)] == ["g.w", "d.own"]
    assert [p.name for p in owned("g", facts)] == ["g.w"]
    assert owned("x", facts) == ()
