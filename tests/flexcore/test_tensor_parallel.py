"""Which layers ranks compute together, who sees which samples, and what cannot be cut: the plan and every message."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import fnmatch

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import flexcore
from flexcore.comparing import planned_samples
from flexcore.components import freeze
from flexcore.facts import Facts, ModuleFact, ParameterFact
from flexcore.questions import sample_indices, window_samples, with_world_size
from flexcore.strategies import FSDP, SingleDevice, TensorParallel, TensorPlan
from flexcore.tensor_parallel import CutLayer, Row, group_size, layers, matches, rows, tensor_layout
from tests.flexcore.base import KNOWN, base, validating
from tests.flexcore.test_sharding import RANKED


def module(path, kind, **more):
    kinds = {"Linear": "linear", "Embedding": "embedding"}
    return ModuleFact(path=path, type=kind, kind=kinds.get(kind), **more)


def block(path):
    """Attention with fused queries, keys and values, and two layers beside it."""
    yield module(path, "Block")
    yield module(f"{path}.attn", "Attention", heads=(4,))
    yield from (module(f"{path}.{name}", "Linear") for name in ("attn.qkv", "attn.proj", "up", "down"))


MODULES = (module("embed", "Embedding"), module("blocks", "ModuleList"), *block("blocks.0"), *block("blocks.1"), module("norm", "LayerNorm"),
           module("head", "Linear"))  # fmt: skip
SHAPES = {
    "embed": (50, 8),
    "attn.qkv": (24, 8),
    "attn.proj": (8, 8),
    "up": (16, 8),
    "down": (8, 16),
    "norm": (8,),
    "head": (50, 8),
}
PARAMETERS = tuple(
    ParameterFact(name=f"{one.path}.weight", shape=shape)
    for one in MODULES for end, shape in SHAPES.items() if one.path == end or one.path.endswith(f".{end}")
)  # fmt: skip
SEEN = evolve(RANKED, modules=MODULES, parameters=PARAMETERS)
PARTS = dict(style="colwise", parts=3)
PLAN = {"blocks.*.attn": "fewer_heads", "blocks.*.attn.qkv": PARTS, "blocks.*.attn.proj": "rowwise", "blocks.*.up": "colwise", "blocks.*.down": "rowwise"}  # fmt: skip
CUT = (
    CutLayer(path="blocks.0.attn", style="fewer_heads"), CutLayer(path="blocks.0.attn.qkv", style="colwise", parts=3),
    CutLayer(path="blocks.0.attn.proj", style="rowwise"),
    CutLayer(path="blocks.0.up", style="colwise"), CutLayer(path="blocks.0.down", style="rowwise"),
)  # fmt: skip


def alone(**settings):
    return dict(type="TensorParallelStrategy", **{"size": 2, "plan": PLAN, **settings})


def shared(size=2, plan=PLAN, **settings):
    return dict(type="FSDPStrategy", wrap=["Block"], tensor_parallel=dict(size=size, plan=plan), **settings)


def planned(strategy, facts=SEEN, **changes):
    return flexcore.plan(base(strategy=strategy, **changes), facts)


def told(plan, facts=SEEN, changes=None, **settings):
    """Every finding but of who counts heads, as text."""
    found = flexcore.lint(base(strategy=alone(plan=plan, **settings), **(changes or {})), facts)
    return [str(p) for p in found if p.code != "FP049"]


def seen(*kinds, **shapes):
    """Facts of modules of such paths and classes, with weights of such shapes ("__" for a dot)."""
    parameters = tuple(
        ParameterFact(name=f"{name.replace('__', '.')}.weight", shape=shape) for name, shape in shapes.items()
    )
    return evolve(RANKED, modules=tuple(module(*pair) for pair in kinds), parameters=parameters)


# --- patterns ------------------------------------------------------------------------------------

names = st.text(alphabet="ab.*", max_size=6)


@given(names, st.text(alphabet="ab.", max_size=6))
def test_a_star_stands_for_any_text_between_dots(pattern, path):
    ours, theirs = pattern.split("."), path.split(".")
    expected = len(ours) == len(theirs) and all(
        fnmatch.fnmatchcase(part, own) for own, part in zip(ours, theirs, strict=True)
    )
    assert matches(pattern, path) is expected


def test_what_else_is_special_in_patterns_is_plain_here():
    assert matches("a[0]+?", "a[0]+?")
    assert not matches("a+", "aa")


def test_lines_of_another_shape_are_no_rows():
    written = {"a": "rowwise", "b": dict(style="colwise", parts=2), "c": 1, 4: "rowwise", "d": dict(parts=2),
               "e": dict(style="colwise", parts="2"), "f": dict(style="x")}  # fmt: skip
    assert list(rows(freeze(written))) == [Row("a", "rowwise"), Row("b", "colwise", 2), Row("f", "x")]


def test_layers_stand_in_the_models_order_by_the_first_line_that_meets_them():
    plan = freeze({"head": "colwise_rep", "*": "replicate", "embed": "rowwise"})
    found = layers(plan, Facts(modules=MODULES))
    assert [(one.path, one.style) for one in found] == [
        ("embed", "replicate"), ("blocks", "replicate"), ("norm", "replicate"), ("head", "colwise_rep"),
    ]  # fmt: skip
    assert layers(plan, Facts()) is None


# --- the plan ------------------------------------------------------------------------------------


def test_a_plan_tells_which_layers_are_cut_and_over_which_ranks():
    plan = planned(shared(shard_size=1))
    assert plan.tensor_parallel.layers == (
        *CUT,
        *(evolve(one, path=one.path.replace("0", "1")) for one in CUT),
    )
    assert (plan.tensor_parallel.size, plan.tensor_parallel.groups) == (2, 2)
    assert (plan.sharding.replicas, plan.sharding.shards) == (2, 1)
    assert plan.mesh == (("replicate", 2), ("shard", 1), ("tensor", 2))
    lines = str(plan).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("tensor"))
    assert lines[start - 1 : start + 6] == [
        "shares       over 1 rank, 2 copies; 2 units beside the whole",
        "tensor       2 groups of 2 ranks compute a copy each; mesh replicate 2 x shard 1 x tensor 2",
        "             blocks.*.attn: fewer_heads, 2 layers",
        "             blocks.*.attn.qkv: colwise in 3 parts, 2 layers",
        "             blocks.*.attn.proj: rowwise, 2 layers",
        "             blocks.*.up: colwise, 2 layers",
        "             blocks.*.down: rowwise, 2 layers",
    ]
    assert "batch        4 micro x 1 accumulation x 2 groups = 8 samples per optimizer step" in lines


@pytest.mark.parametrize(
    ("strategy", "mesh", "data"),
    [
        (alone(), (("replicate", 2), ("tensor", 2)), 2),
        (alone(size=None), (("tensor", 4),), 1),
        (alone(size=4), (("tensor", 4),), 1),
        (alone(size=1), (("replicate", 4), ("tensor", 1)), 4),
        (shared(), (("shard", 2), ("tensor", 2)), 2),
        (shared(size=4), (("shard", 1), ("tensor", 4)), 1),
        (dict(type="FSDPStrategy", wrap=["Block"], shard_size=2), (("replicate", 2), ("shard", 2)), 4),
        (dict(type="DDPStrategy"), (), 4),
    ],
)
def test_ranks_are_laid_out_with_groups_as_neighbours(strategy, mesh, data):
    plan = planned(strategy)
    assert plan.mesh == mesh
    assert plan.batching.data_parallel_size == data
    group = 4 // data
    assert [plan.data_rank(rank) for rank in range(4)] == [rank // group for rank in range(4)]
    assert [plan.leads(rank) for rank in range(4)] == [rank % group == 0 for rank in range(4)]


def test_one_group_of_few_lines_is_told_in_the_singular():
    assert "\ntensor       4 groups of 1 rank compute a copy each; mesh replicate 4 x tensor 1\n" in str(
        planned(alone(size=1))
    )
    text = str(planned(alone(size=4, plan={"head": "rowwise_rep"})))
    assert (
        "\ntensor       1 group of 4 ranks compute a copy each; mesh tensor 4\n             head: rowwise_rep, 1 layer\n"
        in text
    )


def test_a_model_laid_out_otherwise_tells_nothing_of_groups():
    assert "tensor" not in str(planned(dict(type="FSDPStrategy", wrap=["Block"])))
    assert tensor_layout(SingleDevice(), SEEN, 4) is None
    assert tensor_layout(FSDP(), SEEN, 4) is None
    assert (group_size(SingleDevice(), 4), group_size(FSDP(), 4)) == (1, 1)
    assert group_size(FSDP(tensor_parallel=TensorPlan(size=2)), None) == 2
    assert (group_size(TensorParallel(), 4), group_size(TensorParallel(), None)) == (4, None)


def test_unknown_ranks_and_modules_stay_symbolic():
    facts = evolve(KNOWN, world_size=None)
    plan = flexcore.plan(base(strategy=alone(), launcher="pytorch"), facts)
    assert (plan.tensor_parallel.layers, plan.tensor_parallel.size, plan.tensor_parallel.groups) == (
        None,
        2,
        None,
    )
    assert plan.batching.data_parallel_size is None
    assert ("tensor_parallel.layers", "modules") in [(row.field, row.fact) for row in plan.unresolved]
    text = "tensor       ? (needs world_size) groups of 2 ranks compute a copy each; mesh replicate ? (needs world_size) x tensor 2\n"
    assert text in str(plan)
    assert "             blocks.*.up: colwise, ? (needs modules) layers\n" in str(plan)
    assert "tensor_parallel.layers" not in [row.field for row in planned(alone()).unresolved]


def test_all_of_an_unknown_number_of_ranks_are_one_group():
    plan = flexcore.plan(base(strategy=alone(size=None), launcher="pytorch"), evolve(KNOWN, world_size=None))
    assert (plan.tensor_parallel.size, plan.tensor_parallel.groups, plan.batching.data_parallel_size) == (
        None,
        1,
        1,
    )
    assert [plan.data_rank(rank) for rank in (0, 7)] == [0, 0]
    assert [plan.leads(rank) for rank in (0, 1)] == [True, False]


def test_unknown_sizes_are_told_and_judge_no_layer():
    facts = evolve(SEEN, world_size=None, environment=None)
    plan = flexcore.plan(base(strategy=alone(size=None, plan={"head": dict(style="colwise", parts=1), **PLAN}), launcher="pytorch"),
                         evolve(facts, parameters=tuple(evolve(one, shape=(51, 8)) if one.name == "head.weight" else one
                                                        for one in PARAMETERS)))  # fmt: skip
    text = "tensor       1 group of ? (needs world_size) ranks compute a copy each; mesh tensor ? (needs world_size)\n             head: colwise, 1 layer\n"
    assert text in str(plan)


def test_all_ranks_are_the_size_where_none_is_given():
    assert told({"head": "colwise_rep"}, size=None) == [
        "strategy.plan.head: head has 50 outputs, which 4 ranks cannot share evenly. Use a size that divides them, or leave the layer whole. [FP043]"
    ]


def test_ranks_of_a_group_read_the_same_samples():
    """Two groups deal as two ranks of DDP do."""
    plan, ddp = planned(alone()), with_world_size(planned(dict(type="DDPStrategy")), 2)
    for rank in range(4):
        assert list(sample_indices(plan, epoch=1, rank=rank)) == list(
            sample_indices(ddp, epoch=1, rank=rank // 2)
        )
        assert window_samples(plan, 4, rank) == window_samples(ddp, 4, rank // 2)
        assert planned_samples(plan, 12, rank) == planned_samples(ddp, 12, rank // 2)
    assert plan.timeline == ddp.timeline
    assert plan.trajectory_digest == ddp.trajectory_digest


def test_the_last_batch_of_each_group_is_its_own():
    """101 samples over 2 groups in batches of 3: 51 and 50 unpadded, so the last validation batches differ."""
    cfg = validating(strategy=alone())
    order = flexcore.plan(cfg, evolve(SEEN, val_samples=(7,))).validation.loaders[0].order
    assert order.world_size == 2


def test_a_global_batch_is_dealt_to_groups():
    plan = planned(shared(), global_batch_size=16)
    assert (plan.batching.gradient_accumulation_steps, plan.batching.data_parallel_size) == (2, 2)
    scaled = planned(alone(size=4), auto_scale_lr=dict(enable=True, base_batch_size=8))
    assert scaled.optimizer.lr_scale == 0.5


@pytest.mark.parametrize("strategy", [alone(), alone(size=None), shared()])
def test_a_plan_survives_json(strategy):
    plan = planned(strategy)
    assert flexcore.Plan.from_json(plan.to_json()) == plan
    assert flexcore.parse(flexcore.dump(plan.config)) == plan.config


def test_an_evaluation_is_cut_too():
    training = dict.fromkeys(("train_dataloader", "train_cfg", "optim_wrapper"))
    plan = flexcore.plan(validating(strategy=alone(), **training), SEEN, mode="val")
    assert plan.tensor_parallel.layers[:5] == CUT
    assert "groups" in str(plan)


# --- what is refused -----------------------------------------------------------------------------

STYLES = "colwise, colwise_rep, rowwise, rowwise_rep, replicate, summed, fewer_heads"
SHAPE = {
    "size": (dict(size=0), PLAN, ["strategy.size: must be at least 1, got 0. Correct the value. [FK020]"]),
    "world": (dict(size=3), PLAN, [
        "strategy.size: groups of 3 ranks do not come out even in a world of 4. Use one of 1, 2, 4. [FP020]"]),
    "no plan": (dict(), {}, [
        'strategy.plan: is missing, so no layer is cut and the ranks of a group would compute the same. Write paths and styles: {"blocks.*.up": "colwise"}. [FK012]']),
    "number": (dict(), {3: "rowwise"}, ["strategy.plan.3: must be text: a module's path. Put it in quotes. [FK011]"]),
    "misspelt": (dict(), {"a": "colwize"}, ["""strategy.plan.a: 'colwize' is not a style. Did you mean "colwise"? [FK013]"""]),
    "unknown": (dict(), {"a": "zzz", "b": 4}, [
        f"strategy.plan.a: 'zzz' is not a style. Known: {STYLES}. [FK013]",
        f"strategy.plan.b: 4 is not a style. Known: {STYLES}. [FK013]"]),
    "no style": (dict(), {"a": dict(parts=2)}, [
        "strategy.plan.a.parts: are of outputs that stay cut, and the style is None. Use style=\"colwise\", or drop the key. [FK020]",
        f"strategy.plan.a.style: is missing. Use one of {STYLES}. [FK012]"]),
    "unknown inside": (dict(), {"a": dict(style="x", part=2)}, [
        "strategy.plan.a.part: is not a setting of a style. Known: style, parts. [FK010]",
        f"strategy.plan.a: 'x' is not a style. Known: {STYLES}. [FK013]"]),
    "parts": (dict(), {"a": dict(style="colwise", parts=0), "b": dict(style="colwise", parts=True), "c": dict(style="rowwise", parts=2),
                       "d": dict(style="rowwise", parts=1)}, [
        "strategy.plan.a.parts: must be an integer of at least 1, got 0. Correct the value. [FK011]",
        "strategy.plan.b.parts: must be an integer of at least 1, got True. Correct the value. [FK011]",
        "strategy.plan.c.parts: are of outputs that stay cut, and the style is 'rowwise'. Use style=\"colwise\", or drop the key. [FK020]"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPE)
def test_settings_that_mean_nothing_are_told(name):
    settings, plan, expected = SHAPE[name]
    assert told(plan, RANKED, **settings) == expected


def test_beside_shares_the_size_of_a_group_is_given():
    found = [str(p) for p in flexcore.lint(base(strategy=shared(size=None, plan={})), SEEN)]
    assert found == [
        "strategy.tensor_parallel.size: is missing: how many ranks compute one copy together. Set it, mostly to the ranks of a host or fewer. [FK012]",
        'strategy.tensor_parallel.plan: is missing, so no layer is cut and the ranks of a group would compute the same. Write paths and styles: {"blocks.*.up": "colwise"}. [FK012]',
    ]  # fmt: skip


def test_shares_are_of_what_a_group_leaves():
    found = [str(p) for p in flexcore.lint(base(strategy=shared(shard_size=4)), SEEN) if p.code != "FP049"]
    assert found == [
        "strategy.shard_size: 4 ranks cannot share a copy evenly in the copies that tensor_parallel makes, a world of 2. Use one of 1, 2. [FP020]"
    ]
    assert [str(p) for p in flexcore.lint(base(strategy=shared(size=0)), SEEN) if p.code != "FP049"][:1] == [
        "strategy.tensor_parallel.size: must be at least 1, got 0. Correct the value. [FK020]"
    ]


MEANING = {
    "guess": ({"blocks.0.upp": "colwise", "blocks.*.down": "rowwise", "blocks.*.up": "colwise"}, SEEN, [
        'strategy.plan.blocks.0.upp: is the path of no module in the model. Did you mean "blocks.0.up"? [FP040]']),
    "no guess": ({"zzz": "replicate"}, SEEN, [
        "strategy.plan.zzz: is the path of no module in the model. Its first are embed, blocks, blocks.0, blocks.0.attn, blocks.0.attn.qkv. [FP040]"]),
    "twice alike": ({**PLAN, "blocks.0.attn.qkv": PARTS, "blocks.1.up": dict(style="colwise", parts=1)}, SEEN, []),
    "alike, told later": ({"blocks.1.up": dict(style="colwise", parts=1), **PLAN}, SEEN, []),
    "in one part": ({"blocks.*.up": dict(style="colwise", parts=1), "blocks.1.up": "rowwise", "blocks.*.down": "rowwise"}, SEEN, [
        "strategy.plan.blocks.1.up: makes blocks.1.up rowwise, and 'blocks.*.up' makes it colwise. Let each layer match one of them. [FP041]"]),
    "twice": ({**PLAN, "blocks.1.up": "colwise_rep", "blocks.0.attn.qkv": "colwise"}, SEEN, [
        "strategy.plan.blocks.1.up: makes blocks.1.up colwise_rep, and 'blocks.*.up' makes it colwise. Let each layer match one of them. [FP041]",
        "strategy.plan.blocks.0.attn.qkv: makes blocks.0.attn.qkv colwise, and 'blocks.*.attn.qkv' makes it colwise in 3 parts. Let each layer match one of them. [FP041]"]),
    "whole": ({"norm": "summed", "blocks": "replicate", "blocks.0": "summed"}, SEEN, []),
    "no layer": ({"norm": "colwise_rep", "blocks": "replicate"}, SEEN, [
        "strategy.plan.norm: norm is a LayerNorm, and a style cuts plain Linear and Embedding layers. Name the layers inside it. [FP042]"]),
    "never called": ({"mha.out": "rowwise_rep"}, seen(("mha", "MultiheadAttention"), ("mha.out", "Linear"), mha__out=(8, 8)), [
        "strategy.plan.mha.out: mha.out stands in a MultiheadAttention, which takes its layers' weights and never calls them. Use an attention that calls its layers. [FP042]"]),
    "parts of an embedding": ({"embed": dict(style="colwise", parts=2)}, SEEN, [
        "strategy.plan.embed: embed is an Embedding, whose outputs are one tensor. Drop parts. [FP042]",
        'strategy.plan.embed: embed gives a share of the features, and no layer beside it takes one. Use "colwise_rep" if the whole is needed. [FP046]']),
    "packed": ({"blocks.*.attn.qkv": "colwise", "blocks.*.attn.proj": "rowwise"}, SEEN, [
        f'strategy.plan.blocks.*.attn.qkv: blocks.{i}.attn.qkv seems to hold several tensors in one, and which rows are a rank\'s depends on how they lie. Write dict(style="colwise", parts=3) for three one after the other, parts=1 where head follows head. [FP044]'
        for i in (0, 1)]),
    "packed at the top": ({"QKV": "colwise", "out": "rowwise"}, seen(("QKV", "Linear"), ("out", "Linear"), QKV=(12, 4), out=(4, 4)), [
        'strategy.plan.QKV: QKV seems to hold several tensors in one, and which rows are a rank\'s depends on how they lie. Write dict(style="colwise", parts=3) for three one after the other, parts=1 where head follows head. [FP044]']),
    "head by head": ({"blocks.*.attn.qkv": dict(style="colwise", parts=1), "blocks.*.attn.proj": "rowwise"}, SEEN, []),
    "packed and put together": ({"blocks.*.attn.qkv": "colwise_rep"}, SEEN, []),
    "five parts": ({"blocks.0.attn.qkv": dict(style="colwise", parts=5), "blocks.0.attn.proj": "rowwise"}, SEEN, [
        "strategy.plan.blocks.0.attn.qkv: blocks.0.attn.qkv has 24 outputs, which are no 5 tensors of one size. Correct parts. [FP043]"]),
    "eight parts": ({"blocks.0.attn.qkv": dict(style="colwise", parts=8), "blocks.0.attn.proj": "rowwise"}, SEEN, [
        "strategy.plan.blocks.0.attn.qkv: blocks.0.attn.qkv has 3 outputs in each of 8 parts, which 2 ranks cannot share evenly. Use a size that divides them, or leave the layer whole. [FP043]"]),
    "uneven": ({"a": "colwise_rep", "b": "rowwise_rep", "c": "colwise_rep", "d": "rowwise"},
               seen(("a", "Linear"), ("b", "Linear"), ("c", "Embedding"), ("d", "Embedding"), a=(3, 4), b=(4, 5), c=(4, 7), d=(9, 4)), [
        f"strategy.plan.{name}: {name} has {count}, which 2 ranks cannot share evenly. Use a size that divides them, or leave the layer whole. [FP043]"
        for name, count in (("a", "3 outputs"), ("b", "5 inputs"), ("c", "7 outputs"), ("d", "9 inputs"))]),
    "even": ({"a": "colwise_rep", "b": "rowwise_rep", "c": "colwise_rep", "d": "rowwise"},
             seen(("a", "Linear"), ("b", "Linear"), ("c", "Embedding"), ("d", "Embedding"), a=(4, 3), b=(5, 4), c=(7, 4), d=(4, 9)), []),
    "stranded": ({"blocks.*.up": "colwise", "blocks.*.attn.proj": "rowwise"}, SEEN, [
        'strategy.plan.blocks.*.attn.proj: blocks.0.attn.proj takes a share of the features, and no layer beside it gives one. Use "rowwise_rep" if the whole is given. [FP046]']),
    "second stranded": ({"blocks.0.up": "colwise", "blocks.0.down": "rowwise", "blocks.1.up": "colwise"}, SEEN, [
        'strategy.plan.blocks.1.up: blocks.1.up gives a share of the features, and no layer beside it takes one. Use "colwise_rep" if the whole is needed. [FP046]']),
    "head stranded": ({**PLAN, "head": "colwise"}, SEEN, []),
    "alone at the top": ({"head": "colwise"}, SEEN, [
        'strategy.plan.head: head gives a share of the features, and no layer beside it takes one. Use "colwise_rep" if the whole is needed. [FP046]']),
}  # fmt: skip


@pytest.mark.parametrize("name", MEANING)
def test_what_cannot_be_cut_as_asked_is_told(name):
    plan, facts, expected = MEANING[name]
    assert told(plan, facts) == expected


TIED = (*PARAMETERS[:-1], ParameterFact(name="head.weight", shape=(50, 8), alias="embed.weight"))


def torn(name, alias):
    text = f"{name}.weight is the same parameter as {alias}.weight, and they would be cut differently."
    return f"{text} Cut both alike (an embedding rowwise, its head colwise_rep), or neither. [FP045]"


TORN = torn("head", "embed")


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ({"embed": "rowwise", "head": "colwise_rep"}, []),
        ({"embed": "colwise_rep", "head": "rowwise_rep"}, []),
        ({"embed": "replicate", "norm": "replicate"}, []),
        (PLAN, []),
        ({"embed": "rowwise"}, [f"strategy.plan.embed: {TORN}"]),
        ({"head": "colwise_rep"}, [f"strategy.plan.head: {TORN}"]),
        ({"embed": "colwise_rep", "head": "colwise_rep"}, [f"strategy.plan.head: {TORN}"]),
        ({"embed": "replicate", "head": "colwise_rep"}, [f"strategy.plan.head: {TORN}"]),
    ],
)
def test_a_shared_parameter_is_cut_in_one_way(plan, expected):
    assert told(plan, evolve(SEEN, parameters=TIED)) == expected


def test_a_shared_parameter_is_in_as_many_parts_wherever_it_stands():
    facts = seen(("a", "Linear"), ("b", "Linear"), ("c", "Linear"), a=(6, 6), c=(6, 6))
    facts = evolve(
        facts, parameters=(*facts.parameters, ParameterFact(name="b.weight", shape=(6, 6), alias="a.weight"))
    )
    plan = {"a": dict(style="colwise", parts=3), "b": "colwise", "c": "rowwise"}
    assert told(plan, facts) == [f"strategy.plan.b: {torn('b', 'a')}"]


def test_shared_parameters_deep_in_the_model_are_cut_in_one_way():
    tied = ParameterFact(name="blocks.1.up.weight", shape=(16, 8), alias="blocks.0.up.weight")
    facts = evolve(SEEN, parameters=tuple(tied if one.name == tied.name else one for one in PARAMETERS))
    assert told({"blocks.*.up": "colwise", "blocks.*.down": "rowwise"}, facts) == []
    assert (
        told(
            {
                "blocks.0.up": dict(style="colwise", parts=1),
                "blocks.1.up": "colwise",
                "blocks.*.down": "rowwise",
            },
            facts,
        )
        == []
    )
    assert told({"blocks.1.up": "colwise_rep"}, facts) == [
        f"strategy.plan.blocks.1.up: {torn('blocks.1.up', 'blocks.0.up')}"
    ]


def attending(*heads, kind="Attention"):
    """Attention of so many heads around the layers that are cut, and a layer within one of its parts."""
    paths = (("attn", kind), ("attn.inner", "Sequential"), ("attn.inner.q", "Linear"), ("attn.out", "Linear"))
    made = seen(*paths, attn__inner__q=(12, 12), attn__out=(12, 12))
    return evolve(made, modules=(evolve(made.modules[0], heads=heads), *made.modules[1:]))


HEADED = {"attn.inner.q": "colwise", "attn.out": "rowwise"}


def uncounted(*counts, fewer, line="attn.inner.q", owner="attn"):
    text = f"Attention was built with {' and '.join(counts)} heads, of which a rank computes {fewer}, and whether its forward counts on them cannot be told."
    remedy = f'Add "{owner}": "fewer_heads" to divide the number it holds, or "replicate" where it is inferred: view(..., -1, head_dim).'
    return f"strategy.plan.{line}: {text} {remedy} [FP049]"


def uneven(counts, size):
    text = f"attn computes with {counts} heads, which {size} ranks cannot share evenly. Use a size that divides them."
    return f"strategy.plan.attn.inner.q: {text} [FP048]"


@pytest.mark.parametrize(
    ("heads", "size", "more", "expected"),
    [
        ((), 2, {}, []),
        ((4,), 1, {}, []),
        ((4,), 2, {"attn": "fewer_heads"}, []),
        ((4,), 2, {"attn": "replicate"}, []),
        ((4,), 2, {}, [uncounted("4", fewer="2")]),
        ((4, 2), 2, {}, [uncounted("4", "2", fewer="2 and 1")]),
        ((4,), 4, {}, [uncounted("4", fewer="1")]),
        ((3,), 2, {}, [uneven("3", 2)]),
        ((4, 2), 4, {"attn": "fewer_heads"}, [uneven("4 and 2", 4)]),
    ],
)
def test_heads_go_to_ranks_whole_and_someone_counts_them(heads, size, more, expected):
    found = flexcore.lint(base(strategy=alone(size=size, plan={**HEADED, **more})), attending(*heads))
    assert [str(p) for p in found if p.path[0] == "strategy" and p.code != "FP046"] == expected


def test_the_innermost_module_with_heads_counts_them():
    facts = attending(4)
    outer = module("attn.inner", "Grouped", heads=(6,))
    facts = evolve(facts, modules=tuple(outer if one.path == outer.path else one for one in facts.modules))
    found = [p for p in flexcore.lint(base(strategy=alone(plan=HEADED)), facts) if p.code == "FP049"]
    assert [str(p).split(" heads")[0] for p in found] == [
        "strategy.plan.attn.inner.q: Grouped was built with 6"
    ]
    assert '"attn.inner": "fewer_heads"' in found[0].remedy


def test_who_counts_heads_is_asked_once_a_kind_by_the_owners_own_pattern():
    plan = {key: value for key, value in PLAN.items() if key != "blocks.*.attn"}

    def found(facts, **more):
        return [
            str(p)
            for p in flexcore.lint(base(strategy=alone(plan={**plan, **more})), facts)
            if p.code[:4] == "FP04"
        ]

    asked = uncounted("4", fewer="2", line="blocks.*.attn.qkv", owner="blocks.*.attn")
    assert found(SEEN) == [asked]
    assert found(SEEN, **{"blocks.0.attn": "replicate"}) == [asked]
    assert found(SEEN, **{"blocks.*.attn": "replicate"}) == []
    others = {"heads": (8,)}, {"type": "Other"}
    for change in others:
        facts = evolve(
            SEEN,
            modules=tuple(evolve(one, **change) if one.path == "blocks.1.attn" else one for one in MODULES),
        )
        assert len(found(facts)) == 2


def test_heads_that_are_not_cut_are_not_divided():
    text = "has no heads that are cut: a number of heads, and layers within that give shares. Remove it, or cut its layers. [FP042]"
    plan = {
        "blocks.*.attn.qkv": "colwise_rep",
        "blocks.*.attn.proj": "rowwise_rep",
        "blocks.0.attn": "fewer_heads",
        "norm": "fewer_heads",
    }
    assert told(plan) == [
        f"strategy.plan.blocks.0.attn: blocks.0.attn {text}",
        f"strategy.plan.norm: norm {text}",
    ]
    codes = [p.code for p in flexcore.lint(base(strategy=alone(plan=dict(list(plan.items())[:2]))), SEEN)]
    assert "FP049" not in codes


OWN = "has an order of its own, which may differ between ranks that compute one copy of the model together. Use a dataset that has a length, with DefaultSampler or InfiniteSampler. [FP047]"
DATA = dict(dataset=dict(type="pkg.data:Digits"), batch_size=4)
SAMPLED = dict(DATA, sampler=dict(type="pkg.data:Mine"))


@pytest.mark.parametrize(
    ("changes", "facts", "expected"),
    [
        (dict(train_dataloader=SAMPLED), SEEN, [f"train_dataloader: {OWN}"]),
        (dict(train_dataloader=dict(DATA, num_batch_per_epoch=4)), evolve(SEEN, train_samples=None, train_iterable=True), [f"train_dataloader: {OWN}"]),
        (dict(val_dataloader=SAMPLED), SEEN, [f"val_dataloader: {OWN}"]),
        (dict(val_dataloader=dict(a=DATA, b=SAMPLED)), evolve(SEEN, val_samples=(5, 5)), [f"val_dataloader.b: {OWN}"]),
        (dict(val_dataloader=[SAMPLED, DATA]), evolve(SEEN, val_samples=(5, 5)), [f"val_dataloader.0: {OWN}"]),
        (dict(val_dataloader=[DATA, DATA]), evolve(SEEN, val_samples=(5, None)), [f"val_dataloader.1: {OWN}"]),
        (dict(val_dataloader=DATA), evolve(SEEN, val_samples=(None,)), [f"val_dataloader: {OWN}"]),
        (dict(val_dataloader=DATA), evolve(SEEN, val_samples=None), []),
    ],
)  # fmt: skip
def test_an_order_of_ones_own_may_part_a_group(changes, facts, expected):
    found = flexcore.lint(validating(strategy=alone(), **changes), facts)
    assert [str(p) for p in found if p.code == "FP047"] == expected


def test_a_test_loader_is_judged_as_well():
    cfg = base(
        strategy=alone(), test_dataloader=SAMPLED, test_cfg={}, test_evaluator=dict(type="pkg.metrics:Top")
    )
    assert [str(p) for p in flexcore.lint(cfg, SEEN) if p.code == "FP047"] == [f"test_dataloader: {OWN}"]


def test_an_evaluation_alone_has_no_training_to_judge():
    cfg = validating(strategy=alone(), **dict.fromkeys(("train_dataloader", "train_cfg", "optim_wrapper")))
    assert flexcore.lint(cfg, SEEN, mode="val") == ()


AMP = dict(type="AmpOptimWrapper", optimizer=dict(type="SGD", lr=0.1))
NEEDS = "looks at whole parameters, and a rank holds a share of each. Use an optimizer that goes number by number, or DDPStrategy. [FP021]"
EACH = "takes all parameters at once, and some are cut over other ranks than others. Remove it: each is updated by itself. [FP021]"
HALF = 'optim_wrapper.dtype: float16 scales the loss by what all gradients say, and a rank holds a part of some. Set dtype="bfloat16". [FP021]'


@pytest.mark.parametrize(
    ("wrapper", "expected"),
    [
        (dict(optimizer=dict(type="AdamW", lr=0.1, foreach=False, fused=None)), []),
        (
            dict(optimizer=dict(type="AdamW", lr=0.1, foreach=True)),
            [f"optim_wrapper.optimizer.foreach: {EACH}"],
        ),
        (dict(optimizer=dict(type="AdamW", lr=0.1, fused=True)), [f"optim_wrapper.optimizer.fused: {EACH}"]),
        (dict(optimizer=dict(type="Adafactor", lr=0.1)), [f"optim_wrapper.optimizer: Adafactor {NEEDS}"]),
        (dict(AMP, dtype="float16"), [HALF]),
        (dict(AMP, dtype="bfloat16"), []),
    ],
)
def test_what_mixes_cut_and_whole_parameters_is_told(wrapper, expected):
    assert told(PLAN, changes=dict(optim_wrapper=wrapper)) == expected


def test_beside_shares_what_needs_whole_parameters_is_told_once():
    for wrapper in (dict(optimizer=dict(type="Adafactor", lr=0.1)), dict(AMP, dtype="float16")):
        codes = [p.code for p in flexcore.lint(base(strategy=shared(), optim_wrapper=wrapper), SEEN)]
        assert codes.count("FP021") == 1
    fused = dict(optimizer=dict(type="SGD", lr=0.1, fused=True))
    assert [
        str(p) for p in flexcore.lint(base(strategy=shared(), optim_wrapper=fused), SEEN) if p.code == "FP021"
    ] == [f"optim_wrapper.optimizer.fused: {EACH}"]


def test_a_supplied_optimizer_is_taken_at_its_word():
    cfg = base(strategy=alone(), optim_wrapper=dict(optimizer=flexcore.Supplied()))
    assert [p.code for p in flexcore.lint(cfg, SEEN) if p.path[0] == "optim_wrapper"] == []


def test_an_unseen_model_is_not_judged():
    assert told({"zzz": "colwise"}, RANKED) == []
    assert told({"zzz": "colwise"}, evolve(SEEN, parameters=None)) == []


@pytest.mark.parametrize("shape", [(), (3,), (3, 3, 3)])
def test_a_layer_without_a_matrix_is_not_measured(shape):
    """Facts that no model showed."""
    assert told({"a": "colwise_rep"}, seen(("a", "Linear"), a=shape)) == []
    assert told({"a": "colwise_rep"}, seen(("a", "Linear"))) == []


def test_groups_need_ranks():
    text = "strategy: TensorParallelStrategy shares a model among ranks, and no launcher started any. Run with --nproc N or torchrun, or use SingleDeviceStrategy. [FP001]"
    assert text in [str(p) for p in flexcore.lint(base(strategy=alone()), KNOWN)]


def test_several_optimizers_are_not_built_yet():
    wrapper = dict(a=dict(optimizer=dict(type="SGD", lr=0.1)), b=dict(optimizer=dict(type="SGD", lr=0.1)))
    text = "strategy: TensorParallelStrategy with several optimizers is understood but not built yet. Use DDPStrategy or SingleDeviceStrategy. [FK014]"
    assert text in [str(p) for p in flexcore.lint(base(strategy=alone(), optim_wrapper=wrapper), SEEN)]
