"""Which modules are gathered as one, and over which ranks: held against a walk of the tree written anew here."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import flexcore
from flexcore.components import Component, freeze
from flexcore.facts import Facts, ModuleFact, ParameterFact
from flexcore.problems import ConfigError
from flexcore.sharding import Wrapping, sharding, unit_of, units, wrapping
from flexcore.strategies import FSDP, MixedPrecision, SingleDevice, WrappedFSDP1
from tests.flexcore.base import KNOWN, base, validating

RANKED = evolve(KNOWN, world_size=4, environment=(("RANK", "0"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "h"), ("MASTER_PORT", "1"),
                                                  ("LOCAL_RANK", "0")))  # fmt: skip


def modules(*pairs):
    return tuple(ModuleFact(path=path, type=kind) for path, kind in pairs)


MODULES = modules(
    ("embed", "Embedding"), ("blocks", "ModuleList"), ("blocks.0", "Block"), ("blocks.0.up", "Linear"),
    ("blocks.0.down", "Linear"), ("blocks.1", "Block"), ("blocks.1.up", "Linear"), ("blocks.1.down", "Linear"), ("head", "Linear"),
)  # fmt: skip
PARAMETERS = tuple(
    ParameterFact(name=name, shape=shape)
    for name, shape in (
        ("embed.weight", (50, 4)), ("blocks.0.up.weight", (8, 4)), ("blocks.0.down.weight", (4, 8)),
        ("blocks.1.up.weight", (8, 4)), ("blocks.1.down.weight", (4, 8)), ("head.weight", (10, 4)), ("scale", ()),
    )
)  # fmt: skip
MODEL = Facts(modules=MODULES, parameters=PARAMETERS)
SEEN = evolve(RANKED, modules=MODULES, parameters=PARAMETERS)


def strategy(**settings):
    return dict(type="FSDPStrategy", **settings)


def planned(facts=SEEN, **settings):
    return flexcore.plan(base(strategy=strategy(**settings)), facts)


def told(facts=SEEN, changes=None, **settings):
    """Every finding about the strategy and the optimizer, as text."""
    cfg = base(strategy=strategy(**settings), **(changes or {}))
    return [str(p) for p in flexcore.lint(cfg, facts) if p.path[:1] in (("strategy",), ("optim_wrapper",))]


# --- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "blocks", "expected"),
    [
        (Wrapping(), None, ()),
        (Wrapping(), ("Block",), ("blocks.0", "blocks.1")),
        (Wrapping(classes=()), ("Block",), ()),
        (Wrapping(classes=("pkg.models:Block", "Embedding")), None, ("blocks.0", "blocks.1", "embed")),
        (Wrapping(classes=("Linear", "Block")), None,
         ("blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "blocks.0", "blocks.1", "head")),
        (Wrapping(min_params=64), None, ("blocks.0", "blocks.1", "embed")),
        (Wrapping(min_params=65), None, ("embed",)),
        (Wrapping(min_params=200), None, ("embed",)),
        (Wrapping(min_params=201), None, ()),
        (Wrapping(min_params=32), None, ("blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "embed", "head")),
    ],
)  # fmt: skip
def test_units_are_inner_first_and_as_asked(asked, blocks, expected):
    assert units(asked, evolve(MODEL, model_blocks=blocks)) == expected


def test_units_are_unknown_until_the_model_is_seen():
    assert units(Wrapping(), Facts()) is None
    assert units(Wrapping(), Facts(modules=())) is None
    assert units(Wrapping(), Facts(modules=(), parameters=())) == ()


paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join)
trees = st.sets(paths, max_size=12).map(
    lambda found: sorted({".".join(p.split(".")[:n]) for p in found for n in range(1, 5)})
)


@given(trees, st.data())
def test_units_by_size_hold_enough_parameters_of_their_own(tree, data):
    """Re-counted here from the leaves: a unit has enough without the units inside it, and nothing else has."""
    sizes = {path: data.draw(st.integers(0, 9)) for path in tree}
    kinds = {path: data.draw(st.sampled_from(["Linear", "ModuleList"])) for path in tree}
    least = data.draw(st.integers(1, 20))
    facts = Facts(
        modules=modules(*kinds.items()),
        parameters=tuple(ParameterFact(name=f"{path}.weight", shape=(size,)) for path, size in sizes.items()),
    )
    found = units(Wrapping(min_params=least), facts)
    left = {
        path: sum(n for name, n in sizes.items() if innermost(name, path, found) == path) for path in tree
    }
    assert set(found) == {path for path in tree if left[path] >= least and kinds[path] != "ModuleList"}
    assert all(
        found.index(inner) < found.index(outer)
        for inner in found
        for outer in found
        if inner.startswith(f"{outer}.")
    )


def innermost(name, candidate, found):
    """The unit below or at `candidate` that holds `name`, taking `candidate` for a unit too."""
    around = [path for path in {*found, candidate} if name == path or name.startswith(f"{path}.")]
    inside = [path for path in around if path == candidate or path.startswith(f"{candidate}.")]
    return max(inside, key=len, default=None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b.c.weight", "a.b"),
        ("a.bc.weight", "a"),
        ("x.weight", ""),
        ("a.b.weight", "a.b"),
        ("ab.weight", ""),
    ],
)
def test_a_parameter_belongs_to_its_innermost_unit(name, expected):
    assert unit_of(name, ("a.b", "a")) == expected


# --- the plan ------------------------------------------------------------------------------------


def test_a_plan_tells_its_shares():
    plan = planned(
        wrap=["Block"], activation_checkpointing=["Block"], mixed_precision=dict(param_dtype="bfloat16")
    )
    layout = plan.sharding
    assert (layout.units, layout.recomputed) == (("blocks.0", "blocks.1"), ("blocks.0", "blocks.1"))
    assert (layout.replicas, layout.shards, layout.reshard_after_forward) == (1, 4, None)
    assert (layout.cpu_offload, layout.skips_init) == (False, False)
    assert plan.batching.data_parallel_size == 4
    assert [line for line in str(plan).splitlines() if line.startswith(("runs on", "shares", "  "))][:4] == [
        "runs on      FSDPStrategy, 4 ranks on cpu over gloo (launcher pytorch)",
        "shares       over 4 ranks; 2 units beside the whole",
        "             computes in bfloat16, reduces in bfloat16",
        "             activations of 2 modules are computed again in backward",
    ]


def test_a_plan_tells_copies_and_what_stays():
    text = str(planned(shard_size=2, wrap=["Embedding"], reshard_after_forward=False, cpu_offload=True,
                       mixed_precision=dict(reduce_dtype="float32")))  # fmt: skip
    assert "shares       over 2 ranks, 2 copies; 1 unit beside the whole, gathered until backward\n" in text
    assert "             computes in the own dtype, reduces in float32\n" in text
    assert "             shares rest in host memory\n" in text
    assert ", shared by 2 ranks until backward" in str(planned(shard_size=4, reshard_after_forward=2))


def test_unknown_ranks_and_modules_stay_symbolic():
    plan = flexcore.plan(base(strategy=strategy(), launcher="pytorch"), evolve(KNOWN, world_size=None))
    assert (plan.sharding.units, plan.sharding.recomputed) == (None, None)
    assert (plan.sharding.replicas, plan.sharding.shards) == (None, None)
    assert ("sharding.units", "modules") in [(row.field, row.fact) for row in plan.unresolved]
    assert "shares       over ? (needs world_size) ranks; ? (needs modules) units beside the whole\n" in str(
        plan
    )
    assert "modules" not in [row.fact for row in planned().unresolved]


def test_other_strategies_have_no_shares():
    assert sharding(SingleDevice(), MODEL, 1) is None
    assert flexcore.plan(base(), KNOWN).sharding is None


def test_a_plan_of_shares_survives_json():
    plan = planned(wrap=["Block"], shard_size=2, mixed_precision=dict(param_dtype="bfloat16"))
    assert flexcore.Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("changes", "expected"),
    [(dict(), False), (dict(load_from="w"), True), (dict(resume="w"), True), (dict(resume=True), False)],
)
def test_initialisation_is_skipped_only_where_weights_come(changes, expected):
    plan = flexcore.plan(base(strategy=strategy(skip_init_weights=True), **changes), SEEN)
    assert plan.sharding.skips_init is expected
    assert not flexcore.plan(base(strategy=strategy(), **changes), SEEN).sharding.skips_init


# --- FlexibleRunner's keys -----------------------------------------------------------------------

BY_CLASS = dict(
    type="torch.distributed.fsdp.wrap.transformer_auto_wrap_policy", transformer_layer_cls=["m.Block"]
)


@pytest.mark.parametrize(
    ("wrapper", "expected"),
    [
        (dict(auto_wrap_policy=BY_CLASS), dict(wrap=("Block",))),
        (dict(auto_wrap_policy=dict(type="t.fsdp.wrap:ModuleWrapPolicy", module_classes="m:Block")), dict(wrap=("Block",))),
        (dict(auto_wrap_policy=dict(type="t:size_based_auto_wrap_policy", min_num_params=200)), dict(wrap_min_params=200)),
        (dict(auto_wrap_policy=dict(type="t:size_based_auto_wrap_policy")), dict(wrap_min_params=100_000_000)),
        (dict(auto_wrap_policy=dict(type="m:mine")), dict()),
        (dict(cpu_offload=True), dict(cpu_offload=True)),
        (dict(cpu_offload=dict(type="CPUOffload", offload_params=True)), dict(cpu_offload=True)),
        (dict(cpu_offload=dict(type="CPUOffload")), dict()),
        (dict(sharding_strategy="SHARD_GRAD_OP"), dict(reshard_after_forward=False)),
        (dict(sharding_strategy="FULL_SHARD"), dict()),
        (dict(mixed_precision=dict(type="MixedPrecision", param_dtype="torch.bfloat16", reduce_dtype="float32")),
         dict(mixed_precision=MixedPrecision(param_dtype="bfloat16", reduce_dtype="float32"))),
        (dict(mixed_precision=dict(keep_low_precision_grads=False)), dict()),
    ],
)  # fmt: skip
def test_the_first_fsdps_wrapper_is_taken_over(wrapper, expected):
    """The layout is that of our own keys."""
    theirs = flexcore.parse(base(strategy=strategy(model_wrapper=wrapper))).strategy
    assert sharding(theirs, MODEL, 4) == sharding(FSDP(**expected), MODEL, 4)


@pytest.mark.parametrize(("policy", "expected"), [
    ({"type": "size_based_auto_wrap_policy"}, Wrapping(min_params=100_000_000)),
    ({"type": "size_based_auto_wrap_policy", "min_num_params": "5"}, Wrapping(min_params=100_000_000)),
    ({"type": "size_based_auto_wrap_policy", "min_num_params": 5}, Wrapping(min_params=5)),
    ({"type": "lambda_auto_wrap_policy", "module_classes": ["Block"]}, Wrapping()),
    ({"type": "ModuleWrapPolicy", "module_classes": 5}, Wrapping(classes=())),
    ({"type": "ModuleWrapPolicy", "module_classes": ["a.Block"]}, Wrapping(classes=("Block",))),
])  # fmt: skip
def test_what_the_first_fsdps_policies_ask_for(policy, expected):
    component = Component(
        type=policy["type"], kwargs=freeze({k: v for k, v in policy.items() if k != "type"})
    )
    assert wrapping(FSDP(model_wrapper=WrappedFSDP1(auto_wrap_policy=component))) == expected


def test_own_keys_win_over_the_wrapper():
    wrapper = dict(
        auto_wrap_policy=BY_CLASS,
        sharding_strategy="SHARD_GRAD_OP",
        mixed_precision=dict(param_dtype="float16"),
    )
    own = dict(wrap_min_params=200, reshard_after_forward=True, mixed_precision=dict(param_dtype="bfloat16"))
    theirs = flexcore.parse(base(strategy=strategy(model_wrapper=wrapper, **own))).strategy
    ours = flexcore.parse(base(strategy=strategy(**own))).strategy
    assert sharding(theirs, MODEL, 4) == sharding(ours, MODEL, 4)


# --- what is refused -----------------------------------------------------------------------------

NOTHING = "gathers the whole model at once: no module is a unit of its own. Name the classes of its blocks in strategy.wrap. [FP024]"
TOLD = {
    "whole": (dict(), {}, [f"strategy: {NOTHING}"]),
    "ranges": (dict(shard_size=0, wrap_min_params=0), {}, [
        "strategy.wrap_min_params: must be at least 1, got 0. Correct the value. [FK020]",
        "strategy.shard_size: must be at least 1, got 0. Correct the value. [FK020]"]),
    "both": (dict(wrap=["Block"], wrap_min_params=1), {}, [
        "strategy.wrap_min_params: and wrap both choose the units. Keep one of them. [FK019]"]),
    "mesh": (dict(wrap=["Block"], shard_size=3), {}, [
        "strategy.shard_size: 3 ranks cannot share a copy evenly in a world of 4. Use one of 1, 2, 4. [FP020]"]),
    "reshard one": (dict(wrap=["Block"], reshard_after_forward=1), {}, [
        "strategy.reshard_after_forward: 1 is no part of a copy's ranks to reshard to. Use true, false or a divisor of shard_size. [FP020]"]),
    "reshard odd": (dict(wrap=["Block"], reshard_after_forward=3), {}, [
        "strategy.reshard_after_forward: 3 is no part of a copy's ranks to reshard to. Use true, false or a divisor of shard_size. [FP020]"]),
    "class": (dict(wrap=["Blok"], activation_checkpointing=["x:Line", "Zebra"]), {}, [
        """strategy.wrap.0: 'Blok' is the class of no module in the model. Did you mean "Block"? [FP023]""",
        """strategy.activation_checkpointing.0: 'x:Line' is the class of no module in the model. Did you mean "Linear"? [FP023]""",
        """strategy.activation_checkpointing.1: 'Zebra' is the class of no module in the model. Its classes: Block, Embedding, Linear, ModuleList. [FP023]""",
        f"strategy: {NOTHING}"]),
    "muon": (dict(wrap=["Block"]), dict(optim_wrapper=dict(optimizer=dict(type="Adafactor", lr=0.1))), [
        "optim_wrapper.optimizer: Adafactor looks at whole parameters, and a rank holds a share of each. Use an optimizer that goes number by number, or DDPStrategy. [FP021]"]),
    "float16": (dict(wrap=["Block"]), dict(optim_wrapper=dict(type="AmpOptimWrapper", optimizer=dict(type="SGD", lr=0.1), dtype="float16")), [
        'optim_wrapper.dtype: float16 scales the loss by what all gradients say, and a rank holds a share of each. Set dtype="bfloat16", or strategy.mixed_precision. [FP021]']),
    "scale": (dict(wrap=["Block"]), dict(optim_wrapper=dict(type="AmpOptimWrapper", optimizer=dict(type="SGD", lr=0.1), use_fsdp=True)), [
        "optim_wrapper.use_fsdp: changes nothing: bfloat16 needs no loss scale to share. Nothing to do. [FK023]"]),
    "moot": (dict(wrap=["Block"], state_dict_cfg="full", skip_init_weights=True, model_wrapper=dict(use_orig_params=True)), {}, [
        "strategy.model_wrapper.use_orig_params: changes nothing: fully_shard sees to it. Nothing to do. [FK023]",
        "strategy.state_dict_cfg: changes nothing: checkpoints hold whole tensors by name, whatever the strategy. Nothing to do. [FK023]",
        "strategy.skip_init_weights: changes nothing: neither load_from nor resume brings weights, so they are initialised. Set load_from, or drop the key. [FP022]"]),
    "wrapper": (dict(wrap=["Block"], model_wrapper=dict(auto_wrap_policy=dict(type="m:mine"), sharding_strategy="NO_SHARD",
                                                        mixed_precision=dict(buffer_dtype="float32"))), {}, [
        """strategy.model_wrapper.auto_wrap_policy: 'm:mine' is code that chooses modules, which no plan can tell beforehand. Name their classes in strategy.wrap. [FK014]""",
        """strategy.model_wrapper.sharding_strategy: 'NO_SHARD' does not shard the model. Use DDPStrategy. [FK013]""",
        "strategy.model_wrapper.mixed_precision.buffer_dtype: changes nothing: fully_shard leaves buffers alone. Nothing to do. [FK023]"]),
    "misspelt": (dict(wrap=["Block"], model_wrapper=dict(sharding_strategy="FULL_SHRAD")), {}, [
        """strategy.model_wrapper.sharding_strategy: 'FULL_SHRAD' does not shard the model. Did you mean "FULL_SHARD"? [FK013]"""]),
    "no strategy": (dict(wrap=["Block"], model_wrapper=dict(sharding_strategy="x")), {}, [
        "strategy.model_wrapper.sharding_strategy: 'x' does not shard the model. Known: FULL_SHARD, SHARD_GRAD_OP, _HYBRID_SHARD_ZERO2, HYBRID_SHARD. [FK013]"]),
    "hybrid": (dict(wrap=["Block"], model_wrapper=dict(sharding_strategy="HYBRID_SHARD")), {}, [
        "strategy.model_wrapper.sharding_strategy: needs to know how many ranks share a copy. Set strategy.shard_size, mostly the ranks of a host. [FK012]"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TOLD)
def test_what_shares_cannot_do_is_told(name):
    settings, changes, expected = TOLD[name]
    assert told(changes=changes, **settings) == expected


def test_a_shared_parameter_must_lie_in_one_unit():
    tied = ParameterFact(name="head.weight", shape=(50, 4), alias="embed.weight")
    facts = evolve(SEEN, parameters=(*PARAMETERS[:5], tied))
    text = "head.weight is the same parameter as embed.weight, and they are gathered in different units."
    assert told(facts, wrap=["Embedding"]) == [
        f"strategy.wrap: {text} Leave the smaller of the two units out of wrap. [FP023]"
    ]
    assert told(facts, wrap=["Block"]) == []


def test_an_evaluation_shares_too():
    cfg = validating(
        strategy=strategy(wrap=["Block"]), **dict.fromkeys(("train_dataloader", "train_cfg", "optim_wrapper"))
    )
    assert flexcore.plan(cfg, SEEN, mode="val").sharding.units == ("blocks.0", "blocks.1")


def test_hybrid_with_a_size_and_two_that_divide_are_fine():
    wrapper = dict(sharding_strategy="HYBRID_SHARD")
    assert told(wrap=["Block"], shard_size=2) == []
    assert told(wrap=["Block"], shard_size=4, reshard_after_forward=2) == []
    assert told(wrap=["Block"], model_wrapper=wrapper, shard_size=2) == []


def test_an_unseen_model_is_not_judged():
    assert told(RANKED, wrap=["Nothing"]) == []
    assert told(evolve(SEEN, parameters=None), wrap=["Nothing"]) == []
    assert told(evolve(SEEN, parameters=())) == []


def test_shares_need_ranks():
    with pytest.raises(
        ConfigError, match="FSDPStrategy shares a model among ranks, and no launcher started any"
    ):
        flexcore.plan(base(strategy=strategy()), KNOWN)


@pytest.mark.parametrize(("skips", "deals", "rank", "expected"), [
    (True, False, 0, True), (False, True, 0, False), (False, True, 1, True), (False, False, 1, False), (True, True, 0, True),
])  # fmt: skip
def test_which_ranks_build_parameters_without_memory(skips, deals, rank, expected):
    layout = flexcore.plan(base(strategy=strategy()), SEEN).sharding
    assert evolve(layout, skips_init=skips, meta_init=deals).hollow(rank) is expected


def test_rank_0_initialises_alone_where_that_is_asked_for():
    assert [
        flexcore.plan(base(strategy=strategy(**more)), SEEN).sharding.meta_init
        for more in ({}, dict(meta_init=True))
    ] == [False, True]
