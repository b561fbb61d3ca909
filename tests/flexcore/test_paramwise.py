"""Groups of paramwise_cfg from parameter records alone, and every rule about them."""

import pytest
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

import flexcore
from flexcore import Facts
from flexcore.components import freeze
from flexcore.config import Paramwise
from flexcore.facts import ParameterFact
from flexcore.paramwise import matching
from tests.flexcore.base import KNOWN, base, planned, told

SGD = {"type": "SGD", "lr": 0.1, "weight_decay": 0.01, "momentum": 0.9}
SEEN = evolve(KNOWN, parameters=(
    ParameterFact(name="scale", shape=(1,)),
    ParameterFact(name="stem.weight", shape=(4, 3), owner="Linear"),
    ParameterFact(name="stem.norm.weight", shape=(4,), kind="norm"),
    ParameterFact(name="dcn.conv_offset.weight", shape=(4, 4, 1, 1), kind="conv", deformable=True),
    ParameterFact(name="dcn.conv_offset.bias", shape=(4,), kind="conv", deformable=True),
    ParameterFact(name="head.bias", shape=(4,)),
    ParameterFact(name="head.tied", shape=(4, 3), alias="stem.weight"),
))  # fmt: skip


def groups(paramwise, facts=SEEN, optimizer=SGD, **more):
    plan = planned(facts, optim_wrapper={"optimizer": optimizer, "paramwise_cfg": paramwise}, **more)
    return {g.params[0]: g for g in plan.optimizer.groups}


def test_the_longest_key_decides_alone_then_the_alphabet():
    keys = {"stem": {"lr_mult": 0.5}, "stem.norm": {"decay_mult": 0.0}, ".scale": {"lr": 3.0}, "head": {"lr_mult": 2.0},
            "bias": {"lr_mult": 4.0}}  # fmt: skip
    found = groups({"custom_keys": keys, "norm_decay_mult": 7.0})
    assert {name: (g.base("lr"), g.base("weight_decay")) for name, g in found.items()} == {
        "scale": (3.0, 0.01), "stem.weight": (0.05, 0.01), "stem.norm.weight": (0.1, 0.0),
        "dcn.conv_offset.weight": (0.1, 0.01), "dcn.conv_offset.bias": (0.4, 0.01), "head.bias": (0.4, 0.01),
    }  # fmt: skip


def test_rules_by_kind():
    found = groups(
        {"bias_lr_mult": 2.0, "dcn_offset_lr_mult": 3.0, "flat_decay_mult": 0.5, "norm_decay_mult": 0.0}
    )
    assert {name: (g.base("lr"), g.base("weight_decay")) for name, g in found.items()} == {
        "scale": (0.1, 0.005), "stem.weight": (0.1, 0.01), "stem.norm.weight": (0.1, 0.0),
        "dcn.conv_offset.weight": (pytest.approx(0.3), 0.01), "dcn.conv_offset.bias": (pytest.approx(0.3), 0.01),
        "head.bias": (0.2, 0.005),
    }  # fmt: skip


def test_depthwise_layers_have_rules_of_their_own():
    seen = evolve(SEEN, parameters=(
        ParameterFact(name="dw.weight", shape=(4, 1, 3, 3), kind="depthwise"),
        ParameterFact(name="dcn.conv_offset.weight", shape=(4, 1, 3, 3), kind="depthwise", deformable=True),
        ParameterFact(name="stem.weight", shape=(4, 4, 3, 3), kind="conv"),
    ))  # fmt: skip
    found = groups({"dwconv_decay_mult": 0.5, "dcn_offset_lr_mult": 3.0}, seen)
    assert {name: (g.base("lr"), g.base("weight_decay")) for name, g in found.items()} == {
        "dw.weight": (0.1, 0.005), "dcn.conv_offset.weight": (pytest.approx(0.3), 0.005), "stem.weight": (0.1, 0.01),
    }  # fmt: skip


def test_a_key_with_a_dot_in_front_is_a_whole_name_only_at_the_top():
    settings = Paramwise(custom_keys=freeze({".scale": {"lr_mult": 2.0}, "b.s": {"lr_mult": 3.0}}))
    assert [matching(settings, name) for name in ("scale", "scale.weight", "b.scale", "ab.s.x", "other")] == [
        ".scale", None, ".scale", "b.s", None,
    ]  # fmt: skip


def test_momentum_said_beside_betas_is_what_was_said():
    keys = {"stem": {"betas": [0.7, 0.9]}, "head": {"betas": [0.6, 0.9], "momentum": 0.2}}
    own = {"type": "pkg.optim:Own", "lr": 0.1, "momentum": 0.5}
    found = groups(
        {"custom_keys": keys}, optimizer=own, param_scheduler={"type": "ConstantMomentum", "end": 9}
    )
    assert [found[name].base("momentum") for name in ("scale", "stem.weight", "head.bias")] == [0.5, 0.7, 0.2]


