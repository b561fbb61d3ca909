"""Lines of a tensor-parallel plan against modules seen: every finding, whole, beside those of test_tensor_parallel."""

import pytest
from attrs import evolve

from flexcore.environment import data_parallel_size
from flexcore.facts import ModuleFact, ParameterFact
from flexcore.strategies import FSDP, TensorPlan
from tests.flexcore.base import base, said
from tests.flexcore.test_sharding import RANKED

KINDS = {"Linear": "linear", "Embedding": "embedding"}


def seen(*modules, tied=(), **changes):
    """Facts of (path, class, shape of its weight or heads) and of (name, alias) of weights shared."""
    parameters = [
        ParameterFact(name=f"{path}.weight", shape=rest) for path, kind, rest in modules if kind in KINDS
    ]
    parameters += [
        ParameterFact(name=f"{name}.weight", shape=(8, 8), alias=f"{alias}.weight") for name, alias in tied
    ]
    facts = tuple(
        ModuleFact(path=path, type=kind, kind=KINDS.get(kind), heads=() if kind in KINDS else rest)
        for path, kind, rest in modules
    )
    return evolve(RANKED, modules=facts, parameters=tuple(parameters), **changes)


def cut(size=2, **lines):
    plan = {path.replace("__", "."): line for path, line in lines.items()}
    return base(strategy={"type": "TensorParallelStrategy", "size": size, "plan": plan})


def parts(number):
    return {"style": "colwise", "parts": number}


SQUARE = (8, 8)
PAIR = (("a", "Linear", SQUARE), ("b", "Linear", SQUARE))
HEADED = (
    ("one", "One", (4,)),
    ("one.q", "Linear", SQUARE),
    ("other", "Other", (4,)),
    ("other.q", "Linear", SQUARE),
)
NESTED = (("block", "Block", (8,)), ("block.attn", "Attention", (3,)), ("block.attn.q", "Linear", SQUARE))
TIED = (("enc", "Encoder", ()), ("enc.embed", "Embedding", SQUARE), ("enc.head", "Linear", SQUARE))
UNKNOWN = {"world_size": None, "environment": (("RANK", "0"), ("WORLD_SIZE", "x"))}

CASES = {
    "alike, one of them saying so": (cut(**{"a": parts(1), "*": "colwise"}), seen(PAIR[0]), [
        'strategy.plan.a: a gives a share of the features, and no layer beside it takes one. Use "colwise_rep" if the whole is needed. [FP046]',
    ]),
    "in two parts and in one": (cut(**{"a": parts(2), "*": "colwise"}), seen(PAIR[0]), [
        "strategy.plan.*: makes a colwise, and 'a' makes it colwise in 2 parts. Let each layer match one of them. [FP041]",
        'strategy.plan.a: a gives a share of the features, and no layer beside it takes one. Use "colwise_rep" if the whole is needed. [FP046]',
    ]),
    "an embedding in two parts": (cut(a=parts(2)), seen(("a", "Embedding", SQUARE)), [
        "strategy.plan.a: a is an Embedding, whose outputs are one tensor. Drop parts. [FP042]",
        'strategy.plan.a: a gives a share of the features, and no layer beside it takes one. Use "colwise_rep" if the whole is needed. [FP046]',
    ]),
    "parts that ranks share": (cut(a=parts(2), b="rowwise"), seen(("a", "Linear", (12, 8)), PAIR[1]), []),
    "parts that more ranks cannot": (cut(4, a=parts(2), b="rowwise"), seen(("a", "Linear", (12, 8)), PAIR[1]), [
        "strategy.plan.a: a has 6 outputs in each of 2 parts, which 4 ranks cannot share evenly. Use a size that divides them, or leave the layer whole. [FP043]",
    ]),
    "the heads around it": (cut(block__attn__q="colwise"), seen(*NESTED), [
        'strategy.plan.block.attn.q: block.attn.q gives a share of the features, and no layer beside it takes one. Use "colwise_rep" if the whole is needed. [FP046]',
        "strategy.plan.block.attn.q: block.attn computes with 3 heads, which 2 ranks cannot share evenly. Use a size that divides them. [FP048]",
    ]),
    "two kinds of heads": (cut(one__q="colwise", other__q="colwise"), seen(*HEADED), [
        'strategy.plan.one.q: one.q gives a share of the features, and no layer beside it takes one. Use "colwise_rep" if the whole is needed. [FP046]',
        'strategy.plan.other.q: other.q gives a share of the features, and no layer beside it takes one. Use "colwise_rep" if the whole is needed. [FP046]',
        'strategy.plan.one.q: One was built with 4 heads, of which a rank computes 2, and whether its forward counts on them cannot be told. Add "one": "fewer_heads" to divide the number it holds, or "replicate" where it is inferred: view(..., -1, head_dim). [FP049]',
        'strategy.plan.other.q: Other was built with 4 heads, of which a rank computes 2, and whether its forward counts on them cannot be told. Add "other": "fewer_heads" to divide the number it holds, or "replicate" where it is inferred: view(..., -1, head_dim). [FP049]',
    ]),
    "tied within, alike": (
        cut(enc__embed="rowwise", enc__head="colwise_rep"), seen(*TIED, tied=[("enc.head", "enc.embed")]), []
    ),
    "tied within, in parts of one": (
        cut(enc__head={**parts(1), "style": "colwise_rep"}, enc__embed="rowwise"), seen(*TIED, tied=[("enc.head", "enc.embed")]), []
    ),
    "tied within, apart": (cut(enc__embed="rowwise"), seen(*TIED, tied=[("enc.head", "enc.embed")]), [
        "strategy.plan.enc.embed: enc.head.weight is the same parameter as enc.embed.weight, and they would be cut differently. Cut both alike (an embedding rowwise, its head colwise_rep), or neither. [FP045]",
    ]),
    "the second stranded": (
        cut(x__a="colwise", x__b="rowwise", y__a="colwise"),
        seen(("x.a", "Linear", SQUARE), ("x.b", "Linear", SQUARE), ("y.a", "Linear", SQUARE)), [
        'strategy.plan.y.a: y.a gives a share of the features, and no layer beside it takes one. Use "colwise_rep" if the whole is needed. [FP046]',
    ]
    ),
    "as many ranks as there are": (cut(None, a="colwise_rep"), seen(("a", "Linear", (6, 8))), [
        "strategy.plan.a: a has 6 outputs, which 4 ranks cannot share evenly. Use a size that divides them, or leave the layer whole. [FP043]",
    ]),
    "nobody knows how many": (cut(None, a="colwise_rep"), seen(("a", "Linear", (7, 8)), **UNKNOWN), []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_cutting(name):
    config, facts, expected = CASES[name]
    assert [text for text in said(config, facts) if "[FD008]" not in text] == expected


def test_groups_of_every_rank_see_one_stream():
    settings = FSDP(tensor_parallel=TensorPlan(size=None))
    assert [data_parallel_size(settings, world) for world in (4, None)] == [1, None]
