"""Constructors of wrappers and use_fsdp: what is refused, what is merely told, what passes."""

import pytest
from attrs import evolve

from tests.flexcore.base import KNOWN, base, said

PLAIN = {"optimizer": {"type": "SGD", "lr": 0.1}}
AMP = {"type": "AmpOptimWrapper", **PLAIN}
SHARED = {**AMP, "use_fsdp": True}
TWO = evolve(KNOWN, world_size=2)

CASES = {
    "another strategy, for the second of two": (base(optim_wrapper={"a": PLAIN, "b": SHARED}), KNOWN, [
        "optim_wrapper.b.use_fsdp: shares a loss scale among ranks as FSDPStrategy needs it, and this is another strategy. Remove it, or use FSDPStrategy. [FK020]",
    ]),
    "bfloat16 under FSDP": (
        base(strategy="FSDPStrategy", optim_wrapper={**SHARED, "dtype": "bfloat16"}), TWO, [
        "optim_wrapper.use_fsdp: changes nothing: bfloat16 needs no loss scale to share. Nothing to do. [FK023]",
    ]
    ),
    "not asked for": (base(optim_wrapper=AMP), KNOWN, []),
    "one's own, for each": (
        base(optim_wrapper={"a": {**PLAIN, "constructor": "pkg:A"}, "b": {**PLAIN, "constructor": "pkg:B"}}), KNOWN, [
        "optim_wrapper.a.constructor: 'pkg:A' is a constructor of your own, and none is called here. Remove it, and write its groups as paramwise_cfg. [FK014]",
        "optim_wrapper.b.constructor: 'pkg:B' is a constructor of your own, and none is called here. Remove it, and write its groups as paramwise_cfg. [FK014]",
    ]
    ),
    "those that do what is done here": (
        base(optim_wrapper={"constructor": "GenOptimWrapperConstructor",
                            "a": {**PLAIN, "constructor": "DefaultOptimWrapperConstructor"}}), KNOWN, []
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_constructors(name):
    config, facts, expected = CASES[name]
    assert said(config, facts) == expected