def test_every_group_is_scaled_and_moves_from_its_own_base():
    plan = planned(
        evolve(SEEN, environment=(("RANK", "0"), ("WORLD_SIZE", "2")), world_size=2),
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.1}, "paramwise_cfg": {
            "custom_keys": {"stem": {"lr_mult": 0.5, "betas": [0.7, 0.9]}}}},
        auto_scale_lr={"enable": True, "base_batch_size": 4},
        param_scheduler=[{"type": "ExponentialLR", "gamma": 0.5}, {"type": "ConstantMomentum", "factor": 0.5, "end": 9}],
    )  # fmt: skip
    assert [flexcore.value_at(plan, "lr", 13, group).value for group in (0, 1)] == [0.1, 0.05]
    assert [flexcore.value_at(plan, "momentum", 0, group).value for group in (0, 1)] == [0.45, 0.35]
    assert "groups       6: 4 with lr 0.2, 2 with lr 0.1" in str(plan)
    assert flexcore.Plan.from_json(plan.to_json()) == plan


def test_without_the_parameters_groups_stay_symbolic():
    plan = planned(KNOWN, optim_wrapper={"optimizer": SGD, "paramwise_cfg": {"bias_lr_mult": 2.0}})
    assert flexcore.value_at(plan).reason == "the groups of paramwise_cfg need the model's parameters"
    assert [u.fact for u in plan.unresolved] == ["parameters"]
    assert "optimizer settings" not in dict(flexcore.plan_files.trajectory(plan))


def test_settings_that_change_nothing_leave_one_group():
    plan = planned(SEEN, optim_wrapper={"optimizer": SGD, "paramwise_cfg": {}})
    assert [g.params for g in plan.optimizer.groups] == [None]


W = "optim_wrapper.paramwise_cfg"
WRONG = {
    "matches nothing": ({"custom_keys": {"heads": {"lr_mult": 1.0}}}, SGD,
                        [f'{W}.custom_keys.heads: is in no parameter\'s name, so it changes nothing. Did you mean "head"? [FS010]']),
    "no decay": ({"norm_decay_mult": 0.0, "custom_keys": {"head": {"decay_mult": 0.0}}}, {"type": "AdamW"}, [
        f"{W}.norm_decay_mult: multiplies weight_decay, which the optimizer's config does not give. Give weight_decay in optim_wrapper.optimizer. [FS011]",
        f"{W}.custom_keys.head.decay_mult: multiplies weight_decay, which the optimizer's config does not give. Give weight_decay in optim_wrapper.optimizer. [FS011]",
    ]),
    "no lr": ({"bias_lr_mult": 2.0}, {"type": "pkg:Own"},
              [f"{W}: multiplies the LR, which the optimizer's config does not give. Give lr in optim_wrapper.optimizer. [FS011]"]),
    "misfits": ({"bias_lr_mult": -1.0, "custom_keys": {"head": {"lrmult": 1.0, "lr_mult": "x"}, "stem": 3, "": {}}}, SGD, [
        f"{W}.bias_lr_mult: must be a finite number >= 0, got -1.0. Correct the value. [FK020]",
        f'{W}.custom_keys.head.lrmult: is neither a multiplier nor a setting of SGD. Did you mean "lr_mult"? [FK010]',
        f"{W}.custom_keys.head.lr_mult: must be a finite number >= 0, got 'x'. Correct the value. [FK020]",
        f"{W}.custom_keys.stem: must be a mapping, got 3. Write dict(lr_mult=...) or dict(decay_mult=...). [FK011]",
        f"{W}.custom_keys.: must be part of parameters' names. Write it as text. [FK011]",
    ]),
    "closures": (None, {"type": "LBFGS"}, [
        "optim_wrapper.optimizer.type: 'LBFGS' is known but not built: it evaluates the loss several times a step, through a closure, so no plan can count its steps. Use AdamW or SGD. [FK014]"]),
    "shards": (None, {"type": "ZeroRedundancyOptimizer", "optimizer_type": "AdamW", "lr": 1.0}, [
        "optim_wrapper.optimizer: spreads optimizer state over ranks, and this run has one. Run with --nproc N or torchrun under DDPStrategy, or use 'AdamW'. [FO007]"]),
    "supplied": ({"bias_lr_mult": 1.0}, flexcore.Supplied(), [
        f"{W}: groups parameters, and the optimizer is supplied with groups of its own. Remove it, or let the optimizer be built. [FK019]"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told(name):
    paramwise, optimizer, expected = WRONG[name]
    wrapper = {"optimizer": optimizer, **({} if paramwise is None else {"paramwise_cfg": paramwise})}
    assert told(base(optim_wrapper=wrapper), SEEN) == expected


def test_a_schedule_needs_a_key_with_a_start():
    adagrad = base(
        optim_wrapper={"optimizer": {"type": "Adagrad"}}, param_scheduler=[{"type": "ConstantMomentum"}]
    )
    assert told(adagrad) == [
        "param_scheduler.0: moves 'momentum', which Adagrad has not. Schedule a key the optimizer has. [FS008]"
    ]
    own = base(optim_wrapper={"optimizer": {"type": "pkg:Own", "betas": (0.8, 0.9)}},
               param_scheduler=[{"type": "ConstantMomentum"}, {"type": "ConstantLR"}])  # fmt: skip
    assert told(own) == [
        "param_scheduler.1: moves 'lr', and nothing says where it starts. Give lr in optim_wrapper.optimizer, as a number. [FS008]"
    ]
    assert planned(Facts(), **{k: own[k] for k in ("optim_wrapper",)}).optimizer.groups[0].base("lr") is None


OWN = {"lr": 0.3, "weight_decay": 0.7, "momentum": 0.5, "dampening": 0.25}


def test_a_groups_own_settings_are_its_options():
    """What is no LR and no decay goes to torch as it is; the momentum a schedule starts from is the group's own."""
    schedule = {"type": "ConstantMomentum", "factor": 0.5}
    adam = {"type": "Adam", "lr": 0.1, "betas": (0.9, 0.99)}
    one = groups({"custom_keys": {"stem": OWN}}, param_scheduler=schedule)["stem.weight"]
    assert dict(one.options.entries) == {"momentum": 0.5, "dampening": 0.25}
    assert (one.base("lr"), one.base("weight_decay"), one.base("momentum")) == (0.3, 0.7, 0.5)
    betas = groups({"custom_keys": {"stem": {"betas": (0.6, 0.9)}}}, optimizer=adam, param_scheduler=schedule)
    assert (betas["stem.weight"].base("momentum"), betas["head.bias"].base("momentum")) == (0.6, 0.9)
    assert one.options and groups({"bias_lr_mult": 2.0})["stem.weight"].options is None


names = st.sampled_from(
    [
        "weight",
        "bias",
        "a.weight",
        "a.bias",
        "a.conv_offset.weight",
        "a.conv_offset.bias",
        "conv_offset.b.bias",
    ]
)
records = st.builds(
    ParameterFact, name=names, shape=st.sampled_from([(4,), (4, 3), ()]), deformable=st.booleans(),
    kind=st.sampled_from([None, "norm", "conv", "depthwise"]),
)  # fmt: skip
RULES = (
    "bias_lr_mult",
    "bias_decay_mult",
    "norm_decay_mult",
    "flat_decay_mult",
    "dwconv_decay_mult",
    "dcn_offset_lr_mult",
)
keys = st.dictionaries(
    st.sampled_from(["a", ".b", "bias", "weight", ".weight", "conv", "a.conv_offset", "."]),
    st.fixed_dictionaries({}, optional={"lr_mult": st.sampled_from([0.0, 3.0]), "decay_mult": st.sampled_from([0.0, 5.0])}),
    max_size=3,
)  # fmt: skip


@given(
    records, st.fixed_dictionaries({}, optional=dict.fromkeys(RULES, st.sampled_from([0.0, 2.0, 0.5]))), keys
)
def test_a_parameters_multipliers_are_those_of_the_rules_written_out(fact, rules, custom):
    """mmengine's DefaultOptimWrapperConstructor, rule by rule, for one parameter."""
    where = fact.name if "." in fact.name else f".{fact.name}"
    custom = {key: own for key, own in custom.items() if key in where}
    asked = {**rules, **({"custom_keys": custom} if custom else {})}
    assume(asked)  # else one group without a name
    expected = by_hand(fact, rules, custom)
    plan = planned(
        evolve(KNOWN, parameters=(fact,)), optim_wrapper={"optimizer": SGD, "paramwise_cfg": asked}
    )
    (group,) = plan.optimizer.groups
    assert (group.base("lr"), group.base("weight_decay")) == (
        pytest.approx(expected[0]),
        pytest.approx(expected[1]),
    )


def by_hand(fact, rules, custom):
    lr, decay = SGD["lr"], SGD["weight_decay"]
    for key in sorted(sorted(custom), key=len, reverse=True):
        return lr * custom[key].get("lr_mult", 1.0), decay * custom[key].get("decay_mult", 1.0)
    module, last = fact.name.rpartition(".")[::2]
    norm, offset = fact.kind == "norm", fact.deformable
    if last == "bias" and not norm and not offset:
        lr *= rules.get("bias_lr_mult", 1.0)
    if offset and "conv_offset" in module and fact.kind in ("conv", "depthwise"):
        lr = SGD["lr"] * rules.get("dcn_offset_lr_mult", 1.0) if "dcn_offset_lr_mult" in rules else lr
    if norm and "norm_decay_mult" in rules:
        return lr, decay * rules["norm_decay_mult"]
    if last == "bias" and not offset and "bias_decay_mult" in rules:
        return lr, decay * rules["bias_decay_mult"]
    if fact.kind == "depthwise" and "dwconv_decay_mult" in rules:
        return lr, decay * rules["dwconv_decay_mult"]
    if len(fact.shape) == 1 and not offset and "flat_decay_mult" in rules:
        return lr, decay * rules["flat_decay_mult"]
    return lr, decay
